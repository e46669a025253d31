"""Makes graphs/artifacts/kernels: one small model for each training operator, and what onnxruntime-training 1.19.2 gives.

Needs the environment of generate.py.

    python tools/artifacts/kernels.py

Each model has the operator alone, its outputs named as gradients (`<input>_grad`), and an Identity for a loss.
ConvTransposeGrad has a CUDA kernel alone: PyTorch stands in. `kernels.safetensors` holds <model>/input/<name> and <model>/output/<name>.
"""

import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parents[2] / "graphs" / "artifacts" / "kernels"
RANDOM = np.random.default_rng(3)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


X, Y, IMAGE = normal(3, 4), normal(3, 4), normal(2, 3, 6, 6)
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
SCALE = normal(4)
RMS = 1 / np.sqrt((X**2).mean(-1, keepdims=True) + 1e-5)
MEAN = IMAGE.mean((0, 2, 3))
INVERSE = (1 / np.sqrt(IMAGE.var((0, 2, 3)) + 1e-5)).astype(np.float32)
LOGITS = normal(4, 3)
LOG_PROB = np.log(softmax(LOGITS, 1)).astype(np.float32)


def pooled():
    """Output and flat indices of a MaxPool of IMAGE."""
    graph = helper.make_graph(
        [helper.make_node("MaxPool", ["x"], ["y", "i"], **WINDOW)], "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None), helper.make_tensor_value_info("i", TensorProto.INT64, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": IMAGE})


