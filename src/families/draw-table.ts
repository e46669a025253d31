/**
 * Tables that make a draw with one look-up: the residual y − ŷ of each of `LEVELS` equally likely levels at each of
 * `LEVEL_STEP` pre-activations, evenly spaced in t = (a − shift)/scale from −REACH to almost REACH. The levels are the means of the
 * family's quantile function over cells of equal probability, scaled to the family's mean and variance. A draw between
 * two pre-activations is one of the nearer's more often than one of the other's, in proportion.
 */
import { type ContinuousDensity, distributionAt, integrate } from "./density.js";
import { LEVEL_STEP, LEVELS } from "./pool.js";
import { gaussLegendre } from "./quadrature.js";
import type { TableLayout } from "./tables.js";

/** Beyond it, draws are those of the end. */
const REACH = 16;
/** The position of t = 0, where activations have their kinks: draws on its two sides are not mixed. */
const CENTRE = LEVEL_STEP / 2;
/** The last position. */
export const LAST = LEVEL_STEP - 1;

/** α and β with which α·a + β, between 0 and 1, is the share of `LAST` at which a table is read. */
export function place({ scale, shift = 0 }: TableLayout): { alpha: number; beta: number } {
  const alpha = CENTRE / (REACH * scale * LAST);
  return { alpha, beta: CENTRE / LAST - alpha * shift };
}

/** How far mean (in standard deviations) and variance may be off between two pre-activations. */
const TOLERANCE = 5e-3;
/** Below this share of the largest variance, an error of the variance counts by this share. */
const NEGLIGIBLE = 1e-4;

/** Nodes in u for the mean of the quantile function over a cell; it is steep at both ends. */
const INNER = gaussLegendre(6);
const OUTER = gaussLegendre(24);

/**
 * The table, index LEVEL_STEP·level + position, every level twice so that level + turn, both below LEVELS, needs no
 * remainder. That leaves the last column free: it is of NaN, for a position that is NaN.
 * @param isCentred residuals y − E[y] instead of y − ŷ
 * @returns undefined for a family that changes too fast between two pre-activations
 */
export function drawTable(
  density: ContinuousDensity,
  { scale, shift = 0 }: TableLayout,
  isCentred: boolean,
): Float32Array<ArrayBuffer> | undefined {
  const at = (position: number) => shift + scale * REACH * (position / CENTRE - 1);
  const moments = Float64Array.from({ length: LEVEL_STEP }, () => 0);
  const biases = Float64Array.from(moments);
  const table = new Float32Array(2 * LEVELS * LEVEL_STEP);
  for (let position = 0; position < LEVEL_STEP; position++) {
    const a = at(position);
    const { bias, variance } = integrate(density, a);
    moments[position] = variance;
    biases[position] = bias;
    for (const [level, value] of levelsAt(density, a, isCentred ? 0 : bias, variance).entries()) {
      table[LEVEL_STEP * level + position] = value;
      table[LEVEL_STEP * (level + LEVELS) + position] = value;
    }
  }
  table.fill(Number.NaN, LEVEL_STEP * (2 * LEVELS - 1));
  const least = NEGLIGIBLE * moments.reduce((largest, variance) => Math.max(largest, variance), 0);
  for (let position = 0; position < LAST; position++) {
    const { bias, variance } = integrate(density, at(position + 0.5));
    const [b0, b1] = [biases[position] as number, biases[position + 1] as number];
    const drawn = ((moments[position] as number) + (moments[position + 1] as number)) / 2 + ((b1 - b0) / 2) ** 2;
    if (Math.abs(drawn - variance) > TOLERANCE * Math.max(variance, least)) return undefined;
    if (Math.abs((b0 + b1) / 2 - bias) > TOLERANCE * Math.sqrt(Math.max(variance, least))) return undefined;
  }
  return table;
}

/** The levels at one pre-activation, in no order that matters. */
function levelsAt(density: ContinuousDensity, a: number, mean: number, variance: number): Float64Array {
  const { quantile } = distributionAt(density, a);
  const means = Float64Array.from({ length: LEVELS }, (_, level) => {
    const { nodes, weights } = level === 0 || level === LEVELS - 1 ? OUTER : INNER;
    return nodes.reduce((sum, x, i) => sum + (weights[i] as number) * quantile((level + x) / LEVELS), 0);
  });
  const centre = means.reduce((sum, value) => sum + value, 0) / LEVELS;
  const spread = means.reduce((sum, value) => sum + (value - centre) ** 2, 0) / LEVELS;
  const stretch = spread > 0 ? Math.sqrt(variance / spread) : 0;
  return means.map((value) => mean + (value - centre) * stretch);
}
