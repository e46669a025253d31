/** Exponents as exact ratios of small integers. */

export interface Fraction {
  readonly numerator: number;
  readonly denominator: number;
}

const MAX_NUMERATOR = 32;
const MAX_DENOMINATOR = 8;

/** `value` as a ratio with the smallest denominator, up to 32 over 8; undefined when there is none. */
export function exactFraction(value: number): Fraction | undefined {
  for (let denominator = 1; denominator <= MAX_DENOMINATOR; denominator++) {
    const numerator = Math.round(value * denominator);
    if (numerator < 1 || numerator > MAX_NUMERATOR) continue;
    if (Math.abs(numerator / denominator - value) <= 1e-9 * value) return { numerator, denominator };
  }
  return undefined;
}