POOLED, INDICES = pooled()
# name: (operator, inputs in order, outputs, attributes, domain, constants that are initializers, further graph inputs)
MS = "com.microsoft"
CASES = {
    "relu": ("ReluGrad", {"dy": Y, "x": X}, ["x_grad"], {}, MS),
    "sigmoid": ("SigmoidGrad", {"dy": Y, "x": 1 / (1 + np.exp(-X))}, ["x_grad"], {}, MS),
    "tanh": ("TanhGrad", {"dy": Y, "x": np.tanh(X)}, ["x_grad"], {}, MS),
    "leaky_relu": ("LeakyReluGrad", {"dy": Y, "x": X}, ["x_grad"], {"alpha": 0.2}, MS),
    "gelu": ("GeluGrad", {"dy": Y, "x": X}, ["x_grad"], {}, MS),
    "fast_gelu": ("FastGeluGrad", {"dy": Y, "x": X}, ["x_grad"], {}, MS),
    "quick_gelu": ("QuickGeluGrad", {"dy": Y, "x": X}, ["x_grad"], {"alpha": 1.5}, MS),
    "bias_gelu": ("BiasGeluGrad_dX", {"dy": Y, "x": X, "b": SCALE}, ["x_grad"], {}, MS),
    "bias_fast_gelu": ("BiasFastGeluGrad_dX", {"dy": Y, "x": X, "b": SCALE}, ["x_grad"], {}, MS),
    "softmax_13": ("SoftmaxGrad_13", {"dy": Y, "x": softmax(X, 0)}, ["x_grad"], {"axis": 0}, MS),
    "softmax": ("SoftmaxGrad", {"dy": normal(2, 3, 4), "x": softmax(normal(2, 12), 1).reshape(2, 3, 4)}, ["x_grad"], {"axis": 1}, MS),
    "log_softmax_13": ("LogSoftmaxGrad_13", {"dy": Y, "x": np.log(softmax(X, 1))}, ["x_grad"], {"axis": 1}, MS),
    "dropout": ("DropoutGrad", {"dy": Y, "mask": X > 0, "ratio": np.float32(0.25), "mode": np.array(True)}, ["dy_grad"], {}, MS),
    "layer_norm": (
        "LayerNormalizationGrad",
        {"dy": Y, "x": X, "scale": SCALE, "mean": X.mean(-1, keepdims=True), "inverse": 1 / np.sqrt(X.var(-1, keepdims=True) + 1e-5)},
        ["x_grad", "scale_grad", "dy_grad"], {"axis": -1}, MS,
    ),
    "rms_norm": ("SimplifiedLayerNormalizationGrad", {"dy": Y, "x": X, "scale": SCALE, "inverse": RMS}, ["x_grad", "scale_grad"], {"axis": -1}, MS),
    "batch_norm": (
        "BatchNormalizationGrad", {"dy": normal(2, 3, 6, 6), "x": IMAGE, "scale": normal(3), "mean": MEAN, "inverse": INVERSE},
        ["x_grad", "scale_grad", "dy_grad"], {"epsilon": 1e-5}, MS,
    ),
    "batch_norm_forward": (
        "BatchNormInternal", {"x": IMAGE, "scale": normal(3), "b": normal(3), "mean": normal(3), "variance": np.abs(normal(3))},
        ["x_grad", "mean_grad", "variance_grad", "scale_grad", "b_grad"], {"epsilon": 1e-5, "momentum": 0.8, "training_mode": 1}, MS,
    ),
    "conv": (
        "ConvGrad", {"dy": normal(2, 4, 3, 3), "x": IMAGE, "w": normal(4, 3, 3, 3)}, ["x_grad", "w_grad", "dy_grad"],
        {**WINDOW, "dilations": [1, 1], "group": 1}, MS,
    ),
    "max_pool": ("MaxPoolGrad", {"dy": normal(*POOLED.shape), "indices": INDICES}, ["x_grad"], WINDOW, ""),
    "average_pool": ("AveragePoolGrad", {"dy": normal(*POOLED.shape)}, ["x_grad"], {**WINDOW, "count_include_pad": 0}, ""),
    "average_pool_padded": ("AveragePoolGrad", {"dy": normal(*POOLED.shape)}, ["x_grad"], {**WINDOW, "count_include_pad": 1}, ""),
    "gather": ("GatherGrad", {"shape": "x", "indices": ints(2, 0, 2), "dy": normal(3, 4)}, ["x_grad"], {"axis": 0}, MS),
    "gather_elements": ("GatherElementsGrad", {"dy": normal(2, 4), "shape": "x", "indices": np.array([[0, 2, 1, 2], [0, 0, 2, 2]])}, ["x_grad"], {"axis": 0}, MS),
    "gather_nd": ("GatherNDGrad", {"shape": "x", "indices": np.array([[1, 2], [1, 2], [0, 3]]), "dy": normal(3)}, ["x_grad"], {"batch_dims": 0}, MS),
    "gather_nd_batched": ("GatherNDGrad", {"shape": "x", "indices": np.array([[[1], [1]], [[0], [3]], [[2], [2]]]), "dy": X[:, :2]}, ["x_grad"], {"batch_dims": 1}, MS),
    "slice_computed": ("SliceGrad", {"dy": X[:2, :2], "shape": "x", "from": ints(-2, 1), "to": ints(9, -1), "axes": ints(0, 1)}, ["x_grad"], {}, MS),
    "slice": ("SliceGrad", {"dy": normal(2, 2), "shape": "x", "starts": ints(0, 1), "ends": ints(2, 4), "axes": ints(0, 1), "steps": ints(1, 2)}, ["x_grad"], {}, MS),
    "concat": ("ConcatTraining", {"x": X, "dy": normal(2, 4)}, ["x_grad", "dy_grad"], {"axis": 0}, MS),
    "split": ("SplitTraining", {"x": X, "sizes": ints(1, 3)}, ["x_grad", "sizes_grad"], {"axis": 1}, MS),
    "scale": ("Scale", {"x": X, "s": np.float32(4)}, ["x_grad"], {"scale_down": 1}, MS),
    "reduce_sum": ("ReduceSumTraining", {"x": X, "axes": ints(0)}, ["x_grad"], {"keepdims": 0}, MS),
    "broadcast_args": ("BroadcastGradientArgs", {"a": ints(5, 1, 4), "b": ints(3, 1)}, ["a_grad", "b_grad"], {}, MS),
    "broadcast_args_shorter": ("BroadcastGradientArgs", {"a": ints(4), "b": ints(2, 3, 4)}, ["a_grad", "b_grad"], {}, MS),
    "accumulate": ("InPlaceAccumulatorV2", {"buffer": X, "value": Y, "overwrite": np.array([False])}, ["value_grad"], {}, MS),
    "cross_entropy": ("SoftmaxCrossEntropyLossGrad", {"dy": np.float32(2), "x": LOG_PROB, "labels": ints(2, 0, 1, 2)}, ["x_grad"], {"reduction": "mean"}, MS),
    "cross_entropy_ignored": (
        "SoftmaxCrossEntropyLossGrad", {"dy": np.float32(1), "x": LOG_PROB, "labels": ints(2, 0, 1, 2), "weight": np.float32([0.5, 1, 2])},
        ["x_grad"], {"reduction": "mean", "ignore_index": 1}, MS,
    ),
    "cross_entropy_none": ("SoftmaxCrossEntropyLossGrad", {"dy": normal(4), "x": LOG_PROB, "labels": ints(2, 0, 1, 2)}, ["x_grad"], {"reduction": "none"}, MS),
    "cross_entropy_internal": (
        "SoftmaxCrossEntropyLossInternalGrad", {"dy": np.float32(1), "x": LOG_PROB, "labels": ints(2, 0, 1, 2), "none": None, "ignored": np.int64(2)},
        ["x_grad"], {"reduction": "sum"}, MS,
    ),
}
SEQUENCE, STATE, OTHER = normal(5, 2, 3), normal(1, 2, 4), normal(1, 2, 4)
COTANGENTS = normal(5, 1, 2, 4)


