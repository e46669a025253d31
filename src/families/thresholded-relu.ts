/** The family of ThresholdedRelu on [0, ∞). f jumps at α, so F* has the slope α on [0, α]: an exponential piece, then a Gaussian one. */
import { float } from "../onnx/attributes.js";
import { fenchelYoung } from "./density.js";
import { thresholdedDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

/** @param alpha > 0 */
export function thresholdedRelu(alpha = 1): Family {
  return tableFamily({
    name: "thresholded_relu",
    parameters: { alpha },
    density: {
      support: [0, Number.POSITIVE_INFINITY],
      kinks: [alpha],
      activation: (a) => (a > alpha ? a : 0),
      divergence: fenchelYoung(
        (y) => (y <= alpha ? alpha * y : (y * y + alpha * alpha) / 2),
        (a) => (a > alpha ? (a * a - alpha * alpha) / 2 : 0),
      ),
    },
    divergence: thresholdedDivergence(alpha),
    layout: { scale: 2, shift: alpha, spread: "below", base: "rectified" },
    activation: (b, a) => b.op("ThresholdedRelu", [a], { alpha: float(alpha) }),
  });
}
