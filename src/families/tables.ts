/**
 * Tables of a family's quantile function, moments and normaliser, for `table-family.ts` to look up.
 *
 * A draw is y = base(a) + spread(k)·T[k, r(u)], bilinear, with k = t/(1 + |t|), t = (a − shift)/scale, and
 * r(u) = ½ + (√u − √(1 − u))/2, which is dense at both ends. `spread` follows the residual's own scale, so that accuracy
 * does not fall off for large |a|. The nodes hold the L²(du) projection of the quantile function on the linear splines
 * rather than its values: the mean is then exact at the nodes.
 */

import { FishyError } from "../errors.js";
import { type ContinuousDensity, distributionAt, integrate } from "./density.js";
import { gaussLegendre } from "./quadrature.js";

/** How a family's table is laid out. */
export interface TableLayout {
  /** The change of `a` over which the family changes near `shift`. */
  readonly scale: number;
  readonly shift?: number;
  /** The residual's scale as a function of k: 1 − |k|, 1 + min(k, 0), √(1 − |k|) or 1. */
  readonly spread: "both" | "below" | "root" | "none";
  /** f(a); centre + halfWidth·k of a bounded support; max(a − shift, 0); or a. A kink of f between nodes would blur. */
  readonly base: "activation" | "linear" | "rectified" | "identity";
}

/** Cells in k to begin with, and at most. */
const FEWEST_COLUMNS = 256;
const MOST_COLUMNS = 2048;
/** Columns are doubled until the draws at the middle of their cells are this exact in probability. */
const TOLERANCE = 2e-4;
/** Cells in r. */
export const CELLS = 128;
/** Cells of a normaliser table: log Z is then exact to 2e-5 for every family of the golden file. */
export const NORMALISER_CELLS = 2048;
/** The outermost columns stand for |a| → ∞ and are computed this far inside their cell. */
const END = 0.02;

/** Centre and half-width of a bounded support. */
export function supportBox({ support: [low, high] }: ContinuousDensity): { centre: number; halfWidth: number } {
  return { centre: (low + high) / 2, halfWidth: (high - low) / 2 };
}

interface Column {
  readonly a: number;
  readonly base: number;
  readonly spread: number;
}

export function columnAt(density: ContinuousDensity, layout: TableLayout, k: number): Column {
  const a = (layout.shift ?? 0) + (layout.scale * k) / (1 - Math.abs(k));
  return { a, base: baseAt(density, layout, a, k), spread: spreadAt(layout, k) };
}

function baseAt(density: ContinuousDensity, layout: TableLayout, a: number, k: number): number {
  switch (layout.base) {
    case "activation":
      return density.activation(a);
    case "linear": {
      const { centre, halfWidth } = supportBox(density);
      return centre + halfWidth * k;
    }
    case "rectified":
      return Math.max(a - (layout.shift ?? 0), 0);
    case "identity":
      return a;
  }
}

function spreadAt(layout: TableLayout, k: number): number {
  switch (layout.spread) {
    case "both":
      return 1 - Math.abs(k);
    case "below":
      return 1 + Math.min(k, 0);
    case "root":
      return Math.sqrt(1 - Math.abs(k));
    case "none":
      return 1;
  }
}

export function nodePositions(columns: number): Float64Array {
  return Float64Array.from({ length: columns + 1 }, (_, i) =>
    i === 0 ? -1 + (END * 2) / columns : i === columns ? 1 - (END * 2) / columns : -1 + (2 * i) / columns,
  );
}

/** The inverse of r(u): u = sin²θ with √u − √(1 − u) = √2 sin(θ − π/4) = 2r − 1. */
export function probabilityAt(r: number): number {
  return Math.sin(Math.PI / 4 + Math.asin((2 * r - 1) / Math.SQRT2)) ** 2;
}

/** Quadrature in u for the projection: 8 points a cell, 24 in the two end cells, where the quantile function is steep. */
const projection = (() => {
  const u: number[] = [];
  const weight: number[] = [];
  const cell: number[] = [];
  const fraction: number[] = [];
  for (let j = 0; j < CELLS; j++) {
    const { nodes, weights } = gaussLegendre(j === 0 || j === CELLS - 1 ? 24 : 8);
    for (let i = 0; i < nodes.length; i++) {
      const r = (j + (nodes[i] as number)) / CELLS;
      const g = 2 * r - 1;
      const p = probabilityAt(r);
      // du/dr, with sin 2θ = 2√(u(1 − u)).
      const slope = (2 * Math.sqrt(p * (1 - p)) * Math.SQRT2) / Math.sqrt(1 - (g * g) / 2);
      u.push(p);
      weight.push(((weights[i] as number) / CELLS) * slope);
      cell.push(j);
      fraction.push(nodes[i] as number);
    }
  }
  return { u, weight, cell, fraction };
})();

