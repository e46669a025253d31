/** The family of Clip (HardTanh, Relu6): N(a, 1) truncated to [min, max]. */
import { clippedLinear } from "./clipped-linear.js";
import type { Family } from "./family.js";
import { gaussian } from "./gaussian.js";

/** @param min below `max`; either may be infinite */
export function clip(min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY): Family {
  if (min === Number.NEGATIVE_INFINITY && max === Number.POSITIVE_INFINITY) return gaussian();
  return clippedLinear({
    name: "clip",
    parameters: { ...(Number.isFinite(min) && { min }), ...(Number.isFinite(max) && { max }) },
    slope: 1,
    offset: 0,
    low: min,
    high: max,
    activation: (b, a) =>
      b.op("Clip", [a, Number.isFinite(min) ? b.f32(min) : "", ...(Number.isFinite(max) ? [b.f32(max)] : [])]),
  });
}
