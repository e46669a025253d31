/** The family of Celu on [−α, ∞). */

import { exponentialLinearDivergence } from "./divergences.js";
import { exponentialLinear } from "./exponential-linear.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

/** @param alpha > 0 */
export function celu(alpha = 1): Family {
  return tableFamily({
    name: "celu",
    parameters: { alpha },
    density: exponentialLinear({ gain: 1, depth: alpha, width: alpha }),
    divergence: exponentialLinearDivergence(1, alpha, alpha),
    layout: { scale: Math.max(3, 2.5 * alpha), spread: "below", base: "activation" },
    // Primitives: CUDA and WebGPU have no Celu.
    activation: (b, a) => {
      const below = b.sub(b.exp(b.mul(b.min(a, b.f32(0)), b.f32(1 / alpha))), b.f32(1));
      return b.add(b.op("Relu", [a]), b.mul(below, b.f32(alpha)));
    },
  });
}
