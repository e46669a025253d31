/**
 * The best rational approximation of x^(−1/2) on [l, 1], after Zolotarev (1877), as a sum of simple poles:
 *
 *     R(x) = Σ wⱼ / (x + tⱼ),   δ ≤ √x·R(x) ≤ 1 on [l, 1]
 *
 * with all wⱼ and tⱼ positive, so that nothing cancels. Its error falls geometrically with the number of poles, by a
 * factor of exp(π²/log(16/l)) or so for each. Formulas: Nakatsukasa and Freund (2016), section 3.
 */

export interface RationalRoot {
  readonly poles: readonly { readonly shift: number; readonly weight: number }[];
  /** δ: how far below 1 √x·R(x) comes. */
  readonly lowest: number;
}

/** @param l in (0, 1). */
export function rationalRoot(l: number, count: number): RationalRoot {
  const modulus = Math.sqrt(l);
  const quarter = quarterPeriod(modulus);
  const zeros = Array.from(
    { length: 2 * count - 1 },
    (_, i) => l * tangent(((i + 1) * quarter) / (2 * count), modulus) ** 2,
  );
  const shifts = zeros.filter((_, i) => i % 2 === 0);
  const others = zeros.filter((_, i) => i % 2 === 1);
  const weights = shifts.map((shift, j) =>
    shifts.reduce(
      (value, other, i) =>
        i === j ? value : (value * ((others[i < j ? i : i - 1] as number) - shift)) / (other - shift),
      1,
    ),
  );
  // √x·R(x) has its extrema alternately at the ends and in between; it starts from its smallest.
  const value = (x: number) => Math.sqrt(x) * weights.reduce((sum, w, j) => sum + w / (x + (shifts[j] as number)), 0);
  const samples = Array.from({ length: SAMPLES + 1 }, (_, i) => value(l ** (1 - i / SAMPLES)));
  const [low, high] = [Math.min(...samples), Math.max(...samples) * (1 + SLACK)];
  return {
    poles: shifts.map((shift, j) => ({ shift, weight: (weights[j] as number) / high })),
    lowest: (low / high) * (1 - SLACK),
  };
}

const SAMPLES = 4000;
/** What the samples may miss of an extremum, and rounding. */
const SLACK = 1e-5;

/** K(k) by the arithmetic-geometric mean, from the complementary modulus √(1 − k²). */
function quarterPeriod(complement: number): number {
  let [a, b] = [1, complement];
  while (Math.abs(a - b) > 1e-15 * a) [a, b] = [(a + b) / 2, Math.sqrt(a * b)];
  return Math.PI / (2 * a);
}

/** sn/cn of Jacobi's elliptic functions, by descending Landen transformations (Abramowitz and Stegun 16.4). */
function tangent(u: number, complement: number): number {
  const means: { a: number; c: number }[] = [];
  let [a, b] = [1, complement];
  while (Math.abs(a - b) > 1e-15 * a) {
    const [mean, c] = [(a + b) / 2, (a - b) / 2];
    b = Math.sqrt(a * b);
    a = mean;
    means.push({ a, c });
  }
  let angle = 2 ** means.length * a * u;
  for (const { a: mean, c } of means.reverse()) angle = (angle + Math.asin((c / mean) * Math.sin(angle))) / 2;
  return Math.tan(angle);
}
