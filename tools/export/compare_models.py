"""Exports the models that tools/bench/compare.mjs trains: graphs/logistic.onnx and graphs/small_cnn.onnx.

    python tools/export/compare_models.py [FOLDER]

Both take `image` [batch, 1, 28, 28] in [0, 1] and give the logits of ten classes; the loss is not in the graphs.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from training_export import export_for_training

SEED = 20241
OPSET = 18


def logistic():
    """Multinomial logistic regression, from zero: 7,850 parameters."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    return model


def small_cnn():
    """Two strided 3×3 convolutions and two dense layers, ReLU between them: 105,866 parameters, PyTorch's own start."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "graphs"
    for make in (logistic, small_cnn):
        torch.manual_seed(SEED)
        model = make().train()
        path = folder / f"{make.__name__}.onnx"
        export_for_training(model, torch.zeros(2, 1, 28, 28), path, OPSET)


if __name__ == "__main__":
    main()
