/** Attention and RotaryEmbedding (opset 23), by the definitions in ONNX's operator documentation. */
import { floatOf, hasAttribute, intOf } from "../attributes.js";
import type { GraphBuilder } from "../builder.js";
import { DataType, type NodeProto } from "../proto.js";
import { CannotConvert, type ConversionContext, type OpsetRule, rankOf, scalarLike } from "./rule.js";

/** (batch, length, heads · size) → (batch, heads, length, size). */
function splitHeads(g: GraphBuilder, x: string, heads: number): string {
  return g.transpose(g.reshape(x, [0, 0, heads, -1]), [0, 2, 1, 3]);
}

/** The way back; the result is called `outputs[0]`. */
function mergeHeads(g: GraphBuilder, x: string, outputs: readonly string[]): void {
  g.node("Reshape", [g.transpose(x, [0, 2, 1, 3]), g.i64([0, 0, -1])], { outputs });
}

function staticDim(context: ConversionContext, name: string, axis: number): number | undefined {
  const dim = context.typeOf(name)?.shape?.at(axis);
  return typeof dim === "number" ? dim : undefined;
}

interface Heads {
  readonly query: number;
  readonly keyValue: number;
  /** Inputs of rank 3 hold the heads in their last axis. */
  readonly packed: boolean;
}

function headsOf(node: NodeProto, context: ConversionContext): Heads {
  const query = intOf(node, "q_num_heads", 0);
  const keyValue = intOf(node, "kv_num_heads", 0);
  const rank = rankOf(context, node.input[0] as string);
  if (rank === 3 || (rank === undefined && query > 0)) {
    if (query === 0 || keyValue === 0) throw new CannotConvert("has inputs of rank 3 but no numbers of heads");
    return { query, keyValue, packed: true };
  }
  const heads = (index: number) => staticDim(context, node.input[index] as string, 1);
  const [q, kv] = [heads(0), heads(1)];
  if (q === undefined || kv === undefined) throw new CannotConvert("has a number of heads that is not known here");
  return { query: q, keyValue: kv, packed: false };
}

/** √scale, which query and key are both multiplied by, for numbers that stay in range. */
function rootOfScale(node: NodeProto, context: ConversionContext, heads: Heads): string {
  const { g } = context;
  const q = node.input[0] as string;
  if (hasAttribute(node, "scale")) return scalarLike(context, q, Math.sqrt(floatOf(node, "scale", 1)));
  const last = staticDim(context, q, -1);
  if (last !== undefined) return scalarLike(context, q, (heads.packed ? last / heads.query : last) ** -0.25);
  const size = g.op("Shape", [q], { start: -1 });
  const perHead = heads.packed ? g.div(size, g.i64(heads.query)) : size;
  return g.op("CastLike", [g.pow(g.cast(perHead, DataType.FLOAT), g.f32(-0.25)), q]);
}

/** Repeats every head of key or value for the query heads that share it (grouped-query attention). */
function repeatHeads(g: GraphBuilder, x: string, heads: Heads): string {
  if (heads.query === heads.keyValue) return x;
  const repeated = g.op("Concat", Array(heads.query / heads.keyValue).fill(g.unsqueeze(x, [2])), { axis: 2 });
  const shape = g.op("Shape", [x], { start: 2 });
  return g.reshape(repeated, g.concat([g.i64([0, heads.query]), shape], 0));
}

/** 0 where query i may see key j ≤ i + offset, −∞ elsewhere: (query length, key length). */
function causalBias(
  context: ConversionContext,
  q: string,
  k: string,
  past: string,
  type: DataType | undefined,
): string {
  const { g } = context;
  const length = (x: string) => g.squeeze(g.op("Shape", [x], { start: 2, end: 3 }), [0]);
  const range = (end: string) => g.op("Range", [g.i64(0), end, g.i64(1)]);
  let row = g.unsqueeze(range(length(q)), [1]);
  if (past) row = g.add(row, length(past));
  const column = g.unsqueeze(range(length(k)), [0]);
  const bias = (value: number) => scalarLike(context, q, value, type);
  return g.where(g.greater(column, row), bias(Number.NEGATIVE_INFINITY), bias(0));
}

