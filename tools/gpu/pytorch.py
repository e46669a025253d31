"""PyTorch's step times on the same works: `pytorch.py FOLDER DEVICE [SECONDS]`, a line of JSON for each mode.

FOLDER is what tools/bench/workloads/works.mjs writes. Modes: forward and backward (eager, torch.compile), and a step of Adam with
either. float32 products are float32 (no TF32), as fishy's are. Times are medians of rounds, each ended by a synchronisation.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench" / "peers"))
from models import MODELS  # noqa: E402

folder, device = Path(sys.argv[1]), sys.argv[2]
seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 20
# As of fishy's steps (run.mjs --clock, --threads).
clock = time.process_time if os.environ.get("FISHY_BENCH_CLOCK") == "cpu" else time.perf_counter
if int(os.environ.get("FISHY_BENCH_THREADS", "0")) > 0:
    torch.set_num_threads(int(os.environ["FISHY_BENCH_THREADS"]))
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.manual_seed(0)

work = json.loads((folder / "work.json").read_text())
dtype = np.int64 if work.get("tokens") else np.float32
x = torch.from_numpy(np.fromfile(folder / "x.bin", dtype).reshape(work["batch"], *work["dims"])).to(device)
target = torch.from_numpy(np.fromfile(folder / "labels.bin", np.int64)).to(device) if work.get("classes") else x


def loss_of(logits):
    if work["loss"] == "softmax-cross-entropy":
        return torch.nn.functional.cross_entropy(logits, target)
    if work["loss"] == "mean-squared-error":
        return torch.nn.functional.mse_loss(logits, target)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(target)


def synchronise():
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(mode):
    model = MODELS[work["name"]][0]().train().to(device)
    forward = lambda: loss_of(model(x))  # noqa: E731
    if "compile" in mode:
        forward = torch.compile(forward)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5) if "adam" in mode else None

    def step():
        for parameter in model.parameters():
            parameter.grad = None
        forward().backward()
        if optimizer:
            optimizer.step()

    for _ in range(2 if seconds < 10 else 5):
        step()
    synchronise()
    start = clock()
    step()
    synchronise()
    steps = max(1, min(200, int(0.3 / (clock() - start))))
    times = []
    end = clock() + seconds / 4
    while len(times) < 2 or (len(times) < 9 and clock() < end):
        start = clock()
        for _ in range(steps):
            step()
        synchronise()
        times.append(1000 * (clock() - start) / steps)
    return statistics.median(times), len(times)


for mode in ("eager", "compile", "adam", "compile-adam"):
    result = {"work": work["name"], "mode": mode, "device": device, "version": torch.__version__}
    try:
        milliseconds, rounds = measure(mode)
        print(json.dumps({**result, "milliseconds": milliseconds, "rounds": rounds}), flush=True)
    except Exception as error:  # a mode that does not run here is told, not fatal
        print(json.dumps({**result, "error": f"{type(error).__name__}: {error}".splitlines()[0]}), flush=True)
