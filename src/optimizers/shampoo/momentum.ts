/** Momentum of a step or of a gradient: an average (ema) or a sum (heavy-ball) that fades, with Nesterov's look-ahead. */
import type { GraphBuilder } from "../../onnx/builder.js";
import { accumulate } from "../common.js";
import type { ShampooOptions } from "./options.js";

type MomentumOptions = Pick<ShampooOptions, "momentum" | "momentumKind" | "momentumBiasCorrection" | "nesterov">;

/** The weight of what enters the buffer. */
export function momentumWeight(options: MomentumOptions): number {
  return options.momentumKind === "ema" ? 1 - options.momentum : 1;
}

/**
 * @param x times its weight.
 * @returns the new buffer, and what takes the place of `x`, not yet divided by `momentumCorrection`.
 */
export function emitMomentum(
  b: GraphBuilder,
  options: MomentumOptions,
  buffer: string,
  x: string,
): { buffer: string; output: string } {
  const next = accumulate(b, buffer, x, options.momentum, 1);
  if (!options.nesterov) return { buffer: next, output: next };
  return { buffer: next, output: accumulate(b, next, x, options.momentum, 1) };
}

/** What the output of `emitMomentum` at a step (from 1) is divided by: the sum of the weights in it, or 1. */
export function momentumCorrection(options: MomentumOptions, step: number): number {
  if (options.momentum === 0 || options.momentumKind !== "ema" || !options.momentumBiasCorrection) return 1;
  return 1 - options.momentum ** (options.nesterov ? step + 1 : step);
}
