"""Exports the deep autoencoder 784-1000-500-250-30-250-500-1000-784 as graphs/autoencoder.onnx.

The architecture is the MNIST autoencoder of Hinton and Salakhutdinov (Science 313, 2006) with tanh hidden layers and a
linear code layer. The output is the logits of the pixels: the sigmoid belongs to the loss, which is not in the graph.

    python tools/export/autoencoder.py [OUT.onnx]
"""

import sys
from pathlib import Path

import torch
from torch import nn

from training_export import export_for_training

WIDTHS = (784, 1000, 500, 250, 30)
SEED = 20240
OPSET = 17


def stack(widths):
    """Linear layers with tanh between them, none after the last."""
    layers = []
    for fan_in, fan_out in zip(widths, widths[1:]):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = stack(WIDTHS)
        self.decoder = stack(WIDTHS[::-1])
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)  # Glorot and Bengio, 2010
            else:
                nn.init.zeros_(parameter)

    def forward(self, image):
        return self.decoder(self.encoder(image))


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "graphs" / "autoencoder.onnx"
    torch.manual_seed(SEED)
    model = Autoencoder().train()
    export_for_training(model, torch.zeros(2, WIDTHS[0]), out, OPSET)


if __name__ == "__main__":
    main()
