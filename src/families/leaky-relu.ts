/** The family of LeakyRelu with a fixed slope: N(αa, α) below 0 and N(a, 1) above, in the proportions of 1.1 of the facts. */
import { float } from "../onnx/attributes.js";
import { fenchelYoung } from "./density.js";
import { leakyDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

/** @param alpha > 0; a slope of 0 is `relu()` */
export function leakyRelu(alpha = 0.01): Family {
  const activation = (a: number) => (a < 0 ? alpha * a : a);
  return tableFamily({
    name: "leaky_relu",
    parameters: { alpha },
    density: {
      support: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
      kinks: [0],
      activation,
      divergence: fenchelYoung(
        (y) => (y * y) / (y < 0 ? 2 * alpha : 2),
        (a) => (a * activation(a)) / 2,
      ),
    },
    divergence: leakyDivergence(alpha),
    layout: {
      scale: Math.min(Math.max(0.5 / Math.sqrt(alpha), 2), 4),
      spread: "none",
      base: "activation",
    },
    activation: (b, a) => b.op("LeakyRelu", [a], { alpha: float(alpha) }),
  });
}
