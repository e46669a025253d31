"""Writes a Parquet set that is larger than memory ought to be: rows of noise, which no codec makes smaller.

    python tools/bench/write_parquet.py FILE [GIGABYTES]

Columns: x (512 float32 in a list) and labels (int64); row groups of 4,096 rows (8 MiB). Needs numpy and pyarrow.
"""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = 512
ROWS = 4096
CLASSES = 10


def main(path: str, gigabytes: float) -> None:
    random = np.random.default_rng(0)
    groups = round(gigabytes * 1e9 / (ROWS * FEATURES * 4))
    schema = pa.schema({"x": pa.list_(pa.float32()), "labels": pa.int64()})
    with pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=False) as writer:
        for _ in range(groups):
            values = random.random(ROWS * FEATURES, np.float32)
            offsets = np.arange(0, ROWS * FEATURES + 1, FEATURES, dtype=np.int32)
            rows = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
            labels = pa.array(random.integers(0, CLASSES, ROWS), pa.int64())
            writer.write_table(pa.table({"x": rows, "labels": labels}, schema=schema), row_group_size=ROWS)
    print(f"{path}: {groups * ROWS:,} rows in {groups} row groups")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 2.0)
