/** Families on two points (counting measure): Z = 1 and E[y] = ŷ, so the paper's score and the centred one agree. */
import type { GraphBuilder } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import { divided, type Family } from "./family.js";
import { coin } from "./random.js";
import { logistic, softplus } from "./special.js";

/** y ∈ {0, 1} with P(1) = σ(a): the paper's family of the sigmoid. */
export function bernoulli(): Family {
  return twoPoints("bernoulli", 0, 1);
}

/** y ∈ {−1, 1} with P(1) = σ(2a), so that E[y] = tanh(a). Not the paper's choice for tanh. */
export function tanhTwoPoint(): Family {
  return twoPoints("tanh_two_point", -1, 1);
}

/** y ∈ {low, high} with P(high) = σ((high − low)·a). */
function twoPoints(name: string, low: number, high: number): Family {
  const gap = high - low;
  /** P(y = high): linear in ŷ. */
  const chance = (b: GraphBuilder, a: string, activation: string | undefined): string => {
    if (gap === 1) return activation ?? b.op("Sigmoid", [a]);
    return b.op("Sigmoid", [b.mul(a, b.f32(gap))]);
  };
  const probability = (a: number) => logistic(gap * a);
  const activation = (a: number) => low + gap * probability(a);
  const variance = (a: number) => gap ** 2 * logistic(gap * a) * logistic(-gap * a);
  return {
    name,
    parameters: {},
    residual: (b, input) =>
      b.scope(name, () => {
        const p = chance(b, input.a, input.activation);
        const shape = b.shape(input.a);
        if (input.draw === "two-point") {
          const deviation = b.sqrt(b.mul(p, b.sub(b.f32(1), p)));
          const signed = b.mul(deviation, coin(b, input.random, shape));
          return divided(b, gap === 1 ? signed : b.mul(signed, b.f32(gap)), input);
        }
        const y = b.cast(b.less(input.random.uniform(b, shape), p), DataType.FLOAT);
        const residual = b.sub(y, p);
        return divided(b, gap === 1 ? residual : b.mul(residual, b.f32(gap)), input);
      }),
    moments: (b, input) =>
      b.scope(name, () => {
        const p = chance(b, input.a, input.activation);
        const spread = b.mul(p, b.sub(b.f32(1), p));
        if (gap === 1) return { mean: p, variance: spread };
        const mean = input.activation ?? b.add(b.mul(p, b.f32(gap)), b.f32(low));
        return { mean, variance: b.mul(spread, b.f32(gap ** 2)) };
      }),
    logDensity: (b, { y, a }) =>
      b.scope(name, () => {
        // −softplus(∓gap·a) = min(±gap·a, 0) − log(1 + exp(−|gap·a|)).
        const t = b.mul(a, b.f32(gap));
        const isHigh = b.equal(y, b.f32(high));
        const signed = b.where(isHigh, t, b.neg(t));
        const log = b.sub(b.min(signed, b.f32(0)), b.log(b.add(b.exp(b.neg(b.abs(t))), b.f32(1))));
        const impossible = b.where(b.equal(y, b.f32(low)), log, b.f32(Number.NEGATIVE_INFINITY));
        return b.where(isHigh, log, impossible);
      }),
    scalar: {
      support: [low, high],
      points: [low, high],
      activation,
      logDensity: (y, a) =>
        y === high ? -softplus(-gap * a) : y === low ? -softplus(gap * a) : Number.NEGATIVE_INFINITY,
      mean: activation,
      variance,
      quantile: (u, a) => (u <= logistic(-gap * a) ? low : high),
    },
  };
}
