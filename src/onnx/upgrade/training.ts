/** Dropout and BatchNormalization: how they say that they train. */
import { attributesFrom, floatOf } from "../attributes.js";
import { withFields } from "../codec.js";
import { CannotConvert, type OpsetRule } from "./rule.js";

/**
 * The ratio became an input; without `training_mode` Dropout still passes its data through. What its mask holds then
 * was open until opset 11.
 */
export const dropoutRatio: OpsetRule = {
  operators: ["Dropout"],
  since: 12,
  convert: (node, { g, isUsed }) => {
    const [y = "", mask = ""] = node.output;
    if (mask && isUsed(mask)) {
      throw new CannotConvert(
        `gives its mask '${mask}' away, which has no defined value before opset 12; export with opset 12 or newer`,
      );
    }
    return withFields(node, {
      input: [node.input[0] as string, g.f32(floatOf(node, "ratio", 0.5))],
      output: [y],
      attribute: [],
    });
  },
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
