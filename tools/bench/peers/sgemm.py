"""Float32 matrix products in PyTorch: `sgemm.py THREADS`; a kind of step is a size."""

import sys

from protocol import serve

import torch

torch.set_num_threads(int(sys.argv[1]))


def product(size):
    x, y, z = torch.rand(size, size), torch.rand(size, size), torch.empty(size, size)
    return lambda: torch.mm(x, y, out=z)


serve({"version": f"PyTorch {torch.__version__}"}, {str(size): product(size) for size in (512, 1024, 2048)})
