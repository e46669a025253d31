/** What memory a step needs, computed from its graph: parameters, optimizer state, activations, gradients. */
import { capturedBy, topologicalOrder } from "../../../dist/onnx/graph.js";
import { bytesPerElement, elementCount } from "../../../dist/onnx/tensor.js";
import { inferTypes } from "../../../dist/onnx/types.js";

/** Operators whose output is their first input under another shape. */
const VIEWS = new Set(["Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"]);
/** Operators that may write over an input of the output's size, once nobody reads it any more. */
const ELEMENTWISE = new Set(
  (
    "Abs Add And Cast Ceil Clip Div Elu Erf Exp Floor HardSigmoid LeakyRelu Log Max Min Mod Mul Neg Not Or Pow Reciprocal Relu " +
    "Round Selu Sigmoid Sign Softmax Softplus Sqrt Sub Sum Tanh ThresholdedRelu Where BitShift"
  ).split(" "),
);

/**
 * The largest sum of bytes that a graph's own values take at the same time, in the graph's order. Views, and what can be
 * written over a value of its size that nobody reads any more, cost nothing.
 * @param inPlace values that take the place of an input. @param wanted values that are read after the graph.
 */
async function liveBytes(model, inPlace, wanted) {
  const types = await inferTypes(model);
  const order = topologicalOrder(model.graph);
  const unknown = [];
  const bytes = (name) => {
    const { shape, elemType } = types.get(name) ?? {};
    if (shape?.every((dim) => typeof dim === "number")) return elementCount(shape) * (bytesPerElement(elemType) ?? 0);
    unknown.push(name);
    return 0;
  };
  // A view lives as long as what it shows.
  const shown = new Map();
  const root = (name) => shown.get(name) ?? name;
  for (const { opType, input, output } of order) if (VIEWS.has(opType)) shown.set(output[0], root(input[0]));
  const readsOf = (node) => new Set([...node.input, ...capturedBy(node)].filter(Boolean).map(root));
  const lastRead = new Map();
  for (const [i, node] of order.entries()) for (const name of readsOf(node)) lastRead.set(name, i);
  for (const name of wanted) lastRead.set(root(name), order.length);
  const size = new Map();
  let [now, live, at] = [0, 0, ""];
  for (const [i, node] of order.entries()) {
    if (VIEWS.has(node.opType)) continue;
    const dying = [...readsOf(node)].filter((name) => size.has(name) && lastRead.get(name) === i);
    for (const name of node.output) {
      if (!name || inPlace.has(name)) continue;
      const needed = bytes(name);
      const over = ELEMENTWISE.has(node.opType) ? dying.find((one) => size.get(one) === needed) : undefined;
      if (over !== undefined) size.delete(over);
      else now += needed;
      size.set(name, needed);
    }
    if (now > live) [live, at] = [now, node.name];
    for (const name of [...dying, ...node.output]) {
      if (!size.has(name) || (lastRead.get(name) ?? i) > i) continue;
      now -= size.get(name);
      size.delete(name);
    }
  }
  return { live, at, unknown, order, root, bytes };
}

/**
 * Bytes that a step needs at least, each tensor once.
 *
 * `parameters`, `state`, `data`: what is fed. `live`: the largest sum of the other values that are wanted at the same time;
 * new parameters and state are written over the old. `activations`: all values that depend on the data and that the loss
 * depends on, whether they live together or not; `gradients`: those of the parameters, sampled ones too where the step has
 * them. `unknown`: values whose shape is not known, which are not counted; what loops hold inside is not counted either.
 *
 * @param step what `buildStepGraph` returns, for data inputs of static shapes.
 */
export async function memoryNeed({ manifest }, step) {
  const inPlace = new Set([...step.carried.values(), ...step.state.values()]);
  const wanted = [manifest.lossOutput, ...step.metrics.values(), ...step.blockMetrics.values()];
  const { live, at, unknown, order, root, bytes } = await liveBytes(step.model, inPlace, wanted);
  const sum = (names) => [...names].reduce((total, name) => total + bytes(name), 0);
  const inputs = step.model.graph.input.map(({ name }) => name);
  const carried = new Set([...manifest.parameters, ...manifest.runningStatistics].map(({ name }) => name));
  const state = new Set(step.stateInputs.values());
  const data = inputs.filter((name) => !carried.has(name) && !state.has(name));

  const fromData = new Set(data);
  const makers = new Map();
  for (const node of order) {
    for (const name of node.output) makers.set(name, node);
    if ([...node.input, ...capturedBy(node)].some((name) => fromData.has(name))) {
      for (const name of node.output) fromData.add(name);
    }
  }
  const forLoss = new Set();
  const pending = [manifest.lossOutput];
  while (pending.length > 0) {
    const name = pending.pop();
    const node = makers.get(name);
    if (!node || forLoss.has(name)) continue;
    forLoss.add(name);
    pending.push(...node.input, ...capturedBy(node));
  }
  const activations = [...forLoss].filter((name) => fromData.has(name) && root(name) === name);
  const gradients = new Set();
  for (const { gradient, sampledGradient } of manifest.parameters) {
    for (const name of [gradient, sampledGradient]) if (makers.has(name)) gradients.add(root(name));
  }
  return {
    ...{ parameters: sum(inputs.filter((name) => carried.has(name))), state: sum(state), data: sum(data) },
    ...{ live, at, activations: sum(activations), gradients: sum(gradients), unknown },
  };
}
