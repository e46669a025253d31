/** The family of Elu on [−α, ∞). */
import { float } from "../onnx/attributes.js";
import { exponentialLinearDivergence } from "./divergences.js";
import { exponentialLinear } from "./exponential-linear.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

/** @param alpha > 0 */
export function elu(alpha = 1): Family {
  return tableFamily({
    name: "elu",
    parameters: { alpha },
    density: exponentialLinear({ gain: 1, depth: alpha, width: 1 }),
    divergence: exponentialLinearDivergence(1, alpha, 1),
    layout: { scale: 3, spread: "below", base: "activation" },
    activation: (b, a) => b.op("Elu", [a], { alpha: float(alpha) }),
  });
}
