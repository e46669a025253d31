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
model = onnxsim.simplify(shape_inference.infer_shapes(model))[0]
graph = model.graph
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
