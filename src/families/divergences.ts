/**
 * D(y, a) = F*(y) + F(a) − a·y as nodes, in float32 and in forms that keep their digits where F(a) − a·y would cancel.
 * `y` lies in the support. What the files of the families give in float64, term by term.
 */
import type { GraphBuilder } from "../onnx/builder.js";
import { emitPolynomial, normalQuantileOf } from "./normal.js";

/** Emits D(y, a), of the shape of both. */
export type EmitDivergence = (b: GraphBuilder, y: string, a: string) => string;

const ROOT_PI = Math.sqrt(Math.PI);
const ZETA_2 = Math.PI ** 2 / 6;
/** Below any value whose logarithm matters. */
const TINY = 1e-37;

const square = (b: GraphBuilder, x: string) => b.mul(x, x);
const scaled = (b: GraphBuilder, x: string, factor: number) => (factor === 1 ? x : b.mul(x, b.f32(factor)));
const plus = (b: GraphBuilder, x: string, term: number) => (term === 0 ? x : b.add(x, b.f32(term)));
const isBelow = (b: GraphBuilder, x: string, edge: number) => b.less(x, b.f32(edge));
const logOf = (b: GraphBuilder, x: string) => b.log(b.max(x, b.f32(TINY)));
const relu = (b: GraphBuilder, x: string) => b.op("Relu", [x]);

/** x log x, 0 at 0. */
function xLogX(b: GraphBuilder, x: string): string {
  return b.mul(x, logOf(b, x));
}

/** log(1 + exp(−x)) for x ≥ 0. */
function logOnePlusExp(b: GraphBuilder, x: string): string {
  return b.log(plus(b, b.exp(b.neg(x)), 1));
}

/** y·sign a. */
function mirrored(b: GraphBuilder, y: string, a: string): string {
  return b.where(isBelow(b, a, 0), b.neg(y), y);
}

/** |a| − a·y = |a|·(1 − y·sign a) for |y| ≤ 1. */
function tilt(b: GraphBuilder, y: string, a: string): string {
  return b.mul(b.abs(a), b.sub(b.f32(1), mirrored(b, y, a)));
}

export const tanhDivergence: EmitDivergence = (b, y, a) => {
  const one = b.f32(1);
  const conjugate = scaled(b, b.add(xLogX(b, b.add(one, y)), xLogX(b, b.sub(one, y))), 0.5);
  const rest = plus(b, logOnePlusExp(b, scaled(b, b.abs(a), 2)), -Math.LN2);
  return b.add(b.add(conjugate, tilt(b, y, a)), rest);
};

/** The sigmoid's: softplus(a) − a·y = |a|·(y or 1 − y) + log(1 + e^−|a|). */
export const sigmoidDivergence: EmitDivergence = (b, y, a) => {
  const other = b.sub(b.f32(1), y);
  const conjugate = b.add(xLogX(b, y), xLogX(b, other));
  const tilted = b.mul(b.abs(a), b.where(isBelow(b, a, 0), y, other));
  return b.add(b.add(conjugate, tilted), logOnePlusExp(b, b.abs(a)));
};

/** A normal of mean μ = slope·a + offset and variance `slope`, truncated to [low, high]: ((y − μ)² − (ŷ − μ)²)/(2·slope). */
export function truncatedDivergence(slope: number, offset: number, low: number, high: number): EmitDivergence {
  return (b, y, a) => {
    const mean = plus(b, scaled(b, a, slope), offset);
    let nearest = Number.isFinite(low) ? b.max(mean, b.f32(low)) : mean;
    if (Number.isFinite(high)) nearest = b.min(nearest, b.f32(high));
    const sum = b.sub(b.add(y, nearest), scaled(b, mean, 2));
    return scaled(b, b.mul(b.sub(y, nearest), sum), 1 / (2 * slope));
  };
}

/** Two slopes that meet in 0; `slope` is the one below, a tensor's name. On either side of 0 a square, across it a sum of positive terms. */
export function twoSlopeDivergence(b: GraphBuilder, y: string, a: string, slope: string): string {
  const unit = b.f32(1);
  const slopeOf = (x: string) => b.where(isBelow(b, x, 0), slope, unit);
  const [slopeY, slopeA] = [slopeOf(y), slopeOf(a)];
  const same = b.div(square(b, b.sub(y, b.mul(slopeY, a))), scaled(b, slopeY, 2));
  const parts = b.add(b.div(square(b, y), scaled(b, slopeY, 2)), scaled(b, b.mul(slopeA, square(b, a)), 0.5));
  const across = b.sub(parts, b.mul(a, y));
  return b.where(isBelow(b, b.mul(a, y), 0), across, same);
}

