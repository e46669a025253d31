/** What the gradients of normalisations are made of. */
import type { GradientContext } from "../rule.js";

/** A normalised value x̂ = (x − mean)/σ and 1/σ, which broadcasts against it. */
export interface Normalised {
  readonly value: string;
  readonly inverse: string;
}

/** dx = (g − mean(g) − x̂·mean(g ⊙ x̂))/σ, the means over the normalised axes, for the cotangent g of x̂. */
export function throughNormalisation(c: GradientContext, g: string, x: Normalised, axes: readonly number[]): string {
  const { b } = c;
  const mean = (value: string) => b.reduce("ReduceMean", value, axes, true);
  const along = b.mul(x.value, mean(b.mul(g, x.value)));
  return b.mul(b.sub(b.sub(g, mean(g)), along), x.inverse);
}

/** Mean 0 and variance 1 over `axes`, by primitives. */
export function normalised(c: GradientContext, x: string, axes: readonly number[], epsilon: number): Normalised {
  const { b } = c;
  const type = c.elemType(c.input(0));
  const centred = b.sub(x, b.reduce("ReduceMean", x, axes, true));
  const variance = b.reduce("ReduceMean", b.mul(centred, centred), axes, true);
  const inverse = b.op("Reciprocal", [b.sqrt(b.add(variance, b.constant(type, epsilon)))]);
  return { value: b.mul(centred, inverse), inverse };
}

/** Mean square 1 over `axes`: x/√(mean(x²) + ε). */
export function rootMeanSquareNormalised(
  c: GradientContext,
  x: string,
  axes: readonly number[],
  epsilon: number,
): Normalised {
  const { b } = c;
  const meanSquare = b.reduce("ReduceMean", b.mul(x, x), axes, true);
  const inverse = b.op("Reciprocal", [b.sqrt(b.add(meanSquare, b.constant(c.elemType(c.input(0)), epsilon)))]);
  return { value: b.mul(x, inverse), inverse };
}

/** dx = (g − x̂·mean(g ⊙ x̂))/√(mean(x²) + ε). */
export function throughRootMeanSquare(c: GradientContext, g: string, x: Normalised, axes: readonly number[]): string {
  const { b } = c;
  const along = b.mul(x.value, b.reduce("ReduceMean", b.mul(g, x.value), axes, true));
  return b.mul(b.sub(g, along), x.inverse);
}
