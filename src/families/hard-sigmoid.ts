/** The family of HardSigmoid: N(αa + β, α) truncated to [0, 1]. */
import { float } from "../onnx/attributes.js";
import { clippedLinear } from "./clipped-linear.js";
import type { Family } from "./family.js";

/** @param alpha > 0 */
export function hardSigmoid(alpha = 0.2, beta = 0.5): Family {
  return clippedLinear({
    name: "hard_sigmoid",
    parameters: { alpha, beta },
    slope: alpha,
    offset: beta,
    low: 0,
    high: 1,
    activation: (b, a) => b.op("HardSigmoid", [a], { alpha: float(alpha), beta: float(beta) }),
  });
}
