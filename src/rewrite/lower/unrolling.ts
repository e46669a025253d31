/** What every lowering that unrolls has in common: the bound on its steps, and how a refusal is worded. */
import type { Dim, GraphBuilder } from "../../onnx/builder.js";

/** Every step becomes nodes of its own, forward and backward: beyond this, sessions take minutes to load. */
export const MAX_UNROLLED_STEPS = 4096;

/** Why `steps` cannot be unrolled; undefined when they can. `what` says what has that many steps. */
export function stepsProblem(steps: number, what: string): string | undefined {
  if (steps <= MAX_UNROLLED_STEPS) return undefined;
  return `${what} takes ${steps} steps, and fishy unrolls at most ${MAX_UNROLLED_STEPS}: cut the sequences into shorter pieces and export the model again`;
}

/** How an unknown dimension is spoken of. */
export function dimName(dim: Dim | undefined): string {
  return typeof dim === "string" ? `'${dim}'` : "of unknown size";
}

/** The `count` elements of `x` along `axis`, without that axis. */
export function splitSteps(b: GraphBuilder, x: string, axis: number, count: number): string[] {
  if (count === 1) return [b.squeeze(x, [axis])];
  const parts = b.node("Split", [x], { outputs: count, attributes: { axis, num_outputs: count } });
  return parts.map((part) => b.squeeze(part, [axis]));
}

/** Puts values of equal shape together along a new axis, under the name `name`. */
export function stackSteps(b: GraphBuilder, values: readonly string[], axis: number, name: string): void {
  const parts = values.map((value) => b.unsqueeze(value, [axis]));
  b.node("Concat", parts, { outputs: [name], attributes: { axis } });
}
