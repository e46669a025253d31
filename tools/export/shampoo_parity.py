"""Writes test/fixtures/optimizers/google_shampoo.json: steps of Google's own Shampoo (PyPI optax-shampoo 0.0.6).

Usage, in an environment of its own (the code needs the JAX of its time; Python 3.11 or older):

    pip install "jax==0.4.13" "jaxlib==0.4.13" "flax==0.7.2" "optax==0.1.7" "chex==0.1.82" "numpy<1.27" "scipy<1.12"
    pip install --no-deps optax-shampoo==0.0.6
    python tools/export/shampoo_parity.py

Everything runs in float32, all that this code supports, with a ridge that float32 resolves.
"""

import json
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
import jax

import jax.numpy as jnp
import numpy as np
from optax_shampoo.distributed_shampoo import GraftingType, PreconditionerType, distributed_shampoo

while_loop = jax.lax.while_loop


def promoting_while_loop(condition, body, state):
    """The root's loop starts its error ratio with True, which JAX of its time promoted to a float."""
    if isinstance(state, tuple) and len(state) == 6 and state[-1] is True:
        state = (*state[:-1], jnp.float32(1))
    return while_loop(condition, body, state)


jax.lax.while_loop = promoting_while_loop

STEPS = 20
SHAPES = {"w": (7, 5), "conv": (3, 2, 3, 2), "b": (6,)}
BASE = dict(
    learning_rate=0.05,
    block_size=128,
    matrix_epsilon=1e-3,
    start_preconditioning_step=0,
    merge_small_dims_block_size=12,
    generate_training_metrics=False,
)

# Google's options, and ours beside `preset: google` and what BASE says.
CONFIGS = {
    "defaults": ({}, {}),
    "no Nesterov": (dict(nesterov=False), dict(nesterov=False)),
    "moving average": (
        dict(moving_average_for_momentum=True, nesterov=False),
        dict(momentumKind="ema", nesterov=False),
    ),
    "moving average with Nesterov": (dict(moving_average_for_momentum=True), dict(momentumKind="ema")),
    "sums (beta2 = 1)": (dict(beta2=1.0), dict(beta2=1, graftBeta2=1)),
    "beta2 = 0.9": (dict(beta2=0.9), dict(beta2=0.9, graftBeta2=0.9)),
    "graft Adagrad": (
        dict(graft_type=GraftingType.ADAGRAD, diagonal_epsilon=1e-6),
        dict(graft="adagrad", graftEpsilon=1e-6),
    ),
    "graft RMSProp": (
        dict(graft_type=GraftingType.RMSPROP, beta2=0.95, diagonal_epsilon=1e-6),
        dict(graft="rmsprop", beta2=0.95, graftBeta2=0.95, graftEpsilon=1e-6),
    ),
    "graft RMSProp, normalized": (
        dict(graft_type=GraftingType.RMSPROP_NORMALIZED, beta2=0.95, diagonal_epsilon=1e-6),
        dict(graft="rmsprop-normalized", beta2=0.95, graftBeta2=0.95, graftEpsilon=1e-6),
    ),
    "graft Adagrad, normalized": (
        dict(graft_type=GraftingType.ADAGRAD_NORMALIZED, diagonal_epsilon=1e-6),
        dict(graft="adagrad-normalized", graftEpsilon=1e-6),
    ),
    "graft of length sqrt(n)": (dict(graft_type=GraftingType.SQRT_N), dict(graft="sqrt-n")),
    "exponent 2": (dict(exponent_override=2), dict(exponent=2)),
    "blocks of 3": (dict(block_size=3), dict(blockSize=3)),
    "small dimensions merged": (dict(merge_small_dims_block_size=4096), dict(mergeLimit=4096)),
    "nothing merged": (dict(best_effort_shape_interpretation=False), dict(mergeDims="none")),
    "input side": (dict(precondtioner_type=PreconditionerType.INPUT), dict(sides="leading")),
    "vectors skipped": (dict(skip_preconditioning_rank_lt=2), dict(skipRankBelow=2)),
    "coupled weight decay": (dict(weight_decay=0.1), dict(weightDecay=0.1)),
    # This version multiplies the decoupled decay by the learning rate twice; 0.1 / 0.05 undoes one of them.
    "decoupled weight decay": (
        dict(weight_decay=0.1 / 0.05, decoupled_weight_decay=True),
        dict(weightDecay=0.1, weightDecayKind="decoupled"),
    ),
    # Without momentum: this version keeps a second buffer for the graft.
    "start step and intervals": (
        dict(start_preconditioning_step=5, statistics_compute_steps=2, preconditioning_compute_steps=3, beta1=0.0, nesterov=False),
        dict(startStep=6, statisticsInterval=2, rootInterval=3, momentum=0, nesterov=False),
    ),
    "absolute ridge": (
        dict(relative_matrix_epsilon=False, matrix_epsilon=0.1),
        dict(epsilonKind="absolute", epsilon=0.1, statisticsInit=0.1),
    ),
}


def rounded(array):
    return np.asarray(array, dtype=np.float32).astype(np.float64)


def run(options, start, gradients):
    optimizer = distributed_shampoo(**{**BASE, **options})
    parameters = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    state = optimizer.init(parameters)
    if hasattr(state, "init_fn"):
        raise SystemExit("unexpected sharded state")
    update = jax.jit(optimizer.update)
    after = {}
    for step, gradient in enumerate(gradients, 1):
        changes, state = update({k: jnp.asarray(v, jnp.float32) for k, v in gradient.items()}, state, parameters)
        parameters = {name: value + changes[name] for name, value in parameters.items()}
        if step in (1, STEPS):
            after[step] = {name: np.asarray(value).ravel().tolist() for name, value in parameters.items()}
    assert all(np.isfinite(x).all() for x in after[STEPS].values())
    return {"first": after[1], "last": after[STEPS]}


def main():
    rng = np.random.default_rng(0)
    start = {name: rounded(rng.standard_normal(shape)) for name, shape in SHAPES.items()}
    gradients = [{name: rounded(rng.standard_normal(shape)) for name, shape in SHAPES.items()} for _ in range(STEPS)]
    # Columns of very different size, as a badly scaled problem has them.
    for gradient in gradients:
        gradient["w"] = rounded(gradient["w"] * np.array([1, 0.3, 0.1, 3, 1]))
    fixture = {
        "shapes": {name: list(shape) for name, shape in SHAPES.items()},
        "start": {name: value.ravel().tolist() for name, value in start.items()},
        "gradients": [{name: value.ravel().tolist() for name, value in gradient.items()} for gradient in gradients],
        "base": dict(
            learningRate=0.05, blockSize=128, epsilon=1e-3, statisticsInit=1e-3, startStep=1, mergeLimit=12
        ),
        "runs": [
            {"name": name, "options": ours, **run(theirs, start, gradients)}
            for name, (theirs, ours) in CONFIGS.items()
        ],
    }
    path = Path(__file__).parents[2] / "test/fixtures/optimizers/google_shampoo.json"
    path.write_text(json.dumps(fixture) + "\n")
    print(f"{len(CONFIGS)} runs")


if __name__ == "__main__":
    main()
