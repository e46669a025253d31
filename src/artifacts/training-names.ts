/**
 * The names by which ONNX Runtime knows the parts of a training model: it classifies inputs and outputs by name alone
 * (orttraining/training_api/module.cc, utils.cc).
 */
import type { GraphProto } from "../onnx/proto.js";

const BUFFER = "_grad.accumulation.buffer";
const ACCUMULATED = "_grad.accumulation.out";
/** Tells the accumulators to start anew. */
export const LAZY_RESET = "lazy_reset_grad";

export const gradientName = (parameter: string): string => `${parameter}_grad`;
export const bufferName = (parameter: string): string => `${parameter}${BUFFER}`;
export const accumulatedName = (parameter: string): string => `${parameter}${ACCUMULATED}`;

/** The parameters that have an accumulation buffer, in the model's order: those that train. */
export function accumulatedParameters(graph: GraphProto): string[] {
  return graph.input.flatMap(({ name = "" }) => (name.endsWith(BUFFER) ? [name.slice(0, -BUFFER.length)] : []));
}

/** Whether an input belongs to the machinery of training, and not to the model. */
export function isInternalInput(name: string): boolean {
  return name.endsWith(BUFFER) || name === LAZY_RESET;
}

/** The outputs of the forward pass: the loss first, then what the user asked for. */
export function forwardOutputs(graph: GraphProto): string[] {
  const gradients = new Set(graph.input.map(({ name = "" }) => gradientName(name)));
  return graph.output
    .map(({ name = "" }) => name)
    .filter((name) => !name.endsWith(ACCUMULATED) && !gradients.has(name));
}