/** Solves for the spline coefficients: the hat functions' Gram matrix in L²(du) is tridiagonal and the same for all columns. */
const project = (() => {
  const diagonal = new Float64Array(CELLS + 1);
  const beside = new Float64Array(CELLS);
  for (const [i, j] of projection.cell.entries()) {
    const w = projection.weight[i] as number;
    const f = projection.fraction[i] as number;
    diagonal[j] = (diagonal[j] as number) + w * (1 - f) ** 2;
    diagonal[j + 1] = (diagonal[j + 1] as number) + w * f * f;
    beside[j] = (beside[j] as number) + w * f * (1 - f);
  }
  const ratio = new Float64Array(CELLS);
  for (let j = 0; j < CELLS; j++) {
    ratio[j] = (beside[j] as number) / (diagonal[j] as number);
    diagonal[j + 1] = (diagonal[j + 1] as number) - (ratio[j] as number) * (beside[j] as number);
  }
  return (rightHandSide: Float64Array): void => {
    const x = rightHandSide;
    for (let j = 0; j < CELLS; j++) x[j + 1] = (x[j + 1] as number) - (ratio[j] as number) * (x[j] as number);
    x[CELLS] = (x[CELLS] as number) / (diagonal[CELLS] as number);
    for (let j = CELLS - 1; j >= 0; j--) {
      x[j] = (x[j] as number) / (diagonal[j] as number) - (ratio[j] as number) * (x[j + 1] as number);
    }
  };
})();

/** Integrals of the hat functions over u: the weights of the mean. */
const hatMasses = (() => {
  const masses = new Float64Array(CELLS + 1);
  for (const [i, j] of projection.cell.entries()) {
    const w = projection.weight[i] as number;
    const f = projection.fraction[i] as number;
    masses[j] = (masses[j] as number) + w * (1 - f);
    masses[j + 1] = (masses[j + 1] as number) + w * f;
  }
  return masses;
})();

export interface QuantileNodes {
  /** Cells in k. */
  readonly columns: number;
  /** T[k, r], (columns + 1) × (CELLS + 1), row-major. */
  readonly values: Float64Array;
}

/**
 * The table of a family, with as many columns as it needs.
 *
 * @throws FishyError when not even the largest table is exact enough
 */
export function quantileNodes(name: string, density: ContinuousDensity, layout: TableLayout): QuantileNodes {
  for (let columns = FEWEST_COLUMNS; columns <= MOST_COLUMNS; columns *= 2) {
    const nodes = { columns, values: nodeValues(density, layout, columns) };
    if (errorBetweenNodes(density, layout, nodes) < TOLERANCE) return nodes;
  }
  throw new FishyError(
    `The family ${name} changes too fast to be sampled from a table. Sample at another boundary, or choose its parameters nearer to 1.`,
  );
}

function nodeValues(density: ContinuousDensity, layout: TableLayout, columns: number): Float64Array {
  const table = new Float64Array((columns + 1) * (CELLS + 1));
  for (const [i, k] of nodePositions(columns).entries()) {
    const { a, base, spread } = columnAt(density, layout, k);
    const { quantile } = distributionAt(density, a);
    const row = table.subarray(i * (CELLS + 1), (i + 1) * (CELLS + 1));
    for (let n = 0; n < projection.u.length; n++) {
      const j = projection.cell[n] as number;
      const f = projection.fraction[n] as number;
      const value = ((projection.weight[n] as number) * (quantile(projection.u[n] as number) - base)) / spread;
      row[j] = (row[j] as number) + value * (1 - f);
      row[j + 1] = (row[j + 1] as number) + value * f;
    }
    project(row);
  }
  return table;
}

