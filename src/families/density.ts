/** The density of a continuous family, its moments and quantiles in float64: no graph, no sampling. */
import type { ScalarFamily } from "./family.js";
import { gaussLegendre, panelEdges } from "./quadrature.js";

/** A family on an interval with Lebesgue measure: p(y | a) = exp(−D(y, a)) / Z(a). */
export interface ContinuousDensity {
  /** The closure of the activation's range. */
  readonly support: readonly [number, number];
  /** Points inside the support where F* is not smooth. */
  readonly kinks?: readonly number[];
  /** f, non-decreasing. */
  activation(a: number): number;
  /** D(y, a) = F*(y) + F(a) − a·y ≥ 0 for y in the support; 0 at y = f(a). */
  divergence(y: number, a: number): number;
}

/** D from F* and F, where forming the difference loses nothing that matters. */
export function fenchelYoung(conjugate: (y: number) => number, potential: (a: number) => number) {
  return (y: number, a: number): number => conjugate(y) + potential(a) - a * y;
}

export interface Integrals {
  readonly logZ: number;
  /** E[y] − f(a), computed without cancellation. */
  readonly bias: number;
  readonly variance: number;
}

/** log Z(a), bias and variance by Gauss–Legendre quadrature on graded panels; relative errors near 1e-10. */
export function integrate(density: ContinuousDensity, a: number, points = 12): Integrals {
  const edges = panelEdges(density, a);
  const mode = density.activation(a);
  const { nodes, weights } = gaussLegendre(points);
  let zeroth = 0;
  let first = 0;
  let second = 0;
  for (let i = 0; i + 1 < edges.length; i++) {
    const start = edges[i] as number;
    const width = (edges[i + 1] as number) - start;
    for (let k = 0; k < points; k++) {
      const y = start + width * (nodes[k] as number);
      const mass = width * (weights[k] as number) * Math.exp(-density.divergence(y, a));
      zeroth += mass;
      first += mass * (y - mode);
      second += mass * (y - mode) ** 2;
    }
  }
  const bias = first / zeroth;
  return { logZ: Math.log(zeroth), bias, variance: second / zeroth - bias * bias };
}

/** Panels that each panel is cut into before the distribution function is interpolated. */
const SUBPANELS = 6;

export interface Distribution {
  readonly logZ: number;
  /** P(Y ≤ y). */
  probability(y: number): number;
  /** The y with P(Y ≤ y) = u, within 2e-5 in probability. */
  quantile(u: number): number;
}

/**
 * The distribution at `a`: its quantile function is a monotone cubic Hermite interpolant of y against the distribution
 * function with the exact slopes 1/p (Fritsch and Carlson's limiter), without root finding.
 */
export function distributionAt(density: ContinuousDensity, a: number): Distribution {
  const coarse = panelEdges(density, a);
  const panels = (coarse.length - 1) * SUBPANELS;
  const edges = new Float64Array(panels + 1);
  for (let i = 0; i + 1 < coarse.length; i++) {
    const start = coarse[i] as number;
    const width = (coarse[i + 1] as number) - start;
    for (let j = 0; j < SUBPANELS; j++) edges[i * SUBPANELS + j] = start + (width * j) / SUBPANELS;
  }
  edges[panels] = coarse[coarse.length - 1] as number;

  const { nodes, weights } = gaussLegendre(4);
  const masses = new Float64Array(panels);
  let total = 0;
  for (let i = 0; i < panels; i++) {
    const start = edges[i] as number;
    const width = (edges[i + 1] as number) - start;
    let mass = 0;
    for (let k = 0; k < 4; k++) {
      mass += (weights[k] as number) * Math.exp(-density.divergence(start + width * (nodes[k] as number), a));
    }
    masses[i] = mass * width;
    total += masses[i] as number;
  }
  const cumulative = new Float64Array(panels + 1);
  const heights = new Float64Array(panels + 1);
  for (let i = 0; i <= panels; i++) {
    if (i < panels) {
      masses[i] = (masses[i] as number) / total;
      cumulative[i + 1] = (cumulative[i] as number) + (masses[i] as number);
    }
    heights[i] = Math.exp(-density.divergence(edges[i] as number, a)) / total;
  }

  let panel = 0;
  const quantile = (u: number) => {
    panel = locate(cumulative, u, panel);
    const start = edges[panel] as number;
    const width = (edges[panel + 1] as number) - start;
    const mass = Math.max(masses[panel] as number, 1e-300);
    const t = Math.min(Math.max((u - (cumulative[panel] as number)) / mass, 0), 1);
    const slope0 = Math.min(mass / (heights[panel] as number), 3 * width);
    const slope1 = Math.min(mass / (heights[panel + 1] as number), 3 * width);
    return start + width * t * t * (3 - 2 * t) + slope0 * t * (1 - t) ** 2 - slope1 * t * t * (1 - t);
  };
  const probability = (y: number) => {
    if (y >= (edges[panels] as number)) return 1;
    const at = locate(edges, y, 0);
    const start = edges[at] as number;
    let mass = 0;
    for (let k = 0; k < 4; k++) {
      const x = start + (y - start) * (nodes[k] as number);
      mass += (weights[k] as number) * Math.exp(-density.divergence(x, a));
    }
    return Math.max(0, (cumulative[at] as number) + (mass * (y - start)) / total);
  };
  return { logZ: Math.log(total), probability, quantile };
}

/** Newton's method from the interpolated quantile; stays where the density vanishes. */
function exactQuantile(density: ContinuousDensity, a: number, distribution: Distribution, u: number): number {
  const [low, high] = density.support;
  let y = distribution.quantile(u);
  for (let step = 0; step < 4; step++) {
    const height = Math.exp(-density.divergence(y, a) - distribution.logZ);
    const next = Math.min(Math.max(y - (distribution.probability(y) - u) / height, low), high);
    if (!Number.isFinite(next)) break;
    y = next;
  }
  return y;
}

/** The i with sorted[i] ≤ x < sorted[i + 1]; fast when x is in or just after the interval `hint`. */
function locate(sorted: Float64Array, x: number, hint: number): number {
  const last = sorted.length - 2;
  for (let i = hint; i <= Math.min(hint + 8, last); i++) {
    if ((sorted[i] as number) <= x && x < (sorted[i + 1] as number)) return i;
  }
  let low = 0;
  let high = last;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((sorted[middle] as number) <= x) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** A continuous family in plain TypeScript; integrals are kept for the last few hundred values of `a`. */
export function scalarFamily(density: ContinuousDensity): ScalarFamily {
  const integrals = memoised((a: number) => integrate(density, a, 24));
  const distributions = memoised((a: number) => distributionAt(density, a));
  const [low, high] = density.support;
  return {
    support: density.support,
    activation: (a) => density.activation(a),
    logDensity: (y, a) =>
      y < low || y > high ? Number.NEGATIVE_INFINITY : -density.divergence(y, a) - integrals(a).logZ,
    mean: (a) => density.activation(a) + integrals(a).bias,
    variance: (a) => integrals(a).variance,
    quantile: (u, a) => exactQuantile(density, a, distributions(a), u),
  };
}

function memoised<T>(compute: (a: number) => T, capacity = 256): (a: number) => T {
  const known = new Map<number, T>();
  return (a) => {
    let value = known.get(a);
    if (value === undefined) {
      if (known.size >= capacity) known.clear();
      value = compute(a);
      known.set(a, value);
    }
    return value;
  };
}
