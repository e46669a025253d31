/** Operators that got another name, or a default that differs from what they did before. */
import { attributesFrom } from "../attributes.js";
import { withFields } from "../codec.js";
import type { OpsetRule } from "./rule.js";

export const scatter: OpsetRule = {
  operators: ["Scatter"],
  since: 11,
  convert: (node) => withFields(node, { opType: "ScatterElements" }),
};

/** Opset 16 shifts the coordinates by half a pixel unless told not to. */
export const roiAlign: OpsetRule = {
  operators: ["RoiAlign"],
  since: 16,
  convert: (node) =>
    withFields(node, {
      attribute: [...node.attribute, ...attributesFrom({ coordinate_transformation_mode: "output_half_pixel" })],
    }),
};
