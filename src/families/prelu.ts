/**
 * The family of PRelu, whose slopes are trained: N(sa, s) below 0 and N(a, 1) above. A table would have to be rebuilt at
 * every step, so draws and moments are closed forms of `a` and the slope tensor.
 */
import { FishyError } from "../errors.js";
import type { GraphBuilder } from "../onnx/builder.js";
import { twoSlopeDivergence } from "./divergences.js";
import { divided, type Family, type SampleInput } from "./family.js";
import { leakyRelu } from "./leaky-relu.js";
import { emitLog } from "./log.js";
import { emitPolynomial, normalQuantileOf } from "./normal.js";
import { coin } from "./random.js";

/** Slopes below this are sampled as if they were this: the family's limit is Relu's, and it ends at 0. */
const SMALLEST_SLOPE = 1e-4;
/** Beyond this the squares in the exponents would overflow; the family no longer changes. */
const LARGEST_ARGUMENT = 1e4;
const ROOT_TWO_PI = Math.sqrt(2 * Math.PI);

/** Mills' ratio R(t) = Φ(−t)/φ(t) on t ≥ 0, relative error 1.5e-6. */
const MILLS = {
  numerator: [1.25331226, 0.979852693, 0.343068163, 0.053540463],
  denominator: [1, 1.57962769, 1.03455187, 0.343035361, 0.053540683],
};
/** Mean overshoot of a standard normal beyond t ≥ 0, g(t) = 1/R(t) − t, relative error 2.6e-6. */
const OVERSHOOT_MEAN = {
  numerator: [0.79788253, 0.480917943, 0.138711698, 0.0188140234],
  denominator: [1, 1.05808481, 0.519568583, 0.138686689, 0.0188141747],
};
/** Variance of the overshoot, relative error 1.6e-6. */
const OVERSHOOT_VARIANCE = {
  numerator: [0.363380815, 0.183546851, 0.045923479, 0.00587975929],
  denominator: [1, 1.10513254, 0.631104292, 0.219192453, 0.0459162533, 0.00587979707],
};
/** From here on the overshoot is drawn from its tail expansion, where Φ would lose its digits. */
const TAIL = 2.75;
const TAIL_FIT = [2.43223763, 1.02121455, 0.87954316] as const;

function ratio(b: GraphBuilder, fit: { numerator: readonly number[]; denominator: readonly number[] }, x: string) {
  return b.div(emitPolynomial(b, fit.numerator, x), emitPolynomial(b, fit.denominator, x));
}

/** @param slope the slope tensor's name in the graph, broadcast as ONNX's PRelu does, or one fixed slope > 0 */
export function prelu(slope: string | number): Family {
  if (typeof slope === "number" && !(slope > 0)) {
    throw new FishyError(`prelu: a slope must be positive for the family to exist; found ${slope}.`);
  }
  const scalar = typeof slope === "number" ? leakyRelu(slope).scalar : undefined;
  const start = (b: GraphBuilder, a: string) => new TwoPieces(b, a, typeof slope === "number" ? b.f32(slope) : slope);
  return {
    name: "prelu",
    parameters: typeof slope === "number" ? { slope } : {},
    residual: (b, input) =>
      b.scope("prelu", () => {
        const pieces = start(b, input.a);
        if (input.draw !== "two-point") {
          const y = pieces.draw(input);
          const mode = pieces.activation();
          return divided(b, b.sub(y, input.score === "centred" ? b.add(mode, pieces.bias()) : mode), input);
        }
        const deviation = b.mul(b.sqrt(pieces.variance()), coin(b, input.random, b.shape(input.a)));
        return divided(b, input.score === "centred" ? deviation : b.add(deviation, pieces.bias()), input);
      }),
    moments: (b, { a }) =>
      b.scope("prelu", () => {
        const pieces = start(b, a);
        return { mean: b.add(pieces.activation(), pieces.bias()), variance: pieces.variance() };
      }),
    logDensity: (b, { y, a }) => b.scope("prelu", () => start(b, a).logDensity(y)),
    ...(scalar && { scalar }),
  };
}

/** Weights and conditional moments of the pieces y < 0 and y ≥ 0, free of overflow for every `a`. */
class TwoPieces {
  private readonly a: string;
  private readonly slope: string;
  private readonly root: string;
  private readonly isNegative: string;
  /** |a| and √s·|a|, their exponentials e^(−x²/2), and Mills' ratios there. */
  private readonly upper: { x: string; exp: string; mills: string };
  private readonly lower: { x: string; exp: string; mills: string };
  /** √(2π)·Φ of the larger part of each piece's normal. */
  private readonly upperRest: string;
  private readonly lowerRest: string;
  private readonly weightNegative: string;
  private readonly weightSum: string;

  constructor(
    private readonly b: GraphBuilder,
    a: string,
    slope: string,
  ) {
    this.a = b.op("Clip", [a, b.f32(-LARGEST_ARGUMENT), b.f32(LARGEST_ARGUMENT)]);
    this.slope = b.max(slope, b.f32(SMALLEST_SLOPE));
    this.root = b.sqrt(this.slope);
    this.isNegative = b.less(this.a, b.f32(0));
    const at = (x: string) => ({
      x,
      exp: b.exp(b.mul(b.mul(x, x), b.f32(-0.5))),
      mills: ratio(b, MILLS, x),
    });
    this.upper = at(b.abs(this.a));
    this.lower = at(b.mul(this.upper.x, this.root));
    const { upper, lower } = this;
    this.upperRest = b.sub(b.f32(ROOT_TWO_PI), b.mul(upper.mills, upper.exp));
    this.lowerRest = b.sub(b.f32(ROOT_TWO_PI), b.mul(lower.mills, lower.exp));
    this.weightNegative = b.mul(this.root, this.where(this.lowerRest, b.mul(lower.mills, upper.exp)));
    const weightPositive = this.where(b.mul(upper.mills, lower.exp), this.upperRest);
    this.weightSum = b.add(this.weightNegative, weightPositive);
  }

