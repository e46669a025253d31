"""PyTorch as a contestant: `pytorch.py FOLDER MODE THREADS`, MODE one of eager, compile, adam, compile-adam,
shampoo-google (pytorch-optimizer), shampoo-meta (which wants the package distributed_shampoo on PYTHONPATH)."""

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

def optimizer_of(parameters):
    if mode.endswith("adam"):
        return torch.optim.Adam(parameters, lr=1e-5)
    # The options of set-up.mjs under their names here; fishy's presets `google` and `meta` are the rest of them.
    if mode == "shampoo-google":
        from pytorch_optimizer import ScalableShampoo

        return ScalableShampoo(
            parameters,
            lr=1e-5,
            block_size=1024,
            start_preconditioning_step=1,
            statistics_compute_steps=10,
            preconditioning_compute_steps=20,
            skip_preconditioning_rank_lt=2,
            graft_type=1,
        )
    if mode == "shampoo-meta":
        from distributed_shampoo.distributed_shampoo import DistributedShampoo
        from distributed_shampoo.shampoo_utils import GraftingType, RootInvStrategy

        return DistributedShampoo(
            parameters,
            lr=1e-5,
            max_preconditioner_dim=1024,
            precondition_frequency=20,
            start_preconditioning_step=1,
            grafting_type=GraftingType.NONE,
            root_inv_strategy=RootInvStrategy.NONE,
        )
    return None


optimizer = optimizer_of(model.parameters())


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
            if "step" in state:
                state["step"] = torch.as_tensor(count - 1) if torch.is_tensor(state["step"]) else count - 1
        step()

    return run


loss = step()
step()
kinds = {"step": step}
version = f"PyTorch {torch.__version__}"
if mode == "shampoo-google":
    kinds = {"step": at(41), "statistics": at(50), "roots": at(60)}
    version += f", pytorch-optimizer {metadata.version('pytorch_optimizer')}"
elif mode == "shampoo-meta":
    # Statistics at every step: it has no interval for them.
    kinds = {"statistics": at(41), "roots": at(60)}
    version += ", DistributedShampoo of facebookresearch/optimizers"
if "roots" in kinds:
    # So that every step that is timed preconditions.
    kinds["roots"]()
serve({"loss": loss, "version": version, "before": before}, kinds)
