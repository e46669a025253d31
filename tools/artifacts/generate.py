"""Makes the training artifacts under graphs/artifacts, with ONNX Runtime's own losses and gradients beside them.

Needs Python 3.11 (the last with wheels of onnxruntime-training) and
    pip install onnxruntime-training==1.19.2 onnx torch safetensors

    python tools/artifacts/generate.py [NAME ...]

Each folder gets training_model.onnx, eval_model.onnx, optimizer_model.onnx, checkpoint, `checkpoint_step3` (saved by a
session after three steps of AdamW, with its moments) and `oracle.safetensors`:
    input/<name>       one batch, labels or target included
    loss, eval_loss    of training_model (Dropout off, BatchNormalization on the batch) and, where it loads, of eval_model
    grad/<parameter>   ONNX Runtime's gradient of that loss
    losses             of five AdamW steps at learning rate 1e-3 on that batch
    before/, step3/, after/<parameter>  values before, after three and after five steps
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module, Optimizer
from safetensors.numpy import save_file
from torch import nn

ROOT = Path(__file__).resolve().parents[2] / "graphs" / "artifacts"


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6)
        self.drop1, self.drop2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(6 * 2 * 2, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 2)
        x = self.drop1(torch.relu(self.bn2(self.conv2(x))))
        return self.fc2(self.drop2(torch.relu(self.fc1(x.flatten(1)))))


class Transformer(nn.Module):
    def __init__(self, width=12, heads=2, classes=3, tokens=11):
        super().__init__()
        self.heads, self.width = heads, width
        self.embedding = nn.Embedding(tokens, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 20), nn.Linear(20, width)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, classes)

    def forward(self, ids):
        x = self.embedding(ids)
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        split = lambda t: t.reshape(batch, length, self.heads, -1).transpose(1, 2)
        scores = split(q) @ split(k).transpose(-1, -2) / (self.width / self.heads) ** 0.5
        mixed = (torch.softmax(scores, -1) @ split(v)).transpose(1, 2).reshape(batch, length, self.width)
        x = x + self.dropout(self.out(mixed))
        x = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class Lora(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 6)
        self.A, self.B = nn.Parameter(torch.randn(8, 2) * 0.3), nn.Parameter(torch.randn(2, 6) * 0.3)

    def forward(self, x):
        return self.linear(x) + (x @ self.A) @ self.B * 0.5


class Mixed(nn.Module):
    """Autocast written out: parameters and loss in float32, products in float16."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x):
        product = lambda x, layer: x.half() @ layer.weight.half().t() + layer.bias.half()
        return product(torch.relu(product(x, self.fc1)), self.fc2).float()


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        states, _ = self.rnn(x)
        return self.head(states.mean(1) + states[:, -1])


class Half(nn.Module):
    """Parameters in float16. The training API makes such artifacts, but cannot load their checkpoint."""

    def __init__(self):
        super().__init__()
        self.layers = mlp(8, 12, 4).half()

    def forward(self, x):
        return self.layers(x).float()


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 8, 3), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(8 * 4, 10), nn.Tanh(), nn.Linear(10, 3))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def mlp(inputs, hidden, outputs, activation=nn.ReLU):
    return nn.Sequential(nn.Linear(inputs, hidden), activation(), nn.Linear(hidden, outputs))


def labels(batch, classes):
    return torch.randint(classes, (batch,))


LOSS = artifacts.LossType
BATCH = 6
# name: (model, opset, inputs, target, loss, names or prefixes of what is frozen, names of the inputs)
FIXTURES = {
    "mlp": lambda: (mlp(8, 12, 4), 14, torch.randn(BATCH, 8), labels(BATCH, 4), LOSS.CrossEntropyLoss, []),
    "cnn": lambda: (Cnn(), 15, torch.randn(BATCH, 1, 8, 8), labels(BATCH, 4), LOSS.CrossEntropyLoss, ["bn1.running", "bn2.running"]),
    "transformer": lambda: (Transformer(), 15, torch.randint(11, (BATCH, 5)), labels(BATCH, 3), LOSS.CrossEntropyLoss, []),
    "lora": lambda: (Lora(), 14, torch.randn(BATCH, 8), torch.randn(BATCH, 6), LOSS.MSELoss, ["linear"]),
    "bce": lambda: (mlp(8, 10, 5, nn.Sigmoid), 14, torch.randn(BATCH, 8), torch.rand(BATCH, 5), LOSS.BCEWithLogitsLoss, []),
    "l1": lambda: (mlp(8, 10, 5, nn.LeakyReLU), 17, torch.randn(BATCH, 8), torch.randn(BATCH, 5), LOSS.L1Loss, []),
    "lstm": lambda: (Recurrent(nn.LSTM), 14, torch.randn(BATCH, 7, 5), labels(BATCH, 3), LOSS.CrossEntropyLoss, []),
    "gru": lambda: (Recurrent(nn.GRU), 14, torch.randn(BATCH, 7, 5), labels(BATCH, 3), LOSS.CrossEntropyLoss, []),
    "mixed": lambda: (Mixed(), 14, torch.randn(BATCH, 8), labels(BATCH, 4), LOSS.CrossEntropyLoss, []),
    "half": lambda: (Half(), 14, torch.randn(BATCH, 8).half(), labels(BATCH, 4), LOSS.CrossEntropyLoss, []),
    "frozen_backbone": lambda: (Backbone(), 17, torch.randn(BATCH, 3, 12), labels(BATCH, 3), LOSS.CrossEntropyLoss, ["features"]),
}