  private where(ifNegative: string, otherwise: string): string {
    return this.b.where(this.isNegative, ifNegative, otherwise);
  }

  private chanceNegative(): string {
    return this.b.div(this.weightNegative, this.weightSum);
  }

  activation(): string {
    const { b } = this;
    return this.where(b.mul(this.a, this.slope), this.a);
  }

  /** One uniform picks the piece and, rescaled, the position in it. */
  draw({ random }: SampleInput): string {
    const { b, upper, lower } = this;
    const u = random.uniform(b, b.shape(this.a));
    const one = b.f32(1);
    const chance = this.chanceNegative();
    const below = b.less(u, chance);
    const survival = b.op("Clip", [
      b.where(
        below,
        b.div(u, b.max(chance, b.f32(1e-30))),
        b.div(b.sub(one, u), b.max(b.sub(one, chance), b.f32(1e-30))),
      ),
      b.f32(2 ** -24),
      one,
    ]);
    const threshold = b.where(below, b.mul(this.a, this.root), b.neg(this.a));
    const mass = b.where(
      below,
      this.where(this.lowerRest, b.mul(lower.mills, lower.exp)),
      this.where(b.mul(upper.mills, upper.exp), this.upperRest),
    );
    const share = b.mul(b.mul(survival, mass), b.f32(1 / ROOT_TWO_PI));
    const central = b.max(b.sub(b.neg(normalQuantileOf(b, b.max(share, b.f32(1e-10)))), threshold), b.f32(0));
    const isTail = b.greater(threshold, b.f32(TAIL));
    const overshoot = b.where(isTail, this.tailOvershoot(threshold, survival), central);
    return b.mul(b.where(below, b.neg(this.root), one), overshoot);
  }

  /** The overshoot of a standard normal past t ≥ 2.75 whose survival probability is `survival`. */
  private tailOvershoot(threshold: string, survival: string): string {
    const { b } = this;
    const t = b.max(threshold, b.f32(TAIL));
    const s = b.neg(emitLog(b, survival));
    const square = b.mul(t, t);
    const fit = b.add(b.add(b.mul(square, b.f32(TAIL_FIT[1])), b.f32(TAIL_FIT[0])), b.mul(s, b.f32(TAIL_FIT[2])));
    const corrected = b.sub(s, b.div(s, fit));
    const twice = b.add(corrected, corrected);
    return b.div(twice, b.add(t, b.sqrt(b.add(square, twice))));
  }

  /** Z = e^(−F)·(w₊ + w₋) is what the weights sum to. */
  logDensity(y: string): string {
    const { b } = this;
    return b.neg(b.add(twoSlopeDivergence(b, y, this.a, this.slope), b.log(this.weightSum)));
  }

  /** E[y] − f(a) = (1 − s)·(p(0) − |a|·P(the piece across 0)), in which 1 − xR(x) = R(x)·g(x). */
  bias(): string {
    const { b, upper, lower } = this;
    const gap = (side: { x: string; mills: string }) => b.mul(side.mills, ratio(b, OVERSHOOT_MEAN, side.x));
    const density = this.where(b.mul(lower.exp, gap(upper)), b.mul(upper.exp, gap(lower)));
    return b.mul(b.sub(b.f32(1), this.slope), b.div(density, this.weightSum));
  }

  /** The law of total variance over the two pieces. */
  variance(): string {
    const { b, upper, lower, slope, root } = this;
    const one = b.f32(1);
    // Inverse Mills ratios of the piece that holds the bulk, where t = −x.
    const hazard = (side: { exp: string }, rest: string) => b.div(side.exp, rest);
    const upperHazard = hazard(upper, this.upperRest);
    const lowerHazard = hazard(lower, this.lowerRest);
    const bulkMean = (side: { x: string }, lambda: string) => b.add(lambda, side.x);
    const bulkVariance = (side: { x: string }, lambda: string) => b.sub(one, b.mul(lambda, bulkMean(side, lambda)));

    const positiveMean = this.where(ratio(b, OVERSHOOT_MEAN, upper.x), bulkMean(upper, upperHazard));
    const positiveVariance = this.where(ratio(b, OVERSHOOT_VARIANCE, upper.x), bulkVariance(upper, upperHazard));
    const negativeMean = b.mul(root, this.where(bulkMean(lower, lowerHazard), ratio(b, OVERSHOOT_MEAN, lower.x)));
    const negativeVariance = b.mul(
      slope,
      this.where(bulkVariance(lower, lowerHazard), ratio(b, OVERSHOOT_VARIANCE, lower.x)),
    );
    const p = this.chanceNegative();
    const q = b.sub(one, p);
    const apart = b.add(positiveMean, negativeMean);
    const within = b.add(b.mul(p, negativeVariance), b.mul(q, positiveVariance));
    return b.add(within, b.mul(b.mul(p, q), b.mul(apart, apart)));
  }
}
