"""onnxruntime-training as a contestant: `ort_training.py FOLDER MODE THREADS`, MODE gradients or adam."""

import sys

from protocol import memory, serve, work_of

import numpy as np
import onnxruntime
from training_artifacts import generate
from onnxruntime.training.api import CheckpointState, Module, Optimizer

folder, mode, threads = sys.argv[1:4]
before = memory()
work, x, labels = work_of(folder)
out = generate(folder)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
state = CheckpointState.load_checkpoint(str(out / "checkpoint"))
module = Module(str(out / "training_model.onnx"), state, str(out / "eval_model.onnx"), session_options=options)
optimizer = Optimizer(str(out / "optimizer_model.onnx"), module)
optimizer.set_learning_rate(1e-5)
module.train()
target = x if labels is None else labels
# Its binary cross-entropy is the mean over pixels, ours their sum.
factor = x.shape[1] if work["loss"] == "sigmoid-cross-entropy" else 1


def step():
    value = module(x, target)
    value = value[0] if isinstance(value, (tuple, list)) else value
    if mode == "adam":
        optimizer.step()
    module.lazy_reset_grad()
    return factor * float(np.asarray(value))


first = step()
step()
serve({"loss": first, "version": f"onnxruntime-training {onnxruntime.__version__}", "before": before}, {"step": step})
