/** Dropout and BatchNormalization: how they say that they train. */
import { attributesFrom, floatOf } from "../attributes.js";
import { withFields } from "../codec.js";
import { CannotConvert, type OpsetRule } from "./rule.js";

/** Until opset 9 Dropout's mask has the type of its data. */
export const dropoutMask: OpsetRule = {
  operators: ["Dropout"],
  since: 10,
  needsTypes: true,
  convert: (node, context) => {
    const [y = "", mask = ""] = node.output;
    if (!mask || !context.isUsed(mask)) return withFields(node, { output: [y] });
    const type = context.typeOf(mask);
    if (!type) throw new CannotConvert("has a mask of unknown type; export with opset 12 or newer");
    const { g } = context;
    const bits = g.unique(`${mask}_bits`);
    g.graph.node.push(withFields(node, { output: [y, bits] }));
    g.node("Cast", [bits], { outputs: [mask], attributes: { to: type.elemType } });
    return undefined;
  },
};

/** The ratio became an input; without `training_mode` Dropout still passes its data through. */
export const dropoutRatio: OpsetRule = {
  operators: ["Dropout"],
  since: 12,
  convert: (node, { g }) =>
    withFields(node, {
      input: [node.input[0] as string, g.f32(floatOf(node, "ratio", 0.5))],
      attribute: [],
    }),
};

/**
 * Until opset 13 BatchNormalization trains when it has more than one output: running mean and variance, then the
 * batch's own. From opset 14 on an attribute says so, and only the running statistics are outputs.
 */
export const batchNormalizationMode: OpsetRule = {
  operators: ["BatchNormalization"],
  since: 14,
  convert: (node, { isUsed }) => {
    const [y = "", mean = "", variance = "", ...saved] = node.output;
    if (!node.output.slice(1).some(Boolean)) return withFields(node, { output: [y] });
    const used = saved.filter((name) => name && isUsed(name));
    if (used.length > 0) {
      throw new CannotConvert(
        `gives the statistics of its batch as '${used.join("', '")}', which opset 14 removed; export with opset 14 or newer`,
      );
    }
    return withFields(node, {
      output: [y, mean, variance],
      attribute: [...node.attribute, ...attributesFrom({ training_mode: 1 })],
    });
  },
};
