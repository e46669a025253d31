"""Seconds that LAPACK's dsyevd (SciPy with OpenBLAS) takes for the matrices that shampoo.mjs saved.

Usage: python tools/bench/dsyevd.py FOLDER
"""

import sys
import time
from pathlib import Path

import numpy as np
import scipy.linalg

total = 0.0
for path in sorted(Path(sys.argv[1]).glob("*.f32")):
    size = int(path.stem.split("_")[1])
    matrix = np.fromfile(path, dtype=np.float32).reshape(size, size).astype(np.float64)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        scipy.linalg.eigh(matrix, driver="evd")
        times.append(time.perf_counter() - start)
    total += min(times)
print(f"{total:.2f} s for all matrices, the fastest of three each")
