/**
 * How a loss in the graph sums up its examples: what adding up the gradients of parts of a batch (gradient accumulation)
 * must weigh them by to be the gradient of the whole.
 */
import { intOf, stringOf } from "../onnx/attributes.js";
import type { GraphBuilder } from "../onnx/builder.js";
import { dependents, type GraphIndex, requiredInputs, topologicalOrder } from "../onnx/graph.js";
import { DataType, type NodeProto } from "../onnx/proto.js";
import { numbersOf } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";

export type LossReduction =
  /** The mean over all examples, of which equal parts weigh the same. */
  | { readonly kind: "mean" }
  | { readonly kind: "sum" }
  /** The mean over labels that are counted, by their weights: this node's. */
  | { readonly kind: "weighted"; readonly node: NodeProto }
  | { readonly kind: "unknown" };

/** A value that is the same for every part of the batch: made of constants and parameters. */
type Reduced = LossReduction | { readonly kind: "constant" };

const UNKNOWN: LossReduction = { kind: "unknown" };
const MEAN: LossReduction = { kind: "mean" };
const SUM: LossReduction = { kind: "sum" };
/** Operators that change no number, or all in the same way. */
const LINEAR = new Set(["Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Neg"]);
/** Operators that may stand, element by element, between the network's last layer and the mean. */
const ELEMENTWISE = new Set(
  "Add Sub Mul Div Neg Abs Pow Exp Log Sqrt Max Min Where Clip Cast Identity Reshape Squeeze Unsqueeze Flatten Softplus Sigmoid Sum Not Equal Less Greater".split(
    " ",
  ),
);

/**
 * Follows a scalar loss back to where its examples come together.
 * @param inputs the model's own inputs, the first dimension of the first of which is the batch; and the seed.
 */
export function lossReduction(
  index: GraphIndex,
  types: TypeMap,
  loss: string,
  inputs: readonly string[],
): LossReduction {
  const batch = inputs.map((name) => types.get(name)?.shape?.[0]).find((dim) => dim !== undefined);
  const order = topologicalOrder(index.graph);
  const varying = dependents(order, requiredInputs(index.graph));
  const varies = (name: string) => varying.has(name);
  /** Whether a dimension is the batch's; undefined where shapes do not tell. */
  const hasBatch = (name: string): boolean | undefined => {
    const shape = types.get(name)?.shape;
    if (!shape || batch === undefined || batch === null || shape.includes(null)) return undefined;
    if (typeof batch === "string") {
      return shape.some((dim) => typeof dim === "string" && dim.split(/\W+/).includes(batch));
    }
    return batch > 1 && typeof shape[0] === "number" && shape[0] % batch === 0;
  };
  /** Whether every number between the mean and the network belongs to an example of its own, by value. */
  const byExample = new Map<string, boolean>();
  const isByExample = (name: string): boolean => byExample.get(name) ?? hasBatch(name) === true;
  const keepsExamples = (node: NodeProto): boolean => {
    if (node.domain) return true;
    if (node.opType === "ReduceSum" || node.opType === "ReduceMean") {
      const axes = index.constant(node.input[1] ?? "");
      const rank = types.get(node.input[0] ?? "")?.shape?.length ?? 0;
      const isWithin = axes !== undefined && numbersOf(axes).every((axis) => axis !== 0 && axis !== -rank);
      return isWithin && isByExample(node.input[0] ?? "");
    }
    if (!ELEMENTWISE.has(node.opType ?? "")) return true;
    return node.input.every((input) => !input || !varies(input) || isByExample(input));
  };

  const reduced = new Map<string, Reduced>();
  const follow = (name: string): Reduced => (varies(name) ? (reduced.get(name) ?? UNKNOWN) : { kind: "constant" });
  const reduce = (node: NodeProto): Reduced => {
    const [first = "", second = ""] = node.input;
    switch (node.opType) {
      case "SoftmaxCrossEntropyLoss":
      case "NegativeLogLikelihoodLoss":
        return crossEntropy(node);
      case "ReduceMean":
      case "ReduceSum": {
        if (hasBatch(first) === false) return follow(first);
        if (!isByExample(first)) return UNKNOWN;
        return node.opType === "ReduceMean" ? MEAN : SUM;
      }
      case "Add":
      case "Sub":
      case "Sum":
        return node.input.map(follow).reduce(together);
      case "Mul": {
        if (!varies(first)) return follow(second);
        return varies(second) ? UNKNOWN : follow(first);
      }
      case "Div": {
        const top = follow(first);
        if (!varies(second)) return top;
        return top.kind === "sum" && countsExamples(index, second) ? MEAN : UNKNOWN;
      }
      default:
        return LINEAR.has(node.opType ?? "") ? follow(first) : UNKNOWN;
    }
  };
  // In the order of the graph, in which values that many others read are judged once.
  for (const node of order) {
    for (const output of node.output) {
      if (!varies(output)) continue;
      const has = hasBatch(output);
      byExample.set(output, has === true && keepsExamples(node));
      if (has === false && !node.domain) reduced.set(output, reduce(node));
    }
  }
  const result = follow(loss);
  return result.kind === "constant" ? UNKNOWN : result;
}

