/**
 * Tables that make a draw with one look-up: y = base(a) + spread(k)·T[c, v], v a random integer below `ROWS`. A column holds
 * ROWS equally likely values, the means of the family's quantile function over cells of equal probability, so a draw's
 * Kolmogorov distance is about 1/(2·ROWS). Between two columns, v decides as well which of them is taken,
 * c = ⌊k·DRAW_COLUMNS/2 + v/ROWS⌋: each in proportion to its nearness, and since the cells of a column stand in bit-reversed
 * order, what is taken from each is spread over the whole distribution.
 */
import { type ContinuousDensity, distributionAt } from "./density.js";
import { gaussLegendre } from "./quadrature.js";
import {
  CELLS,
  columnAt,
  momentTable,
  nodePositions,
  probabilityAt,
  type QuantileNodes,
  type TableLayout,
} from "./tables.js";

/** Bits of a draw. */
export const ROW_BITS = 10;
const ROWS = 2 ** ROW_BITS;
/** Cells in k. */
const DRAW_COLUMNS = 256;
/** The largest Kolmogorov distance between columns; families that pass it are interpolated instead. */
const LARGEST_DISTANCE = 1e-3;
/** How far (base − ŷ)/spread may be from linear between columns, in standard deviations of a draw. */
const OFFSET_TOLERANCE = 3e-4;

/** What a position k in [−1, 1] is multiplied by to be an index. */
export const INDEX_SCALE = (DRAW_COLUMNS / 2) * ROWS;

/** The mean over each cell of equal probability of the hat functions in r, as (node, weight) pairs. */
const cellWeights = (() => {
  let made: { readonly node: Int32Array; readonly weight: Float64Array; readonly start: Int32Array } | undefined;
  return () => {
    made ??= makeCellWeights();
    return made;
  };
})();

/** r(u), the inverse of `probabilityAt`. */
function positionOf(u: number): number {
  return 0.5 + (Math.sqrt(u) - Math.sqrt(1 - u)) / 2;
}

function makeCellWeights() {
  const { nodes, weights } = gaussLegendre(8);
  const [node, weight]: [number[], number[]] = [[], []];
  const start = [0];
  for (let row = 0; row < ROWS; row++) {
    const total = new Map<number, number>();
    const add = (at: number, w: number) => total.set(at, (total.get(at) ?? 0) + w);
    // Integrated in r, cut where a cell of r ends: the hats are linear there, and du/dr is smooth.
    const ends = [positionOf(row / ROWS), positionOf((row + 1) / ROWS)] as const;
    const cuts = [ends[0]];
    for (let j = Math.floor(ends[0] * CELLS) + 1; j / CELLS < ends[1]; j++) cuts.push(j / CELLS);
    cuts.push(ends[1]);
    for (let i = 0; i + 1 < cuts.length; i++) {
      const [low, high] = [cuts[i] as number, cuts[i + 1] as number];
      const cell = Math.min(Math.floor(((low + high) / 2) * CELLS), CELLS - 1);
      for (const [k, x] of nodes.entries()) {
        const r = low + x * (high - low);
        const g = 2 * r - 1;
        const p = probabilityAt(r);
        // du/dr, with sin 2θ = 2√(u(1 − u)).
        const slope = (2 * Math.sqrt(p * (1 - p)) * Math.SQRT2) / Math.sqrt(1 - (g * g) / 2);
        const w = (weights[k] as number) * (high - low) * slope * ROWS;
        const fraction = r * CELLS - cell;
        add(cell, w * (1 - fraction));
        add(cell + 1, w * fraction);
      }
    }
    for (const [at, w] of total) {
      node.push(at);
      weight.push(w);
    }
    start.push(node.length);
  }
  return { node: Int32Array.from(node), weight: Float64Array.from(weight), start: Int32Array.from(start) };
}

function reversed(row: number): number {
  let result = 0;
  for (let bit = 0; bit < ROW_BITS; bit++) result |= ((row >> bit) & 1) << (ROW_BITS - 1 - bit);
  return result;
}

/** Where the index of a NaN points to: a column of NaN. */
export const NAN_INDEX = -INDEX_SCALE - ROWS;

export interface DrawTable {
  /** Indexed from NAN_INDEX on as GatherElements reads negative indices: from the end. */
  readonly values: Float32Array<ArrayBuffer>;
  /** Whether (base − ŷ)/spread is in the values: a residual is then spread times what is looked up. */
  readonly isResidual: boolean;
}

/**
 * The table of T, or of T + (base − ŷ)/spread where that is smooth enough. Every column's mean and variance are those of
 * the family.
 * @returns undefined where a draw between two columns would be too far from the family's distribution.
 */
