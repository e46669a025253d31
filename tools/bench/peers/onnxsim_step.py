"""onnxsim's step graphs (graph_grad and Adam) as a contestant: `onnxsim_step.py FOLDER MODE THREADS`, MODE adam."""

import sys
from pathlib import Path

from protocol import memory, serve, work_of

import numpy as np
import onnx
import onnxruntime
import onnxsim
from onnx import TensorProto, helper, numpy_helper, shape_inference

folder, mode, threads = sys.argv[1:4]
before = memory()
work, x, labels = work_of(folder)
model = onnx.load(Path(folder) / "model.onnx")
graph = model.graph
# Every shape has to be known.
for value in [*graph.input, *graph.output]:
    value.type.tensor_type.shape.dim[0].dim_value = work["batch"]
# What it has no gradients of, written otherwise: Flatten as a Reshape, Dropout of nothing as an Identity, and a look-up by
# a matrix of tokens as one by a vector.
graph.initializer.append(numpy_helper.from_array(np.array([work["batch"], -1], np.int64), "rows"))
for one in list(graph.node):
    if one.op_type == "Flatten":
        del one.attribute[:]
        one.CopyFrom(helper.make_node("Reshape", [one.input[0], "rows"], one.output, one.name))
    elif one.op_type == "Dropout":
        one.CopyFrom(helper.make_node("Identity", one.input[:1], one.output[:1], one.name))
    elif one.op_type == "Gather" and one.input[1] == "x":
        width = next(t.dims[-1] for t in graph.initializer if t.name == one.input[0])
        shapes = {"token_vector": [-1], "embedded": [*x.shape, width]}
        graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), k) for k, v in shapes.items())
        flat, rows, result = "token_vector/value", "embedded/rows", one.output[0]
        at = list(graph.node).index(one)
        one.CopyFrom(helper.make_node("Gather", [one.input[0], flat], [rows], one.name))
        graph.node.insert(at + 1, helper.make_node("Reshape", [rows, "embedded"], [result]))
        graph.node.insert(at, helper.make_node("Reshape", ["x", "token_vector"], [flat]))
model = onnxsim.simplify(shape_inference.infer_shapes(model))[0]
graph = model.graph
for one in [node for node in graph.node if node.op_type == "Constant"]:
    tensor = next(attribute.t for attribute in one.attribute if attribute.name == "value")
    tensor.name = one.output[0]
    graph.initializer.append(tensor)
    graph.node.remove(one)
trained = [t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 0]
output = graph.output[0].name


def constant(name, value):
    graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    return name


def node(op, inputs, **attributes):
    result = f"loss_{len(graph.node)}"
    graph.node.append(helper.make_node(op, inputs, [result], **attributes))
    return result


graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "flat_shape"))
feeds = {"x": x}
if work["loss"] == "softmax-cross-entropy":
    feeds["target"] = np.eye(work["classes"], dtype=np.float32)[labels]
    graph.input.append(helper.make_tensor_value_info("target", TensorProto.FLOAT, feeds["target"].shape))
    total = node("Mul", [node("Log", [node("Softmax", [output], axis=-1)]), "target"])
    scale = -1 / work["batch"]
elif work["loss"] == "sigmoid-cross-entropy":
    total = node("Sub", [node("Softplus", [output]), node("Mul", [output, "x"])])
    scale = 1 / work["batch"]
else:
    difference = node("Sub", [output, "x"])
    total = node("Mul", [difference, difference])
    scale = 1 / x.size
summed = node("ReduceSum", [total], keepdims=0)
loss = node("Mul", [summed, constant("loss_scale", scale)])
del graph.output[:]
graph.output.append(helper.make_tensor_value_info(loss, TensorProto.FLOAT, []))
loop = onnxsim.compile_training_loop(shape_inference.infer_shapes(model), loss, trained)


def step():
    return float(np.asarray(loop(feeds, lr=1e-5)).reshape(()))


first = step()
step()
version = f"onnxsim {onnxsim.__version__}, onnxruntime {onnxruntime.__version__}"
serve({"loss": first, "version": version, "before": before}, {"step": step})
