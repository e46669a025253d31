/** Gauss–Legendre rules, and panels graded to a family's density. */
import type { ContinuousDensity } from "./density.js";

export interface Rule {
  /** Nodes in (0, 1), increasing. */
  readonly nodes: Float64Array;
  /** Weights, summing to 1. */
  readonly weights: Float64Array;
}

const rules = new Map<number, Rule>();

/** The n-point Gauss–Legendre rule on [0, 1]: Newton's method on the Legendre polynomial's recurrence. */
export function gaussLegendre(n: number): Rule {
  const known = rules.get(n);
  if (known) return known;
  const nodes = new Float64Array(n);
  const weights = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let x = -Math.cos((Math.PI * (i + 0.75)) / (n + 0.5));
    let slope = 0;
    for (let step = 0; step < 100; step++) {
      let previous = 1;
      let value = x;
      for (let k = 2; k <= n; k++) [previous, value] = [value, ((2 * k - 1) * x * value - (k - 1) * previous) / k];
      slope = (n * (x * value - previous)) / (x * x - 1);
      const change = value / slope;
      x -= change;
      if (Math.abs(change) < 1e-15) break;
    }
    nodes[i] = (1 + x) / 2;
    weights[i] = 1 / ((1 - x * x) * slope * slope);
  }
  const rule = { nodes, weights };
  rules.set(n, rule);
  return rule;
}

/** Beyond this divergence the density, e⁻⁶⁰ of its peak, is left out. */
const REACH = 60;
const GRADING = (() => {
  const fine = Array.from({ length: 17 }, (_, i) => 2 ** -(6 + 2 * i));
  return [...Array.from({ length: 33 }, (_, i) => i / 32), ...fine, ...fine.map((x) => 1 - x)];
})();

/**
 * Edges of panels on which the density of the family at `a` is smooth: graded to the mode, to the ends of its reach and
 * to the support's ends, with the kinks among them.
 */
export function panelEdges(density: ContinuousDensity, a: number): Float64Array {
  const mode = density.activation(a);
  const [low, high] = density.support;
  const edges = [mode];
  for (const sign of [1, -1]) {
    const room = sign > 0 ? high - mode : mode - low;
    if (!(room > 0)) continue;
    const reach = reachFrom(density, a, mode, sign, room);
    for (const g of GRADING) edges.push(mode + sign * reach * g);
  }
  const first = Math.max(low, Math.min(...edges));
  const last = Math.min(high, Math.max(...edges));
  for (const kink of density.kinks ?? []) if (kink > first && kink < last) edges.push(kink);
  return Float64Array.from(new Set(edges.filter((edge) => edge >= first && edge <= last))).sort();
}

function reachFrom(density: ContinuousDensity, a: number, mode: number, sign: number, room: number): number {
  let inside = 0;
  let outside = Math.min(1e-3, room);
  while (outside < room && density.divergence(mode + sign * outside, a) < REACH) {
    inside = outside;
    outside = Math.min(outside * 1.5, room);
  }
  if (outside >= room && Number.isFinite(room)) return room;
  for (let step = 0; step < 30; step++) {
    const middle = (inside + outside) / 2;
    if (density.divergence(mode + sign * middle, a) < REACH) inside = middle;
    else outside = middle;
  }
  return outside;
}
