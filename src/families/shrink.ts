/** The family of Shrink: f(a) = a ∓ bias beyond ±lambd and 0 between, non-decreasing when bias ≤ lambd. */
import { float } from "../onnx/attributes.js";
import { fenchelYoung } from "./density.js";
import { shrinkDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

/** @param lambd ≥ 0 @param bias ≤ lambd */
export function shrink(lambd = 0.5, bias = 0): Family {
  const activation = (a: number) => (a > lambd ? a - bias : a < -lambd ? a + bias : 0);
  const edge = lambd - bias;
  const conjugate = (y: number) => {
    const size = Math.abs(y);
    if (size <= edge) return lambd * size;
    return lambd * edge + (size * size - edge * edge) / 2 + bias * (size - edge);
  };
  return tableFamily({
    name: "shrink",
    parameters: { lambd, bias },
    density: {
      support: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
      kinks: [-edge, 0, edge],
      activation,
      divergence: fenchelYoung(conjugate, (a) => {
        const y = activation(a);
        return a * y - conjugate(y);
      }),
    },
    divergence: shrinkDivergence(lambd, bias),
    layout: { scale: 2, spread: "none", base: "identity" },
    activation: (b, a) => b.op("Shrink", [a], { lambd: float(lambd), bias: float(bias) }),
  });
}
