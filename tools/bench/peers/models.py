"""The benchmark's models as PyTorch modules, and their export to tools/bench/workloads/*.onnx.

    python tools/bench/peers/models.py

The files hold the graph alone: the bytes of every weight are dropped, and the benchmark fills them by seed, the same for
every contestant (tools/bench/workloads/works.mjs). Parameters keep the names that they have in PyTorch.
"""

from pathlib import Path

import torch
from torch import nn

OPSET = 17


def stack(widths, activation):
    layers = []
    for fan_in, fan_out in zip(widths, widths[1:]):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def autoencoder(middle=8):
    """784-[1000, 500 × middle, 250, 30] and its mirror image, tanh between the layers, logits of the pixels."""
    widths = [784, 1000, *[500] * middle, 250, 30]
    return stack(widths + widths[-2::-1], nn.Tanh)


def vgg16():
    """Configuration D of Simonyan and Zisserman (2015) for 32×32 images: 13 convolutions, then 512-512-512-10."""
    layers, channels = [], 3
    for size in [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]:
        if size == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, size, 3, padding=1), nn.ReLU()]
            channels = size
    return nn.Sequential(*layers, nn.Flatten(), stack([512, 512, 512, 10], nn.ReLU))


class Transformer(nn.Module):
    """Four encoder layers of width 256 (8 heads, 1024 inside, ReLU, norms behind), the mean over positions, 10 classes."""

    def __init__(self, vocabulary=1000, width=256, length=128, depth=4):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(length, width))
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.encoder(self.tokens(x) + self.positions).mean(1))


def mlp():
    return stack([64, 128, 128, 10], nn.ReLU)


def deep(layers):
    """`layers` layers of 500, for the scaling in depth."""
    return stack([500] * (layers + 1), nn.Tanh)


MODELS = {
    "autoencoder": (autoencoder, lambda: torch.zeros(2, 784)),
    "vgg16": (vgg16, lambda: torch.zeros(2, 3, 32, 32)),
    "transformer": (Transformer, lambda: torch.zeros(2, 128, dtype=torch.int64)),
    "mlp": (mlp, lambda: torch.zeros(2, 64)),
    **{f"deep{n}": (lambda n=n: deep(n), lambda: torch.zeros(2, 500)) for n in (2, 4, 8, 16, 32)},
}


def main():
    import onnx

    folder = Path(__file__).parents[1] / "workloads"
    for name, (build, example) in MODELS.items():
        path = folder / f"{name}.onnx"
        torch.manual_seed(0)
        torch.onnx.export(
            build().train(),
            (example(),),
            str(path),
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
            dynamo=False,
        )
        model = onnx.load(path)
        parameters = dict(build().named_parameters())
        for tensor in model.graph.initializer:
            if tensor.name in parameters:
                tensor.ClearField("raw_data")
        onnx.save(model, path)
        count = sum(parameter.numel() for parameter in parameters.values())
        print(f"{path.name}: {count} parameters, {path.stat().st_size} bytes, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
