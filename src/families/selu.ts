/** The family of Selu on [−γα, ∞). */
import { float } from "../onnx/attributes.js";
import { exponentialLinearDivergence } from "./divergences.js";
import { exponentialLinear } from "./exponential-linear.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

/** ONNX's defaults (Klambauer et al., 2017). */
export const SELU_ALPHA = 1.6732631921768188;
export const SELU_GAMMA = 1.0507010221481323;

/** @param alpha > 0 @param gamma > 0 */
export function selu(alpha = SELU_ALPHA, gamma = SELU_GAMMA): Family {
  return tableFamily({
    name: "selu",
    parameters: alpha === SELU_ALPHA && gamma === SELU_GAMMA ? {} : { alpha, gamma },
    density: exponentialLinear({ gain: gamma, depth: gamma * alpha, width: 1 }),
    divergence: exponentialLinearDivergence(gamma, gamma * alpha, 1),
    layout: { scale: 3, spread: "below", base: "activation" },
    activation: (b, a) => b.op("Selu", [a], { alpha: float(alpha), gamma: float(gamma) }),
  });
}
