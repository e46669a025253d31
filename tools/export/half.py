"""Exports models of half precision as graphs/half/<name>/model.onnx, with PyTorch's float64 loss and gradients.

The gradients are those of the same numbers in float64: half-precision parameters are exact there, so what fishy computes
from the file in float32 must agree to float32's accuracy.

    python tools/export/half.py [OUT_FOLDER]
"""

import copy
import sys
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from architectures import forget_source_code

SEED = 20241


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Sigmoid(), nn.Linear(12, 4))

    def forward(self, x):
        return self.layers(x)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.head(F.relu(self.conv2(x)).mean((2, 3)))


class Block(nn.Module):
    """Pre-norm attention written out, with a mask of finite numbers, and a frozen embedding."""

    def __init__(self, dim=8, heads=2):
        super().__init__()
        self.heads = heads
        self.embedding = nn.Embedding(11, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.head = nn.Linear(dim, 4)

    def forward(self, tokens):
        x = self.embedding(tokens)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        length = tokens.shape[1]
        mask = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
        scores = scores.masked_fill(mask, torch.finfo(x.dtype).min)
        x = x + self.project((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1))


CASES = {
    "mlp_float16": (Mlp, torch.float16, lambda: torch.randn(5, 6), False),
    "mlp_bfloat16_dynamo": (Mlp, torch.bfloat16, lambda: torch.randn(5, 6), True),
    "cnn_float16": (Cnn, torch.float16, lambda: torch.randn(3, 1, 10, 10), False),
    "transformer_float16": (Block, torch.float16, lambda: torch.randint(0, 11, (3, 7)), False),
    "transformer_float16_dynamo": (Block, torch.float16, lambda: torch.randint(0, 11, (3, 7)), True),
}


def export(folder, make, dtype, data, dynamo):
    torch.manual_seed(SEED)
    model = make().to(dtype)
    x = data()
    # Numbers that the half-precision input holds exactly.
    x = x.to(dtype) if x.is_floating_point() else x
    labels = torch.randint(0, 4, (x.shape[0],))

    exact = copy.deepcopy(model).double()
    x64 = x.double() if x.is_floating_point() else x
    loss = F.cross_entropy(exact(x64), labels)
    loss.backward()
    golden = {f"grad/{name}": parameter.grad for name, parameter in exact.named_parameters()}
    golden |= {"input/x": x64, "target": labels, "loss": loss.detach().reshape(1)}

    folder.mkdir(parents=True, exist_ok=True)
    batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    torch.onnx.export(
        model,
        (x,),
        str(folder / "model.onnx"),
        input_names=["x"],
        output_names=["logits"],
        opset_version=18,
        dynamo=dynamo,
        external_data=False,
        # In evaluation mode the TorchScript exporter makes one initializer of parameters that happen to be equal.
        **({"optimize": False} if dynamo else {"do_constant_folding": False, "training": torch.onnx.TrainingMode.TRAINING}),
        **batch,
    )
    exported = onnx.load(folder / "model.onnx")
    forget_source_code(exported)
    onnx.save(exported, folder / "model.onnx")
    save_file(
        {name: tensor.contiguous() for name, tensor in golden.items()},
        folder / "golden.safetensors",
        metadata={"loss": "softmax_cross_entropy", "torch": torch.__version__},
    )


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "graphs" / "half"
    for name, case in CASES.items():
        export(out / name, *case)
        print(name, (out / name / "model.onnx").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
