/**
 * The rounds of the coupled iteration for one large matrix, M^(−1/p):
 *
 *     M ← M·T(M)ᵖ      H ← H·T(M)
 *
 * As in coefficients.ts, each T is the best polynomial for the interval [l, 1] that holds the spectrum of M, but of
 * degree 4, which takes two products to evaluate: of the degrees that a given number of products reaches, it needs the
 * fewest in all. Since the smallest l follows from the ridge, the rounds are known when the graph is built; only how
 * often the first one is repeated, for a matrix whose bound is loose or whose ridge is absolute, is decided at run time.
 */

import { solve } from "./coefficients.js";

/**
 * T = scale·((Q + κI)·Q + linear·(E + γI)), Q = E·(E + αI), E = M − centre·I; of degree 1 T = scale·(M + γI).
 * `scale` and `linear` are float32 numbers, because they become attributes.
 */
export interface Round {
  readonly degree: 1 | 4;
  readonly centre: number;
  readonly alpha: number;
  readonly kappa: number;
  readonly linear: number;
  readonly gamma: number;
  readonly scale: number;
}

export interface RoundPlan {
  /** The round for spectra that reach below the floor; undefined when none does. */
  readonly head?: Round | undefined;
  /** For each k, the l below which the head has to be run more than k times; descending. */
  readonly thresholds: readonly number[];
  /** The rounds after the head's, the last one apart. */
  readonly tail: readonly Round[];
  /** Leaves every eigenvalue within the tolerance of 1. */
  readonly last: Round;
}

export interface PlanOptions {
  readonly p: number;
  readonly degree: 1 | 4;
  /** Smallest l that the plan serves. */
  readonly smallest: number;
  /** An l that is likely, and one that is certain, for a relative ridge. */
  readonly likely?: number | undefined;
  readonly certain?: number | undefined;
  /** How far from 1 an eigenvalue of D·Hᵖ may end. */
  readonly tolerance: number;
  /** Smallest l that a polynomial is made for (see coefficients.ts). */
  readonly floor: number;
}

/** T(x) of a round. */
export function evaluateRound(round: Round, x: number): number {
  if (round.degree === 1) return round.scale * (x + round.gamma);
  const e = x - round.centre;
  const q = e * (e + round.alpha);
  return round.scale * ((q + round.kappa) * q + round.linear * (e + round.gamma));
}

/** What a round makes of an eigenvalue of M. */
function mapped(round: Round, x: number, p: number): number {
  return x * evaluateRound(round, x) ** p;
}

/** Plans the rounds. */
export function planRounds(options: PlanOptions): RoundPlan {
  const { p, floor, certain, smallest } = options;
  const head = bestRound(floor, p, options.degree, "bounded");
  if (certain !== undefined && certain >= floor) {
    const rounds = chain(certain, options, head);
    return { thresholds: [], tail: rounds.slice(0, -1), last: rounds[rounds.length - 1] as Round };
  }
  // The smallest l that needs no more rounds than the likely one: so a looser bound costs none.
  const likely = options.likely ?? floor;
  const wanted = chain(likely, options, head).length;
  let [low, high] = [likely / 10, likely];
  for (let step = 0; step < 12; step++) {
    const middle = Math.sqrt(low * high);
    if (chain(middle, options, head).length > wanted) low = middle;
    else high = middle;
  }
  let l = high;
  while (l < floor) l = mapped(head, l, p);
  const rounds = chain(l, options, head);
  const thresholds = [l];
  while (l > smallest) {
    l = preimage(head, l, p, floor);
    thresholds.push(l);
  }
  return { head, thresholds, tail: rounds.slice(0, -1), last: rounds[rounds.length - 1] as Round };
}

/** The rounds for a spectrum in [l, 1]: all but the last one, and that. */
export function roundsFrom(l: number, options: Omit<PlanOptions, "smallest" | "likely" | "certain">): Round[] {
  return chain(l, options, bestRound(options.floor, options.p, options.degree, "bounded"));
}

/** The rounds from [l, 1] on; `atFloor` is the bounded one for the floor, which most chains begin with. */
function chain(
  l: number,
  { p, degree, tolerance, floor }: Omit<PlanOptions, "smallest" | "likely" | "certain">,
  atFloor: Round,
): Round[] {
  const rounds: Round[] = [];
  let low = l;
  for (;;) {
    if (low <= floor) {
      rounds.push(atFloor);
      low = mapped(atFloor, low, p);
      continue;
    }
    const round = bestRound(low, p, degree, "balanced");
    const ends = [low, 1, ...extrema(round, low, p)].map((x) => mapped(round, x, p));
    if (Math.max(...ends.map((x) => Math.abs(x - 1))) <= tolerance) return [...rounds, round];
    const bounded = bestRound(low, p, degree, "bounded");
    const next = Math.min(mapped(bounded, low, p), ...extrema(bounded, low, p).map((x) => mapped(bounded, x, p)));
    // The rounding of the factors leaves nothing to gain: the last round is as good as it gets.
    if (next <= low) return [...rounds, round];
    rounds.push(bounded);
    low = next;
  }
}

