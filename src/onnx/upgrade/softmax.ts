/**
 * Softmax, LogSoftmax and Hardmax: before opset 13 they flatten their input to a matrix at `axis` (default 1) and
 * normalise over everything behind it; since then they normalise over `axis` alone (default −1).
 */
import { attributesFrom, intOf } from "../attributes.js";
import { withFields } from "../codec.js";
import { type OpsetRule, rankOf } from "./rule.js";

export const softmaxAxis: OpsetRule = {
  operators: ["Softmax", "LogSoftmax", "Hardmax"],
  since: 13,
  needsTypes: true,
  convert: (node, context) => {
    const { g } = context;
    const x = node.input[0] as string;
    const axis = intOf(node, "axis", 1);
    const rank = rankOf(context, x);
    const isLast = axis === -1 || (rank !== undefined && axis === rank - 1);
    if (isLast) return withFields(node, { attribute: attributesFrom({ axis: -1 }) });
    const flat = g.op("Flatten", [x], { axis });
    const normalised = g.op(node.opType as string, [flat], { axis: 1 });
    g.node("Reshape", [normalised, g.shape(x)], { outputs: node.output });
    return undefined;
  },
};