export const lowerAttention: OpsetRule = {
  operators: ["Attention"],
  since: 23,
  needsTypes: true,
  convert: (node, context) => {
    const { g } = context;
    const [q = "", k = "", v = "", mask = "", pastKey = "", pastValue = "", lengths = ""] = node.input;
    const [y = "", presentKey = "", presentValue = "", scoresOutput = ""] = node.output;
    if (lengths) throw new CannotConvert("takes the lengths of a padded cache (nonpad_kv_seqlen)");
    if (intOf(node, "left_window_size", -1) >= 0 || intOf(node, "right_window_size", -1) >= 0) {
      throw new CannotConvert("attends to a sliding window");
    }
    const type = context.typeOf(q)?.elemType;
    const precision = intOf(node, "softmax_precision", type ?? 0);
    if (precision !== (type ?? 0)) throw new CannotConvert("computes its softmax in another precision than its inputs");
    const heads = headsOf(node, context);
    if (heads.query % heads.keyValue !== 0) {
      throw new CannotConvert(`has ${heads.query} heads of queries for ${heads.keyValue} of keys`);
    }

    const query = heads.packed ? splitHeads(g, q, heads.query) : q;
    const join = (past: string, x: string, present: string) => {
      const split = heads.packed ? splitHeads(g, x, heads.keyValue) : x;
      const whole = past ? g.concat([past, split], 2) : split;
      if (present) g.node("Identity", [whole], { outputs: [present] });
      return whole;
    };
    const key = join(pastKey, k, presentKey);
    const value = join(pastValue, v, presentValue);
    const root = rootOfScale(node, context, heads);
    const transposed = g.transpose(repeatHeads(g, key, heads), [0, 1, 3, 2]);
    const raw = g.matMul(g.mul(query, root), g.mul(transposed, root));
    const softcap = floatOf(node, "softcap", 0);
    const cap = (x: string) => {
      const limit = scalarLike(context, q, softcap, type);
      return g.mul(g.op("Tanh", [g.div(x, limit)]), limit);
    };
    const capped = softcap === 0 ? raw : cap(raw);

    const biases: string[] = [];
    if (mask) biases.push(maskBias(context, q, mask, type));
    if (intOf(node, "is_causal", 0) === 1) biases.push(causalBias(context, query, key, pastKey, type));
    const bias = biases.length === 2 ? g.add(biases[0] as string, biases[1] as string) : biases[0];
    const biased = bias === undefined ? capped : g.add(capped, bias);
    // A row that sees no key gives zeros. Its bias is lifted first, so that no NaN arises, also in gradients.
    const hidden =
      bias !== undefined && mask
        ? g.equal(g.reduce("ReduceMax", bias, [-1], true), scalarLike(context, q, Number.NEGATIVE_INFINITY, type))
        : undefined;
    const scores = hidden === undefined ? biased : g.where(hidden, capped, biased);
    const weights = g.op("Softmax", [scores], { axis: -1 });
    const seen = hidden === undefined ? weights : g.where(hidden, scalarLike(context, q, 0, type), weights);
    if (scoresOutput) {
      const stage = [raw, capped, biased, seen][intOf(node, "qk_matmul_output_mode", 0)];
      if (stage === undefined) throw new CannotConvert("has an unknown qk_matmul_output_mode");
      g.node("Identity", [stage], { outputs: [scoresOutput] });
    }
    const attended = [seen, repeatHeads(g, value, heads)];
    if (heads.packed) mergeHeads(g, g.op("MatMul", attended), [y]);
    else g.node("MatMul", attended, { outputs: [y] });
    return undefined;
  },
};

/** A mask of booleans as what is added to the scores. */
function maskBias(context: ConversionContext, q: string, mask: string, type: DataType | undefined): string {
  const { g } = context;
  const maskType = context.typeOf(mask)?.elemType;
  if (maskType === undefined) throw new CannotConvert("has a mask of a type that is not known here");
  if (maskType !== DataType.BOOL) return mask;
  return g.where(mask, scalarLike(context, q, 0, type), scalarLike(context, q, Number.NEGATIVE_INFINITY, type));
}

/** Rotates pairs of features by an angle that grows with the position (J. Su et al., arXiv:2104.09864). */
export const lowerRotaryEmbedding: OpsetRule = {
  operators: ["RotaryEmbedding"],
  since: 23,
  needsTypes: true,
  convert: (node, context) => {
    const { g } = context;
    const [input = "", cosines = "", sines = "", positions = ""] = node.input;
    const heads = intOf(node, "num_heads", 0);
    const rank = rankOf(context, input) ?? (heads > 0 ? 3 : 4);
    if (rank === 3 && heads === 0) throw new CannotConvert("has an input of rank 3 but no number of heads");
    const x = rank === 3 ? splitHeads(g, input, heads) : input;
    // (batch, 1, length, half of the rotated features)
    const angles = (cache: string) => g.unsqueeze(positions ? g.gather(cache, positions) : cache, [1]);
    const [cos, sin] = [angles(cosines), angles(sines)];

    const rotatedSize = intOf(node, "rotary_embedding_dim", 0);
    const end = 2 ** 31 - 1;
    const rotating = rotatedSize > 0 ? g.slice(x, [0], [rotatedSize], [-1]) : x;
    const interleaved = intOf(node, "interleaved", 0) === 1;
    const halves = interleaved
      ? g.node("Split", [g.reshape(rotating, [0, 0, 0, -1, 2])], {
          outputs: 2,
          attributes: { axis: -1, num_outputs: 2 },
        })
      : g.node("Split", [rotating], { outputs: 2, attributes: { axis: -1, num_outputs: 2 } });
    const [first, second] = halves.map((half) => (interleaved ? g.squeeze(half, [-1]) : half)) as [string, string];
    const real = g.sub(g.mul(cos, first), g.mul(sin, second));
    const imaginary = g.add(g.mul(sin, first), g.mul(cos, second));
    const rotated = interleaved
      ? g.reshape(g.concat([g.unsqueeze(real, [-1]), g.unsqueeze(imaginary, [-1])], -1), [0, 0, 0, -1])
      : g.concat([real, imaginary], -1);
    const whole = rotatedSize > 0 ? g.concat([rotated, g.slice(x, [rotatedSize], [end], [-1])], -1) : rotated;
    if (rank === 3) mergeHeads(g, whole, node.output);
    else g.node("Identity", [whole], { outputs: node.output });
    return undefined;
  },
};