TRANSPOSED = {**WINDOW, "dilations": [1, 1], "group": 2, "output_padding": [1, 1]}
TRANSPOSED_FILTERS = 6
CASES["conv_transpose"] = (
    "ConvTransposeGrad", {"dy": normal(2, TRANSPOSED_FILTERS, 8, 8), "x": normal(2, 4, 4, 4), "w": normal(4, 3, 3, 3)},
    ["x_grad", "w_grad", "dy_grad"], TRANSPOSED, MS,
)


def weights(gates):
    return {"W": normal(1, gates * 4, 3), "R": normal(1, gates * 4, 4), "B": normal(1, 2 * gates * 4)}


def forward(operator, inputs, count, attributes):
    """All outputs of a recurrent training operator."""
    graph = helper.make_graph(
        [helper.make_node(operator, ["" if array is None else key for key, array in inputs.items()], [f"y{i}" for i in range(count)], domain=MS, **attributes)],
        operator, [value(key, array) for key, array in inputs.items() if array is not None],
        [helper.make_empty_tensor_value_info(f"y{i}") for i in range(count)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15), helper.make_opsetid(MS, 1)], ir_version=8)
    fed = {key: array for key, array in inputs.items() if array is not None}
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, fed)


def recurrent():
    """LSTM and GRU, with and without first states and the cotangents of the last ones, and both places of the reset gate."""
    lstm, gru = weights(4), weights(3)
    hidden = {"hidden_size": 4, "direction": "forward"}
    given = {"x": SEQUENCE, **lstm, "lengths": None, "h0": STATE, "c0": OTHER}
    y, _, _, cells, gates = forward("LSTMTraining", given, 5, hidden)
    # Outputs count as gradients when they are named after a value.
    names = ["x_grad", "W_grad", "R_grad", "B_grad", "h0_grad"]
    CASES["lstm_forward"] = ("LSTMTraining", given, names, hidden, MS)
    CASES["lstm_forward_zero"] = ("LSTMTraining", {"x": SEQUENCE, **lstm, "lengths": None, "h0": STATE}, names, hidden, MS)
    back = {"x": SEQUENCE, "W": lstm["W"], "R": lstm["R"], "lengths": None, "h0": STATE, "c0": OTHER, "y": y, "cells": cells, "gates": gates}
    names = ["x_grad", "W_grad", "R_grad", "y_grad", "h0_grad", "c0_grad"]
    CASES["lstm"] = ("LSTMGrad", {**back, "dy": COTANGENTS, "dh": normal(1, 2, 4), "dc": normal(1, 2, 4)}, names, hidden, MS)
    CASES["lstm_last"] = ("LSTMGrad", {**back, "dy": None, "dh": normal(1, 2, 4)}, names, hidden, MS)
    for name, late in (("gru", 0), ("gru_late", 1)):
        attributes = {**hidden, "linear_before_reset": late}
        given = {"x": SEQUENCE, **gru, "lengths": None, "h0": STATE}
        y, _, zrh = forward("GRUTraining", given, 3, attributes)
        CASES[f"{name}_forward"] = ("GRUTraining", given, ["x_grad", "W_grad", "R_grad"], attributes, MS)
        CASES[name] = (
            "GRUGrad", {**given, "y": y, "gates": zrh, "dy": COTANGENTS, "dh": normal(1, 2, 4)},
            ["x_grad", "W_grad", "R_grad", "B_grad", "h0_grad"], attributes, MS,
        )