export function leakyDivergence(alpha: number): EmitDivergence {
  return (b, y, a) => twoSlopeDivergence(b, y, a, b.f32(alpha));
}

/** Slope `gain` above 0, depth·(exp(a/width) − 1) below. */
export function exponentialLinearDivergence(gain: number, depth: number, width: number): EmitDivergence {
  return (b, y, a) => {
    const [yBelow, aBelow] = [isBelow(b, y, 0), isBelow(b, a, 0)];
    const negativeY = b.min(y, b.f32(0));
    const rest = plus(b, negativeY, depth);
    // F* below 0: width·(rest·log(rest/depth) − y); F below 0: depth·width·(exp(a/width) − 1) − depth·a.
    const conjugate = scaled(b, b.sub(b.mul(rest, logOf(b, scaled(b, rest, 1 / depth))), negativeY), width);
    const decay = scaled(b, plus(b, b.exp(scaled(b, b.min(a, b.f32(0)), 1 / width)), -1), depth * width);
    const squareY = scaled(b, square(b, y), 1 / (2 * gain));
    const squareA = scaled(b, square(b, a), gain / 2);
    const bothBelow = b.sub(b.add(conjugate, decay), b.mul(a, rest));
    const yBelowOnly = b.sub(b.add(conjugate, squareA), b.mul(a, y));
    const aBelowOnly = b.sub(b.sub(b.add(squareY, decay), scaled(b, a, depth)), b.mul(a, y));
    const bothAbove = scaled(b, square(b, b.sub(y, scaled(b, a, gain))), 1 / (2 * gain));
    return b.where(yBelow, b.where(aBelow, bothBelow, yBelowOnly), b.where(aBelow, aBelowOnly, bothAbove));
  };
}

/** Terms of Σ xᵏ/k² that float32 needs on [0, ½]. */
const DILOGARITHM_TERMS = 18;

/** Li₂(x) on [0, 1], above ½ by reflection: Li₂(x) = π²/6 − log x·log(1 − x) − Li₂(1 − x). */
function dilogarithm(b: GraphBuilder, x: string): string {
  const other = b.sub(b.f32(1), x);
  const small = b.min(x, other);
  let sum = b.f32(1 / DILOGARITHM_TERMS ** 2);
  for (let k = DILOGARITHM_TERMS - 1; k >= 1; k--) sum = plus(b, b.mul(sum, small), 1 / k ** 2);
  const series = b.mul(sum, small);
  const reflected = b.sub(b.sub(b.f32(ZETA_2), b.mul(logOf(b, x), logOf(b, other))), series);
  return b.where(b.greater(x, b.f32(0.5)), reflected, series);
}

/** Li₂(−x) = Li₂(x²)/2 − Li₂(x) on [0, 1]. */
function negativeDilogarithm(b: GraphBuilder, x: string): string {
  return b.sub(scaled(b, dilogarithm(b, square(b, x)), 0.5), dilogarithm(b, x));
}

export const softplusDivergence: EmitDivergence = (b, y, a) => {
  const conjugate = dilogarithm(b, b.exp(b.neg(y)));
  const folded = negativeDilogarithm(b, b.exp(b.neg(b.abs(a))));
  const above = b.add(b.add(scaled(b, square(b, b.sub(y, a)), 0.5), conjugate), folded);
  const below = b.sub(b.sub(plus(b, b.add(scaled(b, square(b, y), 0.5), conjugate), -ZETA_2), folded), b.mul(a, y));
  return b.where(isBelow(b, a, 0), below, above);
};

export const softsignDivergence: EmitDivergence = (b, y, a) => {
  const size = b.abs(y);
  const conjugate = b.neg(b.add(size, logOf(b, b.sub(b.f32(1), size))));
  return b.sub(b.add(conjugate, tilt(b, y, a)), b.log(plus(b, b.abs(a), 1)));
};

export const erfDivergence: EmitDivergence = (b, y, a) => {
  // erf⁻¹(y) = Φ⁻¹((1 + y)/2)/√2; at ±1, where it is infinite, F* differs from its limit by 1e-6.
  const u = b.op("Clip", [plus(b, scaled(b, y, 0.5), 0.5), b.f32(2 ** -24), b.f32(1 - 2 ** -24)]);
  const inverse = scaled(b, normalQuantileOf(b, u), Math.SQRT1_2);
  const conjugate = scaled(b, b.sub(b.f32(1), b.exp(b.neg(square(b, inverse)))), 1 / ROOT_PI);
  const size = b.abs(a);
  const turned = mirrored(b, y, a);
  const tilted = b.mul(size, b.sub(b.op("Erf", [size]), turned));
  return b.add(b.add(conjugate, tilted), scaled(b, plus(b, b.exp(b.neg(square(b, a))), -1), 1 / ROOT_PI));
};

