/** Normalisations newer than opset 18. */
import { float, floatOf, intOf } from "../attributes.js";
import { DataType } from "../proto.js";
import { CannotConvert, type ConversionContext, type OpsetRule, rankOf, scalarLike } from "./rule.js";

/** Casts to the `stash_type` that a normalisation computes in, where it differs, and says how to come back. */
function stashed(
  context: ConversionContext,
  x: string,
  stashType: number,
): { value: string; type: DataType | undefined; back: (value: string) => string } {
  const type = context.typeOf(x)?.elemType;
  const isHalf = type === DataType.FLOAT16 || type === DataType.BFLOAT16;
  if (!isHalf || stashType !== DataType.FLOAT) return { value: x, type, back: (value) => value };
  const { g } = context;
  return { value: g.cast(x, DataType.FLOAT), type: DataType.FLOAT, back: (value) => g.cast(value, type) };
}

/**
 * From opset 21 on scale and bias are per channel (opset 18: per group). Each group of channels is normalised as one
 * instance; the rest is elementwise.
 */
export const lowerGroupNormalization: OpsetRule = {
  operators: ["GroupNormalization"],
  since: 21,
  needsTypes: true,
  convert: (node, context) => {
    const { g } = context;
    const [x, scale, bias] = node.input as [string, string, string];
    const groups = intOf(node, "num_groups", 1);
    const stash = stashed(context, x, intOf(node, "stash_type", DataType.FLOAT));
    const flat = g.reshape(stash.value, [0, groups, -1]);
    const ones = scalarLike(context, stash.value, new Array(groups).fill(1), stash.type);
    const zeros = scalarLike(context, stash.value, new Array(groups).fill(0), stash.type);
    const epsilon = float(floatOf(node, "epsilon", 1e-5));
    const normalised = stash.back(g.op("InstanceNormalization", [flat, ones, zeros], { epsilon }));
    const perChannel = g.reshape(normalised, g.shape(g.reshape(x, [0, 0, -1])));
    const scaled = g.add(g.mul(perChannel, g.unsqueeze(scale, [1])), g.unsqueeze(bias, [1]));
    g.node("Reshape", [scaled, g.shape(x)], { outputs: node.output });
    return undefined;
  },
};

/** x / √(mean(x²) + ε) · scale over the axes from `axis` on (B. Zhang and R. Sennrich, arXiv:1910.07467). */
export const lowerRmsNormalization: OpsetRule = {
  operators: ["RMSNormalization"],
  since: 23,
  needsTypes: true,
  convert: (node, context) => {
    const { g } = context;
    const [x, scale] = node.input as [string, string];
    const axis = intOf(node, "axis", -1);
    const rank = rankOf(context, x);
    if (axis >= 0 && rank === undefined) {
      throw new CannotConvert(`normalises from axis ${axis} on, of a tensor whose rank is not known here`);
    }
    const first = axis < 0 ? axis : axis - (rank as number);
    const axes = Array.from({ length: -first }, (_, i) => first + i);
    const stash = stashed(context, x, intOf(node, "stash_type", DataType.FLOAT));
    const meanSquare = g.reduce("ReduceMean", g.mul(stash.value, stash.value), axes, true);
    const epsilon = scalarLike(context, stash.value, floatOf(node, "epsilon", 1e-5), stash.type);
    const normalised = stash.back(g.div(stash.value, g.sqrt(g.add(meanSquare, epsilon))));
    g.node("Mul", [normalised, scale], { outputs: node.output });
    return undefined;
  },
};
