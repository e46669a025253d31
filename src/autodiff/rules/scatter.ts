/** ScatterElements (and Scatter) and ScatterND. */
import { intOf, stringOf } from "../../onnx/attributes.js";
import type { GradientRule } from "../rule.js";
import { zerosLike } from "../shapes.js";
import { scatterExtremum, scatterProduct } from "./scatter-reduce.js";

function alongAxis(opType: string): GradientRule {
  return {
    opType,
    notes: "duplicate indices with reduction none are undefined, as in ONNX",
    gradient: (c) => {
      const axis = intOf(c.node, "axis", 0);
      const reduction = stringOf(c.node, "reduction", "none");
      if (reduction === "mul") return scatterProduct(c, axis);
      if (reduction === "max" || reduction === "min") return scatterExtremum(c, axis);
      return {
        0: () => {
          if (reduction === "add") return c.cotangent();
          return c.b.op("ScatterElements", [c.cotangent(), c.input(1), zerosLike(c, c.input(2))], { axis });
        },
        2: () => c.b.op("GatherElements", [c.cotangent(), c.input(1)], { axis }),
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
    const reduction = stringOf(c.node, "reduction", "none");
    if (reduction !== "none" && reduction !== "add") {
      throw c.error(`has the reduction '${reduction}', which has no gradient; ScatterElements has it`);
    }
    return {
      0: () => {
        if (reduction === "add") return c.cotangent();
        return c.b.op("ScatterND", [c.cotangent(), c.input(1), zerosLike(c, c.input(2))]);
      },
      2: () => c.b.op("GatherND", [c.cotangent(), c.input(1)]),
    };
  },
};
