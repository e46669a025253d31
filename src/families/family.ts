/**
 * What a family is: the Bregman exponential family p(y|ŷ) ∝ exp(−D_F*(y, ŷ)) ∝ exp(a·y − F*(y)) of an activation
 * ŷ = f(a), F' = f, F* the conjugate of F (Peirson et al., Fishy, 2022, section 3).
 */
import type { GraphBuilder, ValueType } from "../onnx/builder.js";

/** `paper`: y − ŷ. `centred`: y − E[y], the exact score of the family. */
export type Score = "paper" | "centred";

/**
 * `exact`: y drawn from the family. `fast`: one of 16 equally likely values with the family's mean and variance (Gaussian: a
 * normal number) by random numbers of which any two are uncorrelated, not any three independent; `exact` where a family has no such
 * table. `two-point`: y = E[y] ± sd(y), the sign by a coin; same mean and variance.
 */
export type Draw = "exact" | "fast" | "two-point";

/** Draws random numbers inside the graph; every call is a stream of its own. */
export interface RandomSource {
  /** float32 in (0, 1), of the shape that the int64 vector `shape` holds. */
  uniform(b: GraphBuilder, shape: string): string;
  /** uint32 in [0, 2^bits), of the shape that the int64 vector `shape` holds; the fewer bits, the cheaper. */
  integers(b: GraphBuilder, shape: string, bits: number): string;
}

/** Random numbers for the fast draws of one boundary, cheaper than a stream's. */
export interface PooledRandom {
  /** `LEVEL_STEP`·level + fraction, float32 of the boundary's shape; level in [0, 2·LEVELS), equally likely modulo LEVELS. */
  levels(): string;
  /** Standard normal numbers, divided by a float32 scalar where one is given; of the boundary's shape. */
  normals(divisor?: string): string;
}

export interface SampleInput {
  /** The pre-activation (float32, any shape). Samplers never use ŷ in its place: ŷ saturates and f need not be injective. */
  readonly a: string;
  readonly type: ValueType;
  /** ŷ = f(a) where the graph already has it (log p after a LogSoftmax); emitted by the family otherwise. */
  readonly activation?: string;
  readonly random: RandomSource;
  /** For fast draws, which are exact ones without it. */
  readonly pool?: PooledRandom;
  readonly score: Score;
  readonly draw: Draw;
  /** A float32 scalar that the residual is divided by, where that is cheapest; 1 by default. */
  readonly divisor?: string;
}

/** The residual divided by its input's divisor. */
export function divided(b: GraphBuilder, residual: string, { divisor }: Pick<SampleInput, "divisor">): string {
  return divisor === undefined ? residual : b.div(residual, divisor);
}

/** Where a density is wanted; `y` has the shape of `a`. */
export interface DensityInput {
  readonly y: string;
  /** The pre-activation (float32). */
  readonly a: string;
  readonly type: ValueType;
}

/** Names of the values in the graph that hold E[y] and Var[y], elementwise and of the shape of the pre-activation. */
export interface Moments {
  readonly mean: string;
  readonly variance: string;
}

/** One family with its parameters fixed. */
export interface Family {
  /** Such as `tanh`, `leaky_relu`, `bernoulli`, `softmax`. */
  readonly name: string;
  /** Such as `{ alpha: 0.1 }`. */
  readonly parameters: Readonly<Record<string, number>>;
  /** Emits the residual y − ŷ (or y − E[y]) of one draw per element, over the divisor; the shape of `a`. */
  residual(b: GraphBuilder, input: SampleInput): string;
  /** Emits E[y] and Var[y] per element; for softmax, the mean and the diagonal of the covariance. */
  moments(b: GraphBuilder, input: Pick<SampleInput, "a" | "type" | "activation">): Moments;
  /**
   * Emits log p(y | a), normalised, per element: −∞ outside the support. For softmax, of one-hot `y`: log p of the class
   * that is 1, with the class axis of size 1; −∞ where `y` is not one-hot.
   */
  logDensity(b: GraphBuilder, input: DensityInput): string;
  /** The same in plain TypeScript (float64), for tests and pictures; absent for vector-valued families. */
  readonly scalar?: ScalarFamily;
}

/** Density and moments of a family on the real line. */
export interface ScalarFamily {
  readonly support: readonly [number, number];
  /** Point masses instead of a density (Bernoulli): the support points. */
  readonly points?: readonly number[];
  /** f(a). */
  activation(a: number): number;
  /** log p(y | a), normalised. */
  logDensity(y: number, a: number): number;
  /** E[y | a]. */
  mean(a: number): number;
  /** Var[y | a]. */
  variance(a: number): number;
  /** The quantile at u in (0, 1): one uniform makes one draw. */
  quantile(u: number, a: number): number;
}
