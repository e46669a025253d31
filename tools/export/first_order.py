"""Writes test/fixtures/optimizers/first_order.json: PyTorch's own first-order steps and schedules, in float64.

Usage: python tools/export/first_order.py   (needs torch)
"""

import json
import math
from pathlib import Path

import torch

STEPS = 12
CONFIGS = {
    "adam": (torch.optim.Adam, dict(lr=0.01)),
    "adam_decay": (torch.optim.Adam, dict(lr=0.01, betas=(0.8, 0.99), eps=1e-4, weight_decay=0.1)),
    "adamw": (torch.optim.AdamW, dict(lr=0.01, weight_decay=0.1)),
    "sgd": (torch.optim.SGD, dict(lr=0.1)),
    "sgd_momentum": (torch.optim.SGD, dict(lr=0.1, momentum=0.9)),
    "sgd_nesterov": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05)),
    "sgd_dampening": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.05)),
    "rmsprop": (torch.optim.RMSprop, dict(lr=0.01, alpha=0.95, eps=1e-6)),
    "rmsprop_momentum": (torch.optim.RMSprop, dict(lr=0.01, alpha=0.95, eps=1e-6, momentum=0.9)),
    "adagrad": (torch.optim.Adagrad, dict(lr=0.1, eps=1e-8)),
}


def numbers(tensor):
    return tensor.detach().flatten().tolist()


def run(make, options, start, gradients):
    parameters = [value.clone().requires_grad_() for value in start]
    optimizer = make(parameters, **options)
    after = []
    for step in gradients:
        for parameter, gradient in zip(parameters, step):
            parameter.grad = gradient.clone()
        optimizer.step()
        after.append([numbers(parameter) for parameter in parameters])
    return {"first": after[0], "last": after[-1]}


def multipliers(make, steps):
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = make(optimizer)
    result = []
    for _ in range(steps):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return result


def main():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    # What float32 can hold, so that both sides start from the same numbers.
    draw = lambda *dims: torch.randn(*dims, dtype=torch.float32).double()
    start = [draw(4, 3), draw(3)]
    gradients = [[draw(4, 3), draw(3)] for _ in range(STEPS)]
    schedulers = torch.optim.lr_scheduler
    fixture = {
        "torch": torch.__version__,
        "start": [numbers(value) for value in start],
        "gradients": [[numbers(value) for value in step] for step in gradients],
        "runs": {name: run(make, options, start, gradients) for name, (make, options) in CONFIGS.items()},
        "schedules": {
            "cosine": multipliers(lambda o: schedulers.CosineAnnealingLR(o, 20), 20),
            "step": multipliers(lambda o: schedulers.StepLR(o, 4, 0.5), 20),
            "one_cycle": multipliers(lambda o: schedulers.OneCycleLR(o, 1.0, total_steps=20), 20),
            "polynomial": multipliers(lambda o: schedulers.PolynomialLR(o, 20, power=2.0), 20),
            "linear": multipliers(lambda o: schedulers.LinearLR(o, 1.0, 0.1, 20), 20),
        },
    }
    assert all(math.isfinite(x) for run in fixture["runs"].values() for p in run["last"] for x in p)
    path = Path(__file__).parents[2] / "test/fixtures/optimizers/first_order.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fixture) + "\n")


if __name__ == "__main__":
    main()
