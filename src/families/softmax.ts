/** The categorical family of softmax: y is one-hot, P(y_k = 1) = p_k; E[y] = p, cov = diag(p) − p pᵀ. */
import type { GraphBuilder } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import { divided, type Family, type SampleInput } from "./family.js";
import { coin } from "./random.js";

export interface SoftmaxOptions {
  /** The class axis; negative from the end. Default −1. */
  readonly axis?: number;
  /** The activation is log p, as of LogSoftmax. */
  readonly log?: boolean;
}

/** One uniform per row and the inverse of the distribution function; ŷ in `activation` is p, or log p with `log`. */
export function softmax({ axis = -1, log = false }: SoftmaxOptions = {}): Family {
  const probabilities = (b: GraphBuilder, { a, activation }: Pick<SampleInput, "a" | "activation">): string => {
    if (activation === undefined) return b.op("Softmax", [a], { axis });
    return log ? b.exp(activation) : activation;
  };
  return {
    name: "softmax",
    parameters: { axis },
    residual: (b, input) =>
      b.scope("softmax", () => {
        const p = probabilities(b, input);
        const residual = input.draw === "two-point" ? twoPoint(b, p, axis, input) : b.sub(oneHot(b, p, axis, input), p);
        return divided(b, residual, input);
      }),
    moments: (b, input) =>
      b.scope("softmax", () => {
        const p = probabilities(b, input);
        return { mean: p, variance: b.mul(p, b.sub(b.f32(1), p)) };
      }),
    logDensity: (b, { y, a }) =>
      b.scope("softmax", () => {
        const shifted = b.sub(a, b.reduce("ReduceMax", a, [axis], true));
        // Picked by Where: 0·(−∞) of a masked class would be NaN.
        const picked = b.where(b.greater(y, b.f32(0)), shifted, b.f32(0));
        const log = b.sub(b.reduceSum(picked, [axis], true), b.log(b.reduceSum(b.exp(shifted), [axis], true)));
        // Only one-hot vectors have both 1 as their largest entry and Σ|y_k| = 1.
        const [one, never] = [b.f32(1), b.f32(Number.NEGATIVE_INFINITY)];
        const reachesOne = b.equal(b.reduce("ReduceMax", y, [axis], true), one);
        const sumsToOne = b.equal(b.reduceSum(b.abs(y), [axis], true), one);
        return b.where(reachesOne, b.where(sumsToOne, log, never), never);
      }),
  };
}

/** y_k = [t ≤ c_k] − [t ≤ c_{k−1}] with c the running sum of p and t = u·c_K: exactly one 1 a row, whatever the rounding. */
function oneHot(b: GraphBuilder, p: string, axis: number, { random }: SampleInput): string {
  const cumulative = b.op("CumSum", [p, b.constant(DataType.INT32, axis)]);
  const total = b.slice(cumulative, [-1], [Number.MAX_SAFE_INTEGER], [axis]);
  const threshold = b.mul(random.uniform(b, b.shape(total)), total);
  const reached = b.cast(b.op("LessOrEqual", [threshold, cumulative]), DataType.FLOAT);
  const before = b.slice(reached, [0], [-1], [axis]);
  const zero = b.mul(total, b.f32(0));
  return b.sub(reached, b.concat([zero, before], axis));
}

/**
 * √p∘ε − p·Σ√p ε with ε a coin per class: its covariance is (D^½ − p qᵀ)(D^½ − q pᵀ) = D − p pᵀ with D = diag p, q = √p.
 */
function twoPoint(b: GraphBuilder, p: string, axis: number, { random }: SampleInput): string {
  const signed = b.mul(b.sqrt(p), coin(b, random, b.shape(p)));
  return b.sub(signed, b.mul(p, b.reduceSum(signed, [axis], true)));
}
