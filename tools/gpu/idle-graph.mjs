/** The graph that moves the tensors of K steps and computes nothing: what moving them costs. */
import { emptyGraph, GraphBuilder } from "../../dist/onnx/builder.js";
import { declaredType } from "../../dist/onnx/types.js";

/**
 * Same inputs as the steps' graph; those outputs that have the type and shape of an input are that input (parameters and
 * state), the others are zeros of their size. Of an input that no output takes, one element is read, so that it has to go
 * to the device.
 */
export function idleGraph(model, count) {
  const b = new GraphBuilder(emptyGraph("idle"));
  const known = (info) => {
    const { elemType, shape } = declaredType(info);
    return { name: info.name, type: elemType, dims: shape.map((dim) => (dim === "steps" ? count : dim)) };
  };
  const inputs = model.graph.input.map(known);
  const outputs = model.graph.output.map(known);
  for (const { name, type, dims } of inputs) b.input(name, { elemType: type, shape: dims });
  const unused = new Set(inputs);
  for (const { name, type, dims } of outputs) {
    const source = [...unused].find((input) => input.type === type && input.dims.join() === dims.join());
    if (source) {
      unused.delete(source);
      b.node("Identity", [source.name], { outputs: [name] });
    } else {
      b.node("Identity", [b.constant(type, new Array(dims.reduce((a, d) => a * d, 1)).fill(0), dims)], {
        outputs: [name],
      });
    }
    b.output(name, { elemType: type, shape: dims });
  }
  for (const { name, type } of unused) {
    const element = b.alias(b.gather(b.reshape(name, [-1]), b.i64([0])), `first of ${name}`);
    b.output(element, { elemType: type, shape: [1] });
    outputs.push({ name: element, type, dims: [1] });
  }
  return { model: { ...model, graph: b.graph, functions: [] }, inputs, outputs };
}
