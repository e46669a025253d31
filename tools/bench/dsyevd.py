"""Seconds that LAPACK's dsyevd (NumPy with its BLAS) takes for the matrices that roots.mjs saved.

Usage: python tools/bench/dsyevd.py FOLDER [--serve]

With --serve, a line of JSON says the version, and one for each line on standard input tells milliseconds of wall and
processor time of one pass over all matrices.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

matrices = []
for path in sorted(Path(sys.argv[1]).glob("*.f32")):
    size = int(path.stem.split("_")[1])
    stack = np.fromfile(path, dtype=np.float32).reshape(-1, size, size).astype(np.float64)
    matrices.extend(stack)


def measure():
    wall, cpu = time.perf_counter(), time.process_time()
    for matrix in matrices:
        np.linalg.eigh(matrix)  # dsyevd, lower half
    return {"wall": 1e3 * (time.perf_counter() - wall), "cpu": 1e3 * (time.process_time() - cpu)}


if "--serve" in sys.argv:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    print(json.dumps({"version": f"{np.__version__} with {blas['name']} {blas['version']}"}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)
else:
    best = min((measure() for _ in range(3)), key=lambda one: one["wall"])
    print(f"{best['wall'] / 1e3:.2f} s for all matrices (CPU {best['cpu'] / 1e3:.2f} s), the fastest of three")
