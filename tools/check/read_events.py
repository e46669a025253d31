"""Reads the event files of a run as TensorBoard does, and compares them with metrics.jsonl.

    python tools/check/read_events.py RUN

Needs the package tensorboard. Its reader checks the checksums of every record.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray


def main(run: Path) -> None:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    events.Reload()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected: dict[str, list[tuple[int, float]]] = {}
    blocks: dict[str, list[tuple[int, list[float]]]] = {}
    for record in records:
        step = record["step"]
        for name in ("loss", "learning_rate", "examples_per_second", "epoch"):
            if name in record:
                expected.setdefault(f"train/{name}", []).append((step, record[name]))
        for name, value in record.get("diagnostics", {}).items():
            expected.setdefault(f"diagnostics/{name}", []).append((step, value))
        for name, value in record.items():
            if name.startswith("held_out_"):
                expected.setdefault(f"held_out/{name.removeprefix('held_out_')}", []).append((step, value))
        for name, values in record.get("block_diagnostics", {}).items():
            finite = [value for value in values if value is not None and math.isfinite(value)]
            if finite:
                blocks.setdefault(f"diagnostics/{name}", []).append((step, finite))

    # TensorBoard turns scalars and histograms of its first format into tensors when it reads them.
    tags = events.Tags()
    scalars = set(tags["scalars"]) | set(tags["tensors"])
    compared = 0
    for tag, points in expected.items():
        assert tag in scalars, f"{tag} is missing; there are {sorted(scalars)}"
        if tag in tags["scalars"]:
            read = [(point.step, point.value) for point in events.Scalars(tag)]
        else:
            read = [(point.step, make_ndarray(point.tensor_proto).item()) for point in events.Tensors(tag)]
        assert [step for step, _ in read] == [step for step, _ in points], f"{tag}: other steps"
        np.testing.assert_allclose([value for _, value in read], [value for _, value in points], rtol=1e-6, err_msg=tag)
        compared += len(read)
    histograms = 0
    for tag, points in blocks.items():
        read = events.Histograms(tag)
        assert [point.step for point in read] == [step for step, _ in points], f"{tag}: other steps"
        for point, (_, values) in zip(read, points, strict=True):
            histogram = point.histogram_value
            assert histogram.num == len(values) == sum(histogram.bucket)
            assert list(histogram.bucket_limit) == sorted(histogram.bucket_limit)
            np.testing.assert_allclose(
                [histogram.min, histogram.max, histogram.sum, histogram.sum_squares],
                [min(values), max(values), sum(values), sum(value * value for value in values)],
                rtol=1e-9,
            )
            # Every bucket holds the values between its limit and the one before.
            edges = [-math.inf, *histogram.bucket_limit]
            for low, high, count in zip(edges[:-1], edges[1:], histogram.bucket, strict=True):
                assert sum(low < value <= high for value in values) == count
            histograms += 1
    print(f"{len(expected)} scalars with {compared} points, {len(blocks)} histograms with {histograms} points: as in metrics.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