/** sin(z)/z in z² to float32's digits on [0, π/2]: Taylor's series. */
const SINC = [1, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800];
/** π/2 as a float32, and what is missing. */
const QUARTER_TURN = Math.fround(Math.PI / 2);
const QUARTER_TURN_REST = Math.PI / 2 - QUARTER_TURN;

/** cos y for |y| ≤ π/2 as the sine of the distance from the end: WebGPU's Cos is good to 2e-4, and its logarithm is wanted. */
function cosine(b: GraphBuilder, y: string): string {
  const distance = plus(b, b.sub(b.f32(QUARTER_TURN), b.abs(y)), QUARTER_TURN_REST);
  return b.mul(distance, emitPolynomial(b, SINC, square(b, distance)));
}

export const atanDivergence: EmitDivergence = (b, y, a) => {
  const conjugate = b.neg(logOf(b, cosine(b, y)));
  const tilted = b.mul(a, b.sub(b.op("Atan", [a]), y));
  return b.sub(b.add(conjugate, tilted), scaled(b, b.log(plus(b, square(b, a), 1)), 0.5));
};

export const signDivergence: EmitDivergence = tilt;

/**
 * With t = asinh a and δ = y − t: cosh t·(cosh δ − 1) + sinh t·(sinh δ − δ). Mirrored to a ≥ 0, since
 * log(a + √(a² + 1)), which devices compute for Asinh, cancels below 0.
 */
export const asinhDivergence: EmitDivergence = (b, y, a) => {
  const size = b.abs(a);
  const turned = mirrored(b, y, a);
  const delta = b.sub(turned, b.op("Asinh", [size]));
  const half = scaled(b, b.sub(b.exp(scaled(b, delta, 0.5)), b.exp(scaled(b, delta, -0.5))), 0.5);
  const coshLess = scaled(b, square(b, half), 2);
  const sinhOf = scaled(b, b.sub(b.exp(delta), b.exp(b.neg(delta))), 0.5);
  const cosh = b.sqrt(plus(b, square(b, a), 1));
  return b.add(b.mul(cosh, coshLess), b.mul(size, b.sub(sinhOf, delta)));
};

export function thresholdedDivergence(alpha: number): EmitDivergence {
  return (b, y, a) => {
    const conjugate = b.where(
      b.greater(y, b.f32(alpha)),
      scaled(b, plus(b, square(b, y), alpha * alpha), 0.5),
      scaled(b, y, alpha),
    );
    const potential = scaled(b, plus(b, square(b, b.max(a, b.f32(alpha))), -alpha * alpha), 0.5);
    const sum = b.sub(b.add(conjugate, potential), b.mul(a, y));
    const bothAbove = b.greater(b.min(a, y), b.f32(alpha));
    return b.where(bothAbove, scaled(b, square(b, b.sub(y, a)), 0.5), sum);
  };
}

/** Beyond the dead zone on one side, (y ± bias − a)²/2; elsewhere the sum of the definition. */
export function shrinkDivergence(lambd: number, bias: number): EmitDivergence {
  const edge = lambd - bias;
  return (b, y, a) => {
    const size = b.abs(y);
    const outer = scaled(b, plus(b, square(b, plus(b, size, bias)), -lambd * lambd), 0.5);
    const conjugate = b.where(b.greater(size, b.f32(edge)), plus(b, outer, lambd * edge), scaled(b, size, lambd));
    const beyond = relu(b, plus(b, b.abs(a), -lambd));
    // (|a|² − λ²)/2 − bias·(|a| − λ) in d = |a| − λ: d²/2 + (λ − bias)·d.
    const potential = b.add(scaled(b, square(b, beyond), 0.5), scaled(b, beyond, edge));
    const sum = b.sub(b.add(conjugate, potential), b.mul(a, y));
    const turned = mirrored(b, y, a);
    const bothOut = b.where(b.greater(turned, b.f32(edge)), beyond, b.f32(0));
    const same = scaled(b, square(b, b.sub(plus(b, turned, bias), b.abs(a))), 0.5);
    return b.where(b.greater(bothOut, b.f32(0)), same, sum);
  };
}
