"""Writes test/fixtures/optimizers/meta_shampoo.json: steps of Meta's own Shampoo (facebookresearch/optimizers).

Usage, in an environment that has PyTorch and Meta's code on its path:

    git clone https://github.com/facebookresearch/optimizers
    git -C optimizers checkout bc6405b865bd3aab56c206adab802a406cbd71ea
    PYTHONPATH=optimizers python tools/export/shampoo_meta_parity.py

Start and gradients are those of google_shampoo.json. Everything runs in float64.

What that version does that is not copied (each is left out, or undone, in CONFIGS):
- `exponent_override` is accepted and never used; `exponent_multiplier` m, which makes the exponent −m/(2k), is.
- `start_preconditioning_step` n still takes the graft's step at step n, although the first root is computed there;
  `startStep` is n + 1.
- Roots start as zero matrices, so a start before the first multiple of `precondition_frequency` does not move at all.
- Decoupled weight decay is added to the step before momentum as soon as there is momentum: that is `coupled`.
- Normalized grafts divide the gradient as it is by the root of the normalized gradients' second moment; Google's, and
  fishy's, divide the normalized gradient.
"""

import json
from pathlib import Path

import torch
from distributed_shampoo.distributed_shampoo import DistributedShampoo
from distributed_shampoo.shampoo_utils import GraftingType, RootInvStrategy

COMMIT = "bc6405b865bd3aab56c206adab802a406cbd71ea"
LEARNING_RATE = 0.05
BASE = dict(
    lr=LEARNING_RATE,
    epsilon=1e-2,
    max_preconditioner_dim=12,
    start_preconditioning_step=0,
    preconditioner_dtype=torch.float64,
    root_inv_strategy=RootInvStrategy.NONE,
    grafting_type=GraftingType.NONE,
)
# This version merges from the left, later ones from the right.
OURS = dict(learningRate=LEARNING_RATE, epsilon=1e-2, blockSize=12, mergeDims="left", mergeLimit=12, graft="none")

AFTER = dict(momentumOrder="after", momentumKind="heavy-ball", momentum=0.9)
NO_MOMENTUM = dict(momentum=0)
DECAYING = dict(beta2=0.95)

# Meta's options, and ours beside `preset: meta` and OURS.
CONFIGS = {
    "defaults": ({}, {}),
    "no momentum": (dict(betas=(0, 1.0)), NO_MOMENTUM),
    "beta2 = 0.95": (dict(betas=(0.9, 0.95)), DECAYING),
    "no bias correction": (
        dict(betas=(0.9, 0.95), use_bias_correction=False),
        dict(momentumBiasCorrection=False, statisticsBiasCorrection=False, **DECAYING),
    ),
    "graft SGD": (dict(grafting_type=GraftingType.SGD), dict(graft="sgd")),
    "graft Adagrad": (
        dict(grafting_type=GraftingType.ADAGRAD, grafting_epsilon=1e-4),
        dict(graft="adagrad", graftEpsilon=1e-4),
    ),
    "graft RMSProp": (
        dict(grafting_type=GraftingType.RMSPROP, grafting_beta2=0.9, grafting_epsilon=1e-4),
        dict(graft="rmsprop", graftBeta2=0.9, graftEpsilon=1e-4),
    ),
    "graft Adam": (
        dict(betas=(0.9, 0.95), grafting_type=GraftingType.ADAM, grafting_beta2=0.95, grafting_epsilon=1e-4),
        dict(graft="adam", graftBeta2=0.95, graftEpsilon=1e-4, **DECAYING),
    ),
    "blocks of 3, graft Adam": (
        dict(
            max_preconditioner_dim=3, grafting_type=GraftingType.ADAM, grafting_beta2=0.95, grafting_epsilon=1e-4
        ),
        dict(blockSize=3, mergeLimit=3, graft="adam", graftBeta2=0.95, graftEpsilon=1e-4),
    ),
    "merged into vectors": (dict(max_preconditioner_dim=1024), dict(blockSize=1024, mergeLimit=1024)),
    "nothing merged": (dict(use_merge_dims=False), dict(mergeDims="none")),
    "exponents -1/2 each side, -1 of a vector": (
        dict(exponent_multiplier=2.0),
        dict(exponent={"1": 1, "2": 2}),
    ),
    "rational exponents": (dict(exponent_multiplier=1.6), dict(exponent={"1": 1.25, "2": 2.5})),
    "momentum after": (dict(betas=(0, 1.0), momentum=0.9), AFTER),
    "momentum after, Nesterov": (
        dict(betas=(0, 1.0), momentum=0.9, use_nesterov=True),
        dict(nesterov=True, **AFTER),
    ),
    "L2 weight decay": (
        dict(weight_decay=0.1, use_decoupled_weight_decay=False),
        dict(weightDecay=0.1, weightDecayKind="l2"),
    ),
    "coupled weight decay": (
        dict(betas=(0, 1.0), momentum=0.9, weight_decay=0.1),
        dict(weightDecay=0.1, weightDecayKind="coupled", **AFTER),
    ),
    "decoupled weight decay": (dict(weight_decay=0.1), dict(weightDecay=0.1, weightDecayKind="decoupled")),
    # Decoupled with 1/learning rate is independent while the rate is constant.
    "independent weight decay": (
        dict(weight_decay=0.01 / LEARNING_RATE),
        dict(weightDecay=0.01, weightDecayKind="independent"),
    ),
    "start step and interval": (
        dict(
            betas=(0.9, 0.95),
            start_preconditioning_step=5,
            precondition_frequency=3,
            grafting_type=GraftingType.RMSPROP,
            grafting_beta2=0.9,
            grafting_epsilon=1e-4,
        ),
        dict(startStep=6, rootInterval=3, graft="rmsprop", graftBeta2=0.9, graftEpsilon=1e-4, **DECAYING),
    ),
}


def run(options, shapes, start, gradients):
    parameters = {
        name: torch.nn.Parameter(torch.tensor(start[name], dtype=torch.float64).view(shape))
        for name, shape in shapes.items()
    }
    optimizer = DistributedShampoo(parameters.values(), **{**BASE, **options})
    after = {}
    for step, gradient in enumerate(gradients, 1):
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradient[name], dtype=torch.float64).view(shapes[name])
        optimizer.step()
        if step in (1, len(gradients)):
            after[step] = {
                name: [float(f"{x:.10g}") for x in value.detach().flatten().tolist()] for name, value in parameters.items()
            }
    last = after[len(gradients)]
    assert all(abs(x) < 1e3 for values in last.values() for x in values)
    return {"first": after[1], "last": last}


def main():
    folder = Path(__file__).parents[2] / "test/fixtures/optimizers"
    google = json.loads((folder / "google_shampoo.json").read_text())
    shapes, start, gradients = google["shapes"], google["start"], google["gradients"]
    fixture = {
        "commit": COMMIT,
        "base": OURS,
        "runs": [
            {"name": name, "options": ours, **run(theirs, shapes, start, gradients)}
            for name, (theirs, ours) in CONFIGS.items()
        ],
    }
    (folder / "meta_shampoo.json").write_text(json.dumps(fixture) + "\n")
    print(f"{len(CONFIGS)} runs")


if __name__ == "__main__":
    main()
