/** What Elu, Celu and Selu share: f(a) = gain·a above 0 and depth·(exp(a/width) − 1) below. */
import { type ContinuousDensity, fenchelYoung } from "./density.js";

export interface ExponentialLinear {
  /** Slope above 0. */
  readonly gain: number;
  /** −f(−∞). */
  readonly depth: number;
  /** The exponential's unit of `a`. */
  readonly width: number;
}

export function exponentialLinear({ gain, depth, width }: ExponentialLinear): ContinuousDensity {
  return {
    support: [-depth, Number.POSITIVE_INFINITY],
    kinks: [0],
    activation: (a) => (a < 0 ? depth * Math.expm1(a / width) : gain * a),
    divergence: fenchelYoung(
      (y) => {
        if (y >= 0) return (y * y) / (2 * gain);
        const rest = depth + y;
        return rest > 0 ? width * (rest * Math.log1p(y / depth) - y) : width * depth;
      },
      (a) => (a < 0 ? depth * (width * Math.expm1(a / width) - a) : (gain * a * a) / 2),
    ),
  };
}