# Inputs that are constants of the model: bounds and the ignored class.
CONSTANTS = {"starts", "ends", "axes", "steps", "ignored", "sizes"}
UNUSED_X = {"max_pool": IMAGE, "average_pool": IMAGE, "average_pool_padded": IMAGE}


def value(name, array):
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape)


def declared(name, output):
    """The pools read the shape of their result off the model."""
    return value(output, UNUSED_X[name]) if name in UNUSED_X else helper.make_empty_tensor_value_info(output)


def conv_transpose(dy, x, w):
    """dX, dW, dB by PyTorch's autograd in float64."""
    values = [torch.from_numpy(array).double().requires_grad_() for array in (x, w, np.zeros(TRANSPOSED_FILTERS, np.float32))]
    y = torch.nn.functional.conv_transpose2d(*values, stride=2, padding=1, output_padding=1, groups=TRANSPOSED["group"])
    return [gradient.float().numpy() for gradient in torch.autograd.grad(y, values, torch.from_numpy(dy).double())]


def make(name, tensors):
    operator, inputs, outputs, attributes, domain = CASES[name]
    arrays = {key: np.asarray(array, dtype=np.float32 if np.asarray(array).dtype == np.float64 else None) for key, array in inputs.items() if array is not None and not isinstance(array, str)}
    nodes = [helper.make_node("Identity", ["loss_in"], ["loss"], name="loss")]
    if any(isinstance(array, str) for array in inputs.values()):
        arrays["x"] = X
        nodes.append(helper.make_node("Shape", ["x"], ["shape"], name="shape"))
    if name in UNUSED_X:
        arrays["x"] = UNUSED_X[name]
    nodes.append(helper.make_node(operator, ["" if array is None else key for key, array in inputs.items()], outputs, name="op", domain=domain, **attributes))
    arrays["loss_in"] = np.float32(0)
    fed = {key: np.asarray(array) for key, array in arrays.items() if key not in CONSTANTS}
    graph = helper.make_graph(
        nodes, name, [value(key, array) for key, array in fed.items()],
        [helper.make_empty_tensor_value_info("loss"), *(declared(name, output) for output in outputs)],
        [onnx.numpy_helper.from_array(arrays[key], key) for key in arrays if key in CONSTANTS],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15), helper.make_opsetid(MS, 1)], ir_version=8)
    onnx.save(model, FOLDER / f"{name}.onnx")
    # The accumulator and BatchNormInternal write into their inputs.
    results = [None, *conv_transpose(fed["dy"], fed["x"], fed["w"])] if operator == "ConvTransposeGrad" else onnxruntime.InferenceSession(model.SerializeToString()).run(None, {key: array.copy() for key, array in fed.items()})
    for key, array in fed.items():
        tensors[f"{name}/input/{key}"] = array
    for output, array in zip(outputs, results[1:]):
        tensors[f"{name}/output/{output}"] = array


def main():
    recurrent()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    tensors = {}
    for name in CASES:
        # In a process of its own: a kernel that does not find what it expects crashes.
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=attempt, args=(name, sender))
        process.start()
        sender.close()
        try:
            tensors.update(receiver.recv())
        except EOFError:
            print(f"{name}: no result")
            (FOLDER / f"{name}.onnx").unlink(missing_ok=True)
        process.join()
    save_file({key: np.ascontiguousarray(array) for key, array in tensors.items()}, FOLDER / "kernels.safetensors")


def attempt(name, sender):
    tensors = {}
    make(name, tensors)
    sender.send(tensors)


main()
