/**
 * Grafting (Agarwal et al. 2020): Shampoo gives the direction, a first-order optimizer the length of the step. The
 * second moment is of the true gradient; the numerator may be its running average (momentum before preconditioning).
 */
import type { GraphBuilder } from "../../onnx/builder.js";
import { accumulate, square } from "../common.js";
import type { ShampooOptions } from "./options.js";

export type Graft = ShampooOptions["graft"];

/** Guards a division by a norm; a norm of zero divides zeros. */
const TINY = 1e-25;

export function hasSecondMoment(graft: Graft): boolean {
  return graft !== "none" && graft !== "sgd" && graft !== "sgd-normalized" && graft !== "sqrt-n";
}

export interface GraftResult {
  /** The graft's own step, of the gradient's shape, but for its factor. */
  readonly step: string;
  /** A scalar that multiplies the step; apart, since its length is all that a preconditioned step takes of it. */
  readonly factor?: string;
  /** The new second moment, for grafts that have one. */
  readonly secondMoment?: string;
}

/**
 * The step that the graft would take.
 * @param gradient the true gradient.
 * @param numerator the gradient, or its running average.
 * @param epsilon scalar value name: graftEpsilon, times √(1 − β₂ᵗ) for adam.
 * @param correction scalar value name: √(1 − β₂ᵗ), for adam.
 */
export function emitGraft(
  b: GraphBuilder,
  options: Pick<ShampooOptions, "graft" | "graftBeta2">,
  gradient: string,
  numerator: string,
  secondMoment: (() => string) | undefined,
  epsilon: () => string,
  correction: () => string,
): GraftResult {
  const { graft, graftBeta2 } = options;
  if (graft === "none" || graft === "sgd") return { step: numerator };
  if (graft === "sgd-normalized") return { step: normalize(b, numerator) };
  if (graft === "sqrt-n") return { step: b.op("Sign", [numerator]) };
  const normalized = graft.endsWith("-normalized");
  const direction = normalized ? normalize(b, gradient) : gradient;
  const sums = graft.startsWith("adagrad") || graftBeta2 === 1;
  const moment = accumulate(
    b,
    secondMoment?.() as string,
    square(b, direction),
    sums ? 1 : graftBeta2,
    sums ? 1 : 1 - graftBeta2,
  );
  const top = normalized ? (numerator === gradient ? direction : normalize(b, numerator)) : numerator;
  const step = b.div(top, b.add(b.sqrt(moment), epsilon()));
  return { step, secondMoment: moment, ...(graft === "adam" && { factor: correction() }) };
}

function normalize(b: GraphBuilder, x: string): string {
  return b.div(x, b.max(norm(b, x), b.f32(TINY)));
}

/** ‖x‖, over everything (a scalar) or over `axes` (kept as 1). */
export function norm(b: GraphBuilder, x: string, axes?: readonly number[]): string {
  return b.reduce("ReduceL2", x, axes, axes !== undefined);
}

/** direction·‖length‖/‖direction‖, times scalars; zero where the direction is zero. */
export function emitWithNormOf(
  b: GraphBuilder,
  direction: string,
  length: string,
  factors: readonly string[],
  axes?: readonly number[],
): string {
  const ratio = b.div(norm(b, length, axes), b.max(norm(b, direction, axes), b.f32(TINY)));
  return b.mul(
    direction,
    factors.reduce((product, factor) => b.mul(product, factor), ratio),
  );
}
