/** ScatterElements (and Scatter) and ScatterND, setting or adding. */
import { intOf, stringOf } from "../../onnx/attributes.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { zerosLike } from "../shapes.js";

function reduction(c: GradientContext): "none" | "add" {
  const kind = stringOf(c.node, "reduction", "none");
  if (kind !== "none" && kind !== "add") {
    throw c.error(`has the reduction '${kind}', which has no gradient; 'none' and 'add' have`);
  }
  return kind;
}

function alongAxis(opType: string): GradientRule {
  return {
    opType,
    notes: "reduction none or add; duplicate indices with none are undefined, as in ONNX",
    gradient: (c) => {
      const attributes = { axis: intOf(c.node, "axis", 0) };
      const sets = reduction(c) === "none";
      return {
        0: () => {
          if (!sets) return c.cotangent();
          return c.b.op("ScatterElements", [c.cotangent(), c.input(1), zerosLike(c, c.input(2))], attributes);
        },
        2: () => c.b.op("GatherElements", [c.cotangent(), c.input(1)], attributes),
      };
    },
  };
}

export const scatterElements = alongAxis("ScatterElements");
export const scatter = alongAxis("Scatter");

export const scatterND: GradientRule = {
  opType: "ScatterND",
  notes: "reduction none or add",
  gradient: (c) => {
    const sets = reduction(c) === "none";
    return {
      0: () => {
        if (!sets) return c.cotangent();
        return c.b.op("ScatterND", [c.cotangent(), c.input(1), zerosLike(c, c.input(2))]);
      },
      2: () => c.b.op("GatherND", [c.cotangent(), c.input(1)]),
    };
  },
};
