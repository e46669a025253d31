"""PyTorch as a contestant: `pytorch.py FOLDER MODE THREADS`, MODE one of eager, compile, adam, compile-adam, shampoo."""

import sys
from importlib import metadata
from pathlib import Path

from protocol import memory, serve, work_of

import numpy as np
import onnx
import torch
from models import MODELS
from onnx import numpy_helper

folder, mode, threads = sys.argv[1:4]
torch.set_num_threads(int(threads))
before = memory()
work, x, labels = work_of(folder)
model = MODELS[work["name"]][0]().train()
weights = {t.name: t for t in onnx.load(Path(folder) / "model.onnx").graph.initializer}
with torch.no_grad():
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.from_numpy(np.array(numpy_helper.to_array(weights[name]))))
x = torch.from_numpy(x)
target = x if labels is None else torch.from_numpy(labels)


def loss_of(logits):
    if work["loss"] == "softmax-cross-entropy":
        return torch.nn.functional.cross_entropy(logits, target)
    if work["loss"] == "mean-squared-error":
        return torch.nn.functional.mse_loss(logits, target)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(target)


def forward():
    return loss_of(model(x))


if mode.startswith("compile"):
    forward = torch.compile(forward)

optimizer = None
if mode.endswith("adam"):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
if mode == "shampoo":
    from pytorch_optimizer import ScalableShampoo

    # Grafts and block size as in fishy's comparison; roots every 20 steps, statistics every 10.
    optimizer = ScalableShampoo(
        model.parameters(),
        lr=1e-5,
        block_size=1024,
        start_preconditioning_step=1,
        statistics_compute_steps=10,
        preconditioning_compute_steps=20,
        skip_preconditioning_rank_lt=2,
        graft_type=1,
    )


def step():
    for parameter in model.parameters():
        parameter.grad = None
    loss = forward()
    loss.backward()
    if optimizer:
        optimizer.step()
    return loss.item()


def at(count):
    """A step that the optimizer takes for its step number `count`."""

    def run():
        for group in optimizer.param_groups:
            group["step"] = count - 1
        for state in optimizer.state.values():
            if isinstance(state.get("step"), int):
                state["step"] = count - 1
        step()

    return run


loss = step()
step()
kinds = {"step": step}
if mode == "shampoo":
    kinds = {"step": at(41), "statistics": at(50), "roots": at(60)}
version = f"PyTorch {torch.__version__}"
if mode == "shampoo":
    version += f", pytorch-optimizer {metadata.version('pytorch_optimizer')}"
serve({"loss": loss, "version": version, "before": before}, kinds)