function together(a: Reduced, b: Reduced): Reduced {
  // A term without examples, such as a penalty on the weights, is in the mean of parts once and in their sum often.
  if (a.kind === "constant") return b.kind === "sum" ? UNKNOWN : b;
  if (b.kind === "constant") return a.kind === "sum" ? UNKNOWN : a;
  const same = a.kind === b.kind && (a.kind !== "weighted" || b.kind !== "weighted" || a.node === b.node);
  return same ? a : UNKNOWN;
}

function crossEntropy(node: NodeProto): LossReduction {
  const reduction = stringOf(node, "reduction", "mean");
  if (reduction === "sum") return SUM;
  if (reduction !== "mean") return UNKNOWN;
  return node.input[2] || intOf(node, "ignore_index") !== undefined ? { kind: "weighted", node } : MEAN;
}

/** Whether a value is the number of examples, or of elements of a tensor with one row for each: Size, or Shape's first. */
function countsExamples(index: GraphIndex, name: string): boolean {
  const node = index.producer(name);
  if (!node) return false;
  if (node.opType === "Size") return true;
  if (node.opType === "Shape") return intOf(node, "start", 0) === 0 && intOf(node, "end") === 1;
  if (node.opType === "Gather") {
    const indices = index.constant(node.input[1] ?? "");
    const isFirst = indices !== undefined && numbersOf(indices).every((i) => i === 0);
    return isFirst && index.producer(node.input[0] ?? "")?.opType === "Shape";
  }
  return ["Cast", "Squeeze", "Unsqueeze", "Reshape", "Identity"].includes(node.opType ?? "")
    ? countsExamples(index, node.input[0] ?? "")
    : false;
}

/** Emits the sum of the weights of the labels that a weighted mean counts: a float32 scalar. */
export function emitLossWeight(b: GraphBuilder, node: NodeProto): string {
  const [, labels = "", weights] = node.input;
  const ignored = intOf(node, "ignore_index");
  const integers = b.cast(labels, DataType.INT64);
  const isIgnored = ignored === undefined ? undefined : b.equal(integers, b.i64(ignored));
  let counted: string;
  if (weights) {
    // An ignored label may lie outside the classes.
    counted = b.cast(b.gather(weights, isIgnored ? b.where(isIgnored, b.i64(0), integers) : integers), DataType.FLOAT);
    if (isIgnored) counted = b.where(isIgnored, b.f32(0), counted);
  } else {
    counted = b.cast(b.op("Not", [isIgnored as string]), DataType.FLOAT);
  }
  return b.reduceSum(counted, undefined, false);
}
