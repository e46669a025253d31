/** Finding the output layer of a model whose loss is already in its graph. */
import type { Family } from "../families/family.js";
import { familyByName } from "../families/registry.js";
import { intOf } from "../onnx/attributes.js";
import type { GraphIndex } from "../onnx/graph.js";
import type { NodeProto } from "../onnx/proto.js";
import { numbersOf } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";

export interface RecognisedOutput {
  /** The pre-activation of the output layer: logits, or predicted values. */
  readonly preActivation: string;
  readonly family: Family;
  /** Class indices, or the values that are compared with; undefined where the form does not tell which they are. */
  readonly target?: string;
}

/**
 * Follows a scalar loss back to the value that it is a negative log-likelihood of: softmax cross-entropy (as one
 * operator, or LogSoftmax and NegativeLogLikelihoodLoss), squared error (Sub and Pow 2 or Mul with itself, then a mean
 * or sum), or sigmoid cross-entropy of the form Softplus(x) − x·t or −t·log σ(x) − (1 − t)·log(1 − σ(x)), weighted or
 * not. The absolute error is the likelihood of no Bregman family: its layer is sampled as the linear layer that it is.
 * @param constants values that do not depend on a parameter (targets).
 * @returns undefined when no known form is found.
 */
export function recogniseLoss(
  index: GraphIndex,
  types: TypeMap,
  loss: string,
  isTarget: (name: string) => boolean,
): RecognisedOutput | undefined {
  let node = index.producer(loss);
  while (node && isScaling(index, node)) node = index.producer(scaledInput(index, node));
  if (!node) return undefined;
  if (node.opType === "SoftmaxCrossEntropyLoss") return softmaxAt(node, node.input[0] as string, 1);
  if (node.opType === "NegativeLogLikelihoodLoss") {
    const logProbabilities = index.producer(node.input[0] as string);
    if (logProbabilities?.opType !== "LogSoftmax") return undefined;
    const logits = logProbabilities.input[0] as string;
    const rank = types.get(logits)?.shape?.length ?? 0;
    const axis = intOf(logProbabilities, "axis", -1);
    return softmaxAt(node, logits, axis < 0 ? axis + rank : axis);
  }
  if (node.opType === "ReduceMean" || node.opType === "ReduceSum") {
    const inner = index.producer(node.input[0] as string);
    const difference =
      inner && (inner.opType === "Abs" ? index.producer(inner.input[0] as string) : squared(index, inner));
    if (difference?.opType === "Sub") {
      const [a, b] = difference.input as [string, string];
      if (isTarget(b)) return { preActivation: a, family: familyByName("gaussian"), target: b };
      if (isTarget(a)) return { preActivation: b, family: familyByName("gaussian"), target: a };
    }
    if (inner) return sigmoidForm(index, inner, isTarget) ?? logSigmoidForm(index, node.input[0] as string, isTarget);
  }
  return undefined;
}

function softmaxAt(loss: NodeProto, preActivation: string, axis: number): RecognisedOutput {
  return { preActivation, family: familyByName("softmax", { axis }), target: loss.input[1] as string };
}

/** Division or multiplication by a constant, Identity, Reshape, or negation: what stands between a sum and the loss. */
function isScaling(index: GraphIndex, node: NodeProto): boolean {
  if (["Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"].includes(node.opType ?? "")) return true;
  if (node.opType !== "Div" && node.opType !== "Mul") return false;
  return node.input.some((name) => index.constant(name) !== undefined);
}

function scaledInput(index: GraphIndex, node: NodeProto): string {
  return (node.input.find((name) => index.constant(name) === undefined) ?? node.input[0]) as string;
}

/** The node whose output is squared. */
function squared(index: GraphIndex, node: NodeProto): NodeProto | undefined {
  const [a, b] = node.input as [string, string];
  if (node.opType === "Mul" && a === b) return index.producer(a);
  if (node.opType !== "Pow") return undefined;
  const exponent = index.constant(b);
  return exponent && numbersOf(exponent)[0] === 2 ? index.producer(a) : undefined;
}

function sigmoidForm(
  index: GraphIndex,
  node: NodeProto,
  isTarget: (name: string) => boolean,
): RecognisedOutput | undefined {
  if (node.opType !== "Sub") return undefined;
  const [left, right] = node.input.map((name) => index.producer(name));
  if (left?.opType !== "Softplus" || right?.opType !== "Mul") return undefined;
  const logits = left.input[0] as string;
  const [a, b] = right.input as [string, string];
  const target = a === logits ? b : a;
  const matches = (a === logits || b === logits) && isTarget(target);
  return matches ? { preActivation: logits, family: familyByName("bernoulli"), target } : undefined;
}

/** Sums and products of targets, log σ(x) and log(1 − σ(x)), all of one x: as ONNX Runtime's BCEWithLogitsLoss writes it. */
function logSigmoidForm(
  index: GraphIndex,
  value: string,
  isTarget: (name: string) => boolean,
): RecognisedOutput | undefined {
  const logits = new Set<string>();
  // Whether `name` is made of nothing else; `inLog` inside a logarithm, where the sigmoid has to stand.
  const follows = (name: string, inLog: boolean): boolean => {
    if (isTarget(name)) return true;
    const node = index.producer(name);
    if (!node) return false;
    if (inLog && node.opType === "Sigmoid") {
      logits.add(node.input[0] as string);
      return true;
    }
    if (inLog) return node.opType === "Sub" && isTarget(node.input[0] ?? "") && follows(node.input[1] ?? "", true);
    if (node.opType === "Log") return follows(node.input[0] ?? "", true);
    if (!["Neg", "Add", "Sub", "Mul"].includes(node.opType ?? "")) return false;
    return node.input.every((input) => follows(input, false));
  };
  const [only] = follows(value, false) ? logits : [];
  return only !== undefined && logits.size === 1
    ? { preActivation: only, family: familyByName("bernoulli") }
    : undefined;
}