/** The eigenvalue below the floor that the head sends to l. */
function preimage(head: Round, l: number, p: number, floor: number): number {
  let [low, high] = [0, Math.min(l, floor)];
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (mapped(head, middle, p) < l) low = middle;
    else high = middle;
  }
  return high;
}

/**
 * The polynomial for which x^(1/p)·T(x) stays nearest to a constant on [l, 1]: to 1 (balanced, exact coefficients, for
 * the last round), or scaled so that its largest value is at most 1 (bounded).
 */
function bestRound(l: number, p: number, degree: 1 | 4, kind: "bounded" | "balanced"): Round {
  const centre = 1 - l < NEAR_ONE ? 1 : (1 + l) / 2;
  const powers = 1 - l < NEAR_ONE ? series(p, degree) : exchange(l, p, degree);
  const scale = powers[degree] as number;
  const [zeroth, first, second, third] = powers.map((value) => value / scale) as [number, number, number, number];
  let round: Round;
  if (degree === 1) {
    round = { degree, centre: 0, alpha: 0, kappa: 0, linear: 0, gamma: zeroth - centre, scale };
  } else {
    const alpha = third / 2;
    const kappa = second - alpha * alpha;
    const linear = first - alpha * kappa;
    round = { degree, centre, alpha, kappa, linear, gamma: zeroth / linear, scale };
  }
  if (kind === "balanced") return round;
  const rounded = {
    ...round,
    linear: Math.fround(round.linear),
    gamma: (round.gamma * round.linear) / Math.fround(round.linear),
  };
  const single = degree === 1 ? round : rounded;
  const top = Math.max(...[l, 1, ...extrema(single, l, p)].map((x) => x ** (1 / p) * evaluateRound(single, x)));
  return { ...single, scale: Math.fround((scale / top) * (1 - 1e-7)) };
}

/** Closer to 1 than this the series of x^(−1/p) about 1 is as good, and free of cancellation. */
const NEAR_ONE = 0.02;

/** Coefficients of x^(−1/p) in powers of x − 1. */
function series(p: number, degree: number): number[] {
  const powers = [1];
  for (let k = 1; k <= degree; k++) powers.push(((powers[k - 1] as number) * (1 - k - 1 / p)) / k);
  return powers;
}

/** Remez's exchange on [l, 1]; coefficients in powers of x − (1 + l)/2. */
function exchange(l: number, p: number, degree: number): number[] {
  const centre = (1 + l) / 2;
  const half = (1 - l) / 2;
  let points = Array.from({ length: degree + 2 }, (_, i) => -Math.cos((Math.PI * i) / (degree + 1)));
  let powers: number[] = [];
  for (let round = 0; round < 50; round++) {
    const solved = solve(
      points.map((t, i) => {
        const weight = (centre + half * t) ** (1 / p);
        return [...Array.from({ length: degree + 1 }, (_, k) => weight * t ** k), i % 2 === 0 ? 1 : -1, 1];
      }),
    );
    powers = solved.slice(0, degree + 1).map((value, k) => value / half ** k);
    const inside = extremaOf(powers, centre, l, p);
    // Where the error is no more than rounding, it has no clear extrema; the points are good enough then.
    if (inside.length !== degree) break;
    const next = [-1, ...inside.map((x) => (x - centre) / half), 1];
    const moved = Math.max(...next.map((t, i) => Math.abs(t - (points[i] as number))));
    points = next;
    if (moved < 1e-10) break;
  }
  return powers;
}

function extrema(round: Round, l: number, p: number): number[] {
  const { degree, centre, alpha, kappa, linear, gamma } = round;
  const powers =
    degree === 1 ? [gamma, 1] : [linear * gamma, linear + alpha * kappa, kappa + alpha * alpha, 2 * alpha, 1];
  return extremaOf(powers, centre, l, p);
}

/** Where x^(1/p)·T(x) has its maxima and minima inside (l, 1): T/p + x·T' = 0. */
function extremaOf(powers: readonly number[], centre: number, l: number, p: number): number[] {
  const slope = (x: number) => {
    const e = x - centre;
    const value = powers.reduceRight((sum, c) => sum * e + c, 0);
    const derivative = powers.reduceRight((sum, c, k) => (k === 0 ? sum : sum * e + k * c), 0);
    return value / p + x * derivative;
  };
  const found: number[] = [];
  // Evenly in √x, since they crowd at the small end.
  const at = (i: number) => (Math.sqrt(l) + ((1 - Math.sqrt(l)) * i) / SAMPLES) ** 2;
  for (let i = 0; i < SAMPLES; i++) {
    let [low, high] = [at(i), at(i + 1)];
    const sign = Math.sign(slope(low));
    if (sign === Math.sign(slope(high))) continue;
    for (let step = 0; step < 50; step++) {
      const middle = (low + high) / 2;
      if (Math.sign(slope(middle)) === sign) low = middle;
      else high = middle;
    }
    found.push(low);
  }
  return found;
}

const SAMPLES = 200;
