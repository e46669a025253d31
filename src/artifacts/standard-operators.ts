/**
 * The operators that ONNX Runtime's training passes put into a forward graph, as standard ones
 * (schemas: orttraining/core/graph/training_op_defs.cc; passes: orttraining/core/optimizer). Everything is said in the
 * model's own opset, so that the opset conversion can follow.
 */
import { attributesFrom, floatOf, hasAttribute, intOf, stringOf } from "../onnx/attributes.js";
import type { GraphBuilder } from "../onnx/builder.js";
import { withFields } from "../onnx/codec.js";
import { DataType, type NodeProto, type TensorProto } from "../onnx/proto.js";
import { numbersOf } from "../onnx/tensor.js";

/** Why a node cannot be said with standard operators; completes the sentence "it …". */
export class NoStandardForm extends Error {}

export interface ReplacementContext {
  readonly b: GraphBuilder;
  /** The default opset of the model. */
  readonly opset: number;
  constantOf(name: string): TensorProto | undefined;
  isUsed(name: string): boolean;
}

/** Returns the node that takes the given one's place, or nothing when it emitted the node's outputs to `b`. */
type Replacement = (node: NodeProto, context: ReplacementContext) => NodeProto | undefined;

/** By domain and operator. */
const REPLACEMENTS: Readonly<Record<string, Replacement>> = {
  "com.microsoft::BatchNormInternal": batchNormInternal,
  "com.microsoft::BiasGelu": (node, { b }) => gelu(b, b.add(inputOf(node, 0), inputOf(node, 1)), node),
  "com.microsoft::ConcatTraining": concatTraining,
  "com.microsoft::FastGelu": fastGelu,
  "com.microsoft::FusedMatMul": fusedMatMul,
  "com.microsoft::Gelu": (node, { b }) => gelu(b, inputOf(node, 0), node),
  "com.microsoft::GRUTraining": (node) => renamed(node, "GRU", 2),
  "com.microsoft::LSTMTraining": (node) => renamed(node, "LSTM", 3),
  "com.microsoft::NegativeLogLikelihoodLossInternal": (node, context) =>
    ignoreIndexToAttribute(node, context, "NegativeLogLikelihoodLoss"),
  "com.microsoft::NegativeLogLikelihoodLossInternal2": (node, context) =>
    ignoreIndexToAttribute(node, context, "NegativeLogLikelihoodLoss"),
  "com.microsoft::QuickGelu": quickGelu,
  "com.microsoft::ReduceSumTraining": reduceSumTraining,
  "com.microsoft::Scale": scale,
  "com.microsoft::SoftmaxCrossEntropyLossInternal": (node, context) =>
    ignoreIndexToAttribute(node, context, "SoftmaxCrossEntropyLoss"),
  "com.microsoft::SplitTraining": splitTraining,
  "::SimplifiedLayerNormalization": simplifiedLayerNormalization,
};

export function replacementOf(node: NodeProto): Replacement | undefined {
  return REPLACEMENTS[`${node.domain === "ai.onnx" ? "" : (node.domain ?? "")}::${node.opType}`];
}

function inputOf(node: NodeProto, index: number): string {
  return node.input[index] as string;
}

function outputOf(node: NodeProto): string {
  return node.output[0] as string;
}

/** Refuses when something reads an output that the standard operator does not have. */
function requireUnused(node: NodeProto, from: number, { isUsed }: ReplacementContext): void {
  const used = node.output.slice(from).find((name) => name && isUsed(name));
  if (used) throw new NoStandardForm(`gives '${used}' away, which no standard operator makes`);
}

function renamed(node: NodeProto, opType: string, outputs: number): NodeProto {
  return withFields(node, { opType, domain: "", output: node.output.slice(0, outputs) });
}

/** (X, scale, B, mean, var) → (Y, running mean, running variance, saved mean, saved inverse deviation). */
function batchNormInternal(node: NodeProto, context: ReplacementContext): NodeProto {
  requireUnused(node, 3, context);
  return trainingBatchNormalization(renamed(node, "BatchNormalization", 3), context);
}

/** BatchNormalization on the statistics of the batch. Before opset 14 its outputs say that it trains. */
export function trainingBatchNormalization(
  node: NodeProto,
  { b, opset }: Pick<ReplacementContext, "b" | "opset">,
): NodeProto {
  const [y, mean, variance] = node.output;
  return withFields(node, {
    output: [y as string, mean || b.unique(`${y}/mean_next`), variance || b.unique(`${y}/variance_next`)],
    attribute: [
      ...node.attribute.filter(({ name }) => name === "epsilon" || name === "momentum"),
      ...(opset >= 14 ? attributesFrom({ training_mode: 1 }) : []),
    ],
  });
}

function concatTraining(node: NodeProto, context: ReplacementContext): NodeProto {
  requireUnused(node, 1, context);
  return renamed(node, "Concat", 1);
}

function splitTraining(node: NodeProto, { opset, constantOf }: ReplacementContext): NodeProto {
  const renamedNode = withFields(node, { opType: "Split", domain: "" });
  if (opset >= 13) return renamedNode;
  const split = constantOf(inputOf(node, 1));
  if (!split)
    throw new NoStandardForm(`splits into computed sizes, which opset ${opset} cannot; use opset 13 or newer`);
  return withFields(renamedNode, {
    input: [inputOf(node, 0)],
    attribute: [...node.attribute, ...attributesFrom({ split: numbersOf(split) })],
  });
}