/** The largest error in probability found at the middles of every fourth cell in k and every eighth in r. */
function errorBetweenNodes(
  density: ContinuousDensity,
  layout: TableLayout,
  { columns, values }: QuantileNodes,
): number {
  let worst = 0;
  for (let i = 1; i < columns; i += 4) {
    const { a, base, spread } = columnAt(density, layout, -1 + (2 * i + 1) / columns);
    const { quantile, logZ } = distributionAt(density, a);
    for (let j = 4; j < CELLS; j += 8) {
      const at = i * (CELLS + 1) + j;
      const corners = [at, at + 1, at + CELLS + 1, at + CELLS + 2].map((n) => values[n] as number);
      const drawn = base + (spread * corners.reduce((sum, value) => sum + value, 0)) / 4;
      const y = quantile(probabilityAt((j + 0.5) / CELLS));
      worst = Math.max(worst, Math.abs(drawn - y) * Math.exp(-density.divergence(y, a) - logZ));
    }
  }
  return worst;
}

/** The same table with every column's mean over u taken off: draws of y − E[y] without a base. */
export function centredNodes(nodes: Float64Array): Float64Array {
  const centred = new Float64Array(nodes.length);
  for (let start = 0; start < nodes.length; start += CELLS + 1) {
    let mean = 0;
    for (let j = 0; j <= CELLS; j++) mean += (hatMasses[j] as number) * (nodes[start + j] as number);
    for (let j = 0; j <= CELLS; j++) centred[start + j] = (nodes[start + j] as number) - mean;
  }
  return centred;
}

/** Bilinear coefficients of every cell: value, and the steps in r, in k and in both; each columns × CELLS. */
export interface BilinearTable {
  readonly value: Float32Array<ArrayBuffer>;
  readonly stepR: Float32Array<ArrayBuffer>;
  readonly stepK: Float32Array<ArrayBuffer>;
  readonly stepRK: Float32Array<ArrayBuffer>;
}

export function bilinear(nodes: Float64Array): BilinearTable {
  const columns = nodes.length / (CELLS + 1) - 1;
  const make = () => new Float32Array(columns * CELLS);
  const table = { value: make(), stepR: make(), stepK: make(), stepRK: make() };
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < CELLS; j++) {
      const at = i * (CELLS + 1) + j;
      const v00 = nodes[at] as number;
      const v01 = nodes[at + 1] as number;
      const v10 = nodes[at + CELLS + 1] as number;
      const v11 = nodes[at + CELLS + 2] as number;
      const cell = i * CELLS + j;
      table.value[cell] = v00;
      table.stepR[cell] = v01 - v00;
      table.stepK[cell] = v10 - v00;
      table.stepRK[cell] = v11 - v10 - v01 + v00;
    }
  }
  return table;
}

/** Linear coefficients in k of log(Z/spread), Z = ∫ exp(−D) dy, which stays of order 1; each of NORMALISER_CELLS. */
export interface NormaliserTable {
  readonly value: Float32Array<ArrayBuffer>;
  readonly step: Float32Array<ArrayBuffer>;
}

export function normaliserTable(density: ContinuousDensity, layout: TableLayout): NormaliserTable {
  const table = { value: new Float32Array(NORMALISER_CELLS), step: new Float32Array(NORMALISER_CELLS) };
  let last: number | undefined;
  for (const [i, k] of nodePositions(NORMALISER_CELLS).entries()) {
    const { a, spread } = columnAt(density, layout, k);
    const next = integrate(density, a).logZ - Math.log(spread);
    if (last !== undefined) {
      table.value[i - 1] = last;
      table.step[i - 1] = next - last;
    }
    last = next;
  }
  return table;
}

/** Linear coefficients in k of (E[y] − base)/spread and of Var[y]/spread²; each of `columns` cells. */
export interface MomentTable {
  readonly mean: Float32Array<ArrayBuffer>;
  readonly meanStep: Float32Array<ArrayBuffer>;
  readonly variance: Float32Array<ArrayBuffer>;
  readonly varianceStep: Float32Array<ArrayBuffer>;
}

export function momentTable(density: ContinuousDensity, layout: TableLayout, columns: number): MomentTable {
  const make = () => new Float32Array(columns);
  const table = { mean: make(), meanStep: make(), variance: make(), varianceStep: make() };
  let last: { mean: number; variance: number } | undefined;
  for (const [i, k] of nodePositions(columns).entries()) {
    const { a, base, spread } = columnAt(density, layout, k);
    const { bias, variance } = integrate(density, a);
    const next = { mean: (density.activation(a) - base + bias) / spread, variance: variance / spread ** 2 };
    if (last) {
      table.mean[i - 1] = last.mean;
      table.meanStep[i - 1] = next.mean - last.mean;
      table.variance[i - 1] = last.variance;
      table.varianceStep[i - 1] = next.variance - last.variance;
    }
    last = next;
  }
  return table;
}