export function drawTable(
  nodes: QuantileNodes,
  density: ContinuousDensity,
  layout: TableLayout,
): DrawTable | undefined {
  if (nodes.columns !== DRAW_COLUMNS) return undefined;
  const table = momentTable(density, layout, DRAW_COLUMNS);
  const moments = Array.from({ length: DRAW_COLUMNS + 1 }, (_, column) => ({
    mean: atColumn(table.mean, table.meanStep, column),
    variance: atColumn(table.variance, table.varianceStep, column),
  }));
  const columns = moments.map((moment, column) => columnOf(nodes, column, moment));
  if (distanceBetween(columns, density, layout) > LARGEST_DISTANCE) return undefined;
  const offsetAt = (k: number) => {
    const { a, base, spread } = columnAt(density, layout, k);
    return (base - density.activation(a)) / spread;
  };
  const offsets = Array.from(nodePositions(DRAW_COLUMNS), offsetAt);
  const isResidual = offsets.slice(1, -2).every((left, i) => {
    const between = offsetAt(-1 + (2 * i + 3) / DRAW_COLUMNS);
    const error = Math.abs(between - (left + (offsets[i + 2] as number)) / 2);
    return error <= OFFSET_TOLERANCE * Math.sqrt((moments[i + 1] as { variance: number }).variance);
  });
  const values = new Float32Array((DRAW_COLUMNS + 2) * ROWS).fill(Number.NaN);
  for (const [column, drawn] of columns.entries()) {
    const first = (column - DRAW_COLUMNS / 2) * ROWS;
    const offset = isResidual ? (offsets[column] as number) : 0;
    const shifted = offset === 0 ? drawn : drawn.map((value) => value + offset);
    values.set(shifted, first < 0 ? first + values.length : first);
  }
  return { values, isResidual };
}

/** The same of T minus each column's mean. */
export function centredDraws(table: Float32Array): Float32Array<ArrayBuffer> {
  const centred = Float32Array.from(table);
  for (let start = 0; start < table.length; start += ROWS) {
    const mean = table.subarray(start, start + ROWS).reduce((sum, value) => sum + value, 0) / ROWS;
    for (let row = 0; row < ROWS; row++) centred[start + row] = (table[start + row] as number) - mean;
  }
  return centred;
}

function columnOf(
  { values }: QuantileNodes,
  column: number,
  moments: { mean: number; variance: number },
): Float64Array {
  const { node, weight, start } = cellWeights();
  const at = column * (CELLS + 1);
  const means = new Float64Array(ROWS);
  let [mean, square] = [0, 0];
  for (let row = 0; row < ROWS; row++) {
    let sum = 0;
    for (let i = start[row] as number; i < (start[row + 1] as number); i++) {
      sum += (weight[i] as number) * (values[at + (node[i] as number)] as number);
    }
    means[row] = sum;
    mean += sum / ROWS;
    square += (sum * sum) / ROWS;
  }
  const variance = Math.max(square - mean * mean, 0);
  const stretch = variance > 0 ? Math.sqrt(moments.variance / variance) : 0;
  return Float64Array.from(means, (_, row) => moments.mean + ((means[reversed(row)] as number) - mean) * stretch);
}

/** The largest error in probability found halfway between every fourth column and the next. */
function distanceBetween(columns: readonly Float64Array[], density: ContinuousDensity, layout: TableLayout): number {
  let worst = 0;
  for (let i = 1; i < DRAW_COLUMNS; i += 4) {
    const [left, right] = [columns[i] as Float64Array, columns[i + 1] as Float64Array];
    const half = ROWS / 2;
    const drawn = Float64Array.from({ length: ROWS }, (_, row) => (row < half ? right : left)[row] as number).sort();
    const { a, base, spread } = columnAt(density, layout, -1 + (2 * i + 1) / DRAW_COLUMNS);
    const { quantile } = distributionAt(density, a);
    for (let j = 4; j < CELLS; j += 8) {
      const p = probabilityAt((j + 0.5) / CELLS);
      const below = countAtMost(drawn, (quantile(p) - base) / spread);
      // A step of the distribution function may pass p by its whole height.
      worst = Math.max(worst, Math.abs(below / ROWS - p) - 1 / (2 * ROWS));
    }
  }
  return worst;
}

function countAtMost(sorted: Float64Array, limit: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

function atColumn(values: Float32Array, steps: Float32Array, column: number): number {
  if (column < values.length) return values[column] as number;
  return (values[column - 1] as number) + (steps[column - 1] as number);
}