function reduceSumTraining(node: NodeProto, { opset, constantOf }: ReplacementContext): NodeProto {
  const sum = withFields(node, { opType: "ReduceSum", domain: "" });
  if (opset >= 13) return sum;
  const axes = constantOf(inputOf(node, 1));
  if (!axes) throw new NoStandardForm(`sums over computed axes, which opset ${opset} cannot; use opset 13 or newer`);
  const values = numbersOf(axes);
  const isIdentity = values.length === 0 && intOf(node, "noop_with_empty_axes", 0) === 1;
  if (isIdentity) return withFields(sum, { opType: "Identity", input: [inputOf(node, 0)], attribute: [] });
  return withFields(sum, {
    input: [inputOf(node, 0)],
    attribute: attributesFrom({
      keepdims: intOf(node, "keepdims", 1),
      axes: values.length > 0 ? values : undefined,
    }),
  });
}

/** x·s, or x/s; s may be a count, of type int64. */
function scale(node: NodeProto, { b, opset }: ReplacementContext): NodeProto {
  const [x, s] = node.input as [string, string];
  const factor = opset >= 15 ? b.op("CastLike", [s, x]) : b.cast(s, DataType.FLOAT);
  const opType = intOf(node, "scale_down", 0) ? "Div" : "Mul";
  return withFields(node, { opType, domain: "", input: [x, factor], attribute: [] });
}

/** Losses whose ignored class is an input. */
function ignoreIndexToAttribute(node: NodeProto, context: ReplacementContext, opType: string): NodeProto {
  const [scores, labels, weight, ignored] = node.input as [string, string, string?, string?];
  const index = ignored ? context.constantOf(ignored) : undefined;
  if (ignored && !index) throw new NoStandardForm("ignores a class that is computed");
  const outputs = opType === "SoftmaxCrossEntropyLoss" ? 2 : 1;
  requireUnused(node, outputs, context);
  return withFields(node, {
    opType,
    domain: "",
    input: weight ? [scores, labels, weight] : [scores, labels],
    output: node.output.slice(0, outputs),
    attribute: attributesFrom({
      reduction: stringOf(node, "reduction", "mean"),
      ignore_index: index
        ? (numbersOf(index)[0] as number)
        : hasAttribute(node, "ignore_index")
          ? intOf(node, "ignore_index")
          : undefined,
    }),
  });
}

/** RMS normalization: x / √(mean x² + ε) · scale over the axes from `axis` on. */
function simplifiedLayerNormalization(node: NodeProto, context: ReplacementContext): undefined {
  const { b, opset } = context;
  requireUnused(node, 1, context);
  const axis = intOf(node, "axis", -1);
  if (axis >= 0) throw new NoStandardForm(`normalizes from axis ${axis} on, counted from the front`);
  const axes = Array.from({ length: -axis }, (_, i) => axis + i);
  const [x, weight] = node.input as [string, string];
  const squares = b.mul(x, x);
  const mean =
    opset >= 18 ? b.op("ReduceMean", [squares, b.i64(axes)]) : b.op("ReduceMean", [squares], { axes, keepdims: 1 });
  const deviation = b.sqrt(b.add(mean, b.f32(floatOf(node, "epsilon", 1e-5))));
  b.node("Mul", [b.div(x, deviation), weight], { outputs: [outputOf(node)] });
}

/** x/2 · (1 + erf(x/√2)). */
function gelu(b: GraphBuilder, x: string, node: NodeProto): undefined {
  const slope = b.add(b.op("Erf", [b.mul(x, b.f32(Math.SQRT1_2))]), b.f32(1));
  b.node("Mul", [b.mul(x, b.f32(0.5)), slope], { outputs: [outputOf(node)] });
}

/** x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³))), of x plus an optional bias. */
function fastGelu(node: NodeProto, { b }: ReplacementContext): undefined {
  const [data, bias] = node.input as [string, string?];
  const x = bias ? b.add(data, bias) : data;
  const cubic = b.add(x, b.mul(b.f32(0.044715), b.mul(x, b.mul(x, x))));
  const slope = b.add(b.op("Tanh", [b.mul(cubic, b.f32(Math.sqrt(2 / Math.PI)))]), b.f32(1));
  b.node("Mul", [b.mul(x, b.f32(0.5)), slope], { outputs: [outputOf(node)] });
}

/** x · sigmoid(αx). */
function quickGelu(node: NodeProto, { b }: ReplacementContext): undefined {
  const x = inputOf(node, 0);
  const gate = b.op("Sigmoid", [b.mul(x, b.f32(floatOf(node, "alpha", 1.702)))]);
  b.node("Mul", [x, gate], { outputs: [outputOf(node)] });
}

/** alpha · op(A) · op(B), where op may swap the last two axes. */
function fusedMatMul(node: NodeProto, context: ReplacementContext): undefined {
  const { b } = context;
  if (intOf(node, "transBatchA", 0) || intOf(node, "transBatchB", 0)) {
    throw new NoStandardForm("transposes the batch axes of a matrix product");
  }
  const [a, c] = node.input as [string, string];
  const alpha = floatOf(node, "alpha", 1);
  const swap = (letters: string, swapped: number) => (swapped ? [...letters].reverse().join("") : letters);
  const [left, right] = [swap("ik", intOf(node, "transA", 0)), swap("kj", intOf(node, "transB", 0))];
  // Einsum swaps the last two axes whatever the rank, which Transpose would have to know.
  const product = (outputs: readonly string[] | undefined) =>
    left === "ik" && right === "kj"
      ? b.node("MatMul", [a, c], outputs && { outputs })
      : b.node("Einsum", [a, c], {
          ...(outputs && { outputs }),
          attributes: { equation: `...${left},...${right}->...ij` },
        });
  if (alpha === 1) product([outputOf(node)]);
  else b.node("Mul", [product(undefined)[0] as string, b.f32(alpha)], { outputs: [outputOf(node)] });
}

/** Constant true, for `training_mode`. */
export function trueConstant(b: GraphBuilder): string {
  return b.constant(DataType.BOOL, 1);
}
