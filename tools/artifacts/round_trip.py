"""Shows that ONNX Runtime's training API goes on where fishy stopped, and the other way round.

For each set of graphs/artifacts (Dropout off, one batch):
    fishy      trains five steps with the artifacts' own optimizer
    forth      fishy trains three steps and writes a checkpoint; onnxruntime-training 1.19.2 loads it and trains two more
    back       onnxruntime-training trains three steps and saves; fishy loads that checkpoint and trains two more
and the losses of steps four and five are compared.

Needs the environment of generate.py, and `npm run build` before.

    python tools/artifacts/round_trip.py
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.training.api import CheckpointState, Module, Optimizer
from safetensors.numpy import load_file, save_file

PROJECT = Path(__file__).resolve().parents[2]
FIXTURES = PROJECT / "graphs" / "artifacts"


def fishy(*arguments):
    subprocess.run(["node", str(PROJECT / "dist" / "cli" / "main.js"), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def train(folder, data, batch, steps, out):
    fishy("train", folder, "--data", data, "--steps", steps, "--batch-size", batch, "--no-shuffle", "--scale", "none", "--out", out, "-q")
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def without_dropout(path):
    """Gives Dropout the ratio 0; see generate.py."""
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Dropout":
            constants[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(np.float32(0), node.input[1]))
    onnx.save(model, path)


def resume(folder, checkpoint, feeds, steps):
    state = CheckpointState.load_checkpoint(str(checkpoint))
    module = Module(str(folder / "training_model.onnx"), state)
    optimizer = Optimizer(str(folder / "optimizer_model.onnx"), module)
    losses = []
    for _ in range(steps):
        module.train()
        losses.append(float(module(*feeds)))
        optimizer.step()
        module.lazy_reset_grad()
    return losses


def main():
    worst = 0.0
    print(f"{'artifacts':16} {'step':>4} {'fishy alone':>13} {'forth (ORT)':>13} {'back (fishy)':>13} {'largest error':>14}")
    for source in sorted(path for path in FIXTURES.iterdir() if (path / "oracle.safetensors").exists()):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / source.name
            shutil.copytree(source, folder)
            without_dropout(folder / "training_model.onnx")
            oracle = load_file(folder / "oracle.safetensors")
            inputs = {key[len("input/"):]: value for key, value in oracle.items() if key.startswith("input/")}
            data = Path(scratch) / "batch.safetensors"
            save_file(inputs, data)
            order = [value.name for value in onnx.load(folder / "training_model.onnx").graph.input][:2]
            feeds, batch = [inputs[name] for name in order], len(inputs[order[0]])
            alone = train(folder, data, batch, 5, Path(scratch) / "alone")
            train(folder, data, batch, 3, Path(scratch) / "three")
            fishy("export", Path(scratch) / "three", "-o", Path(scratch) / "checkpoint", "--as", "checkpoint")
            forth = resume(folder, Path(scratch) / "checkpoint", feeds, 2)
            shutil.copy(folder / "checkpoint_step3", folder / "checkpoint")
            back = train(folder, data, batch, 2, Path(scratch) / "back")
            for i in range(2):
                values = [alone[3 + i], forth[i], back[i]]
                error = max(abs(value / values[0] - 1) for value in values)
                worst = max(worst, error)
                print(f"{source.name:16} {4 + i:>4} {values[0]:13.7f} {values[1]:13.7f} {values[2]:13.7f} {error:14.1e}")
    return 0 if worst < 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
