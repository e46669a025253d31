"""Shows that a training session of onnxruntime-training 1.19.2 runs what `fishy rewrite --keep-backward` writes.

For each set of graphs/artifacts (Dropout with the ratio 0) the session's true gradients are compared with those of the
artifacts as they were, and its sampled gradients with those of the training program that `fishy rewrite` makes, run by
onnxruntime-node with the same seed. A session of the same build that is fed the buffers runs what `--keep-backward both`
writes twice, with two seeds: each buffer must hold the sum of both runs, and one run alone after a reset.

Needs the environment of generate.py, and `npm run build` before.

    python tools/artifacts/keep_backward.py
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.training.api import CheckpointState, Module
from round_trip import FIXTURES, PROJECT, fishy, without_dropout
from safetensors.numpy import load_file, save_file

SEED = 5


def error(found, wanted, scale):
    """Relative to the gradient, or to the largest of all where it is zero but for rounding (a bias before BatchNormalization)."""
    size = np.abs(wanted).max()
    return np.abs(found - wanted).max() / (size if size > 1e-4 * scale else scale)


def has_half(folder):
    """`--keep-backward` refuses gradients of half precision."""
    model = onnx.load(folder / "training_model.onnx")
    half = onnx.TensorProto.FLOAT16
    return any(attribute.i == half for node in model.graph.node for attribute in node.attribute if attribute.name == "to")


def accumulated(path, feeds, values):
    """The largest difference between buffers and sums of the gradients that the runs gave as outputs, relative to the largest gradient."""
    session = onnxruntime.InferenceSession(str(path))
    buffer = "_sampled_grad.accumulation.buffer"
    all_feeds = {}
    for given in session.get_inputs():
        if given.name in feeds:
            value = feeds[given.name]
        elif given.name in values:
            value = values[given.name]
        elif given.name.endswith(".accumulation.buffer"):
            value = np.zeros(given.shape, dtype=np.float32)
        else:
            value = np.zeros(given.shape, dtype=bool)
        all_feeds[given.name] = onnxruntime.OrtValue.ortvalue_from_numpy(value)
    outputs = [output.name for output in session.get_outputs()]
    sampled = [name[: -len(buffer)] for name in all_feeds if name.endswith(buffer)]
    sums = {name: 0.0 for name in sampled}
    worst = 0.0
    for seed, reset in ((SEED, True), (SEED + 1, False), (SEED, True)):
        all_feeds["seed"] = onnxruntime.OrtValue.ortvalue_from_numpy(np.array(seed, dtype=np.int64))
        all_feeds["lazy_reset_grad"] = onnxruntime.OrtValue.ortvalue_from_numpy(np.array([reset]))
        results = dict(zip(outputs, session.run_with_ort_values(None, all_feeds)))
        scale = max(np.abs(results[f"{name}_sampled_grad.value"].numpy()).max() for name in sampled)
        for name in sampled:
            value = results[f"{name}_sampled_grad.value"].numpy()
            sums[name] = value if reset else sums[name] + value
            worst = max(worst, np.abs(all_feeds[name + buffer].numpy() - sums[name]).max() / scale)
    return worst


def main():
    worst = 0.0
    print(f"{'artifacts':16} {'parameters':>10} {'true gradients':>15} {'sampled gradients':>18} {'buffers':>9}")
    complete = (path for path in FIXTURES.iterdir() if (path / "oracle.safetensors").exists())
    for source in sorted(path for path in complete if not has_half(path)):
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            folder = scratch / source.name
            shutil.copytree(source, folder)
            without_dropout(folder / "training_model.onnx")
            oracle = load_file(folder / "oracle.safetensors")
            inputs = {key[len("input/"):]: value for key, value in oracle.items() if key.startswith("input/")}
            save_file(inputs, scratch / "batch.safetensors")
            fishy("rewrite", folder, "-o", scratch / "program.onnx")
            command = [PROJECT / "tools/artifacts/run_program.mjs", scratch / "program.onnx", scratch / "batch.safetensors", SEED, scratch / "out.safetensors"]
            subprocess.run(["node", *map(str, command)], check=True)
            ours = load_file(scratch / "out.safetensors")
            fishy("rewrite", folder, "-o", scratch / "kept.onnx", "--keep-backward")

            state = CheckpointState.load_checkpoint(str(folder / "checkpoint"))
            module = Module(str(scratch / "kept.onnx"), state)
            module.train()
            feeds = [inputs[name] for name in module.input_names()[:-1]] + [np.array(SEED, dtype=np.int64)]
            results = dict(zip(module.output_names(), module(*feeds)))
            trainable = [key[len("grad/"):] for key in oracle if key.startswith("grad/")]
            scale = max(np.abs(oracle[f"grad/{name}"]).max() for name in trainable)
            sampled_scale = max(np.abs(ours[f"{name}_sampled_grad"]).max() for name in trainable)
            true = max(error(state.parameters[name].grad, oracle[f"grad/{name}"], scale) for name in trainable)
            sampled = max(error(results[f"{name}_sampled_grad.value"], ours[f"{name}_sampled_grad"], sampled_scale) for name in trainable)
            fishy("rewrite", folder, "-o", scratch / "both.onnx", "--keep-backward", "both")
            values = {key[len("before/"):]: value for key, value in oracle.items() if key.startswith("before/")}
            buffers = accumulated(scratch / "both.onnx", inputs, values)
            worst = max(worst, true, sampled, buffers)
            print(f"{source.name:16} {len(trainable):>10} {true:15.1e} {sampled:18.1e} {buffers:9.1e}")
    return 0 if worst < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