def export(model, opset, x, path):
    torch.onnx.export(
        model, (x,), str(path), dynamo=False, opset_version=opset, training=torch.onnx.TrainingMode.TRAINING,
        do_constant_folding=False, input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )


def without_dropout(path, target):
    """A copy of training_model.onnx whose Dropout has the ratio 0: its gradients can be compared.

    Turning `training_mode` off would not do: DropoutGrad divides by 1 - ratio all the same.
    """
    model = onnx.load(path)
    constants = {t.name: t for t in model.graph.initializer}
    found = 0
    for node in model.graph.node:
        if node.op_type == "Dropout":
            constants[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(np.float32(0), node.input[1]))
            found += 1
    onnx.save(model, target)
    return found


def make(name):
    torch.manual_seed(7)
    model, opset, x, target, loss, frozen = FIXTURES[name]()
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        export(model, opset, x, scratch / "source.onnx")
        source = onnx.load(scratch / "source.onnx")
        names = [t.name for t in source.graph.initializer]
        known = set(model.state_dict())
        is_frozen = lambda parameter: any(parameter.startswith(prefix) for prefix in frozen)
        artifacts.generate_artifacts(
            source,
            requires_grad=[n for n in names if n in known and not is_frozen(n)],
            frozen_params=[n for n in names if n in known and is_frozen(n)],
            loss=loss, optimizer=artifacts.OptimType.AdamW, artifact_directory=str(folder),
        )
        if any(t.data_type == onnx.TensorProto.FLOAT16 for t in source.graph.initializer):
            print(name, "without an oracle: ONNX Runtime loads no checkpoint with float16 parameters")
            return
        dropouts = without_dropout(folder / "training_model.onnx", scratch / "training_model.onnx")
        print(name, "dropouts:", dropouts, "opset", opset)

        state = CheckpointState.load_checkpoint(str(folder / "checkpoint"))
        # ONNX Runtime refuses its own eval_model when BatchNormalization was exported in training mode: three outputs.
        has_norm = any(node.op_type == "BatchNormalization" for node in source.graph.node)
        module = Module(str(scratch / "training_model.onnx"), state, None if has_norm else str(folder / "eval_model.onnx"))
        optimizer = Optimizer(str(folder / "optimizer_model.onnx"), module)
        optimizer.set_learning_rate(1e-3)
        trainable = [n for n in names if n in known and not is_frozen(n)]
        target_name = [i.name for i in onnx.load(folder / "eval_model.onnx").graph.input][1]
        feeds = [x.numpy(), target.numpy()]
        tensors = {"input/input": feeds[0], f"input/{target_name}": feeds[1]}
        if not has_norm:
            module.eval()
            tensors["eval_loss"] = np.asarray(module(*feeds), dtype=np.float32).reshape(1)
        for parameter in names:
            if parameter in known:
                tensors[f"before/{parameter}"] = state.parameters[parameter].data.copy()
        losses = []
        for step in range(5):
            module.train()
            losses.append(float(module(*feeds)))
            if step == 0:
                for parameter in trainable:
                    tensors[f"grad/{parameter}"] = state.parameters[parameter].grad.copy()
            optimizer.step()
            module.lazy_reset_grad()
            if step == 2:
                state.properties["epoch"], state.properties["loss"], state.properties["note"] = 3, losses[-1], "step three"
                for parameter in trainable:
                    tensors[f"step3/{parameter}"] = state.parameters[parameter].data.copy()
                CheckpointState.save_checkpoint(state, str(folder / "checkpoint_step3"), include_optimizer_state=True)
        tensors["loss"], tensors["losses"] = np.float32([losses[0]]), np.float32(losses)
        for parameter in names:
            if parameter in known:
                tensors[f"after/{parameter}"] = state.parameters[parameter].data.copy()
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / "oracle.safetensors")
        print("  losses", losses, "eval", tensors.get("eval_loss"))


for chosen in sys.argv[1:] or FIXTURES:
    make(chosen)
