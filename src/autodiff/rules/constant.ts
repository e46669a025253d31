/** Operators whose derivative is zero wherever it exists: steps, and values that depend on a shape only. */
import type { GradientRule } from "../rule.js";

const FLAT = [
  ...["Floor", "Ceil", "Round", "Sign"],
  ...["EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli"],
];

export const flat: readonly GradientRule[] = FLAT.map((opType) => ({ opType, notes: "zero", gradient: () => ({}) }));
