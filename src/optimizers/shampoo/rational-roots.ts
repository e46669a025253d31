/**
 * The inverse p-th root of one large matrix for p = 2ᵏ, from inverses of it with larger ridges. An inverse costs about as
 * much as a product or two, and four of them do what takes the coupled iteration all its rounds but the last one.
 */
import type { GraphBuilder } from "../../onnx/builder.js";
import type { Arithmetic } from "./arithmetic.js";
import { type Damped, emitResidual, nextM, normalised, polynomial } from "./coupled-iteration.js";
import { type Round, roundsFrom } from "./rounds.js";
import { emitTiledInverse } from "./tiled-inverse.js";
import type { SymmetricTiles, Tiling } from "./tiles.js";
import type { Attempt } from "./tries.js";
import { type RationalRoot, rationalRoot } from "./zolotarev.js";

/** A rational approximation for each square root of p = 2ᵏ, and the round of the coupled iteration that ends it. */
export interface RationalPlan {
  readonly stages: readonly RationalRoot[];
  /** What the root is multiplied by so that x^(1/p)·H(x) stays below 1. */
  readonly scale: number;
  readonly last: Round;
}

/** Poles of a stage at most; more are never needed. */
const MOST_POLES = 16;

/** The shift of a matrix below 1 from which its inverse needs no refinement, for square roots and for others. */
const WELL_SHIFTED = { square: 1e-5, other: 2e-3 };

/** Largest p: each square root more doubles what the inverses' rounding does to the residual. */
const LARGEST_ROOT = 8;

/**
 * The fewest poles that one round finishes.
 * @param l at or below the smallest eigenvalue of D/bound.
 * @param tolerance how far from 1 an eigenvalue of D·Hᵖ may end.
 * @returns undefined where p is not 2, 4 or 8, or one round is not enough.
 */
export function planRational(p: number, l: number, tolerance: number): RationalPlan | undefined {
  if (p < 2 || p > LARGEST_ROOT || !Number.isInteger(Math.log2(p))) return undefined;
  for (let count = 1; count <= MOST_POLES; count++) {
    const stages: RationalRoot[] = [];
    // Stage k makes X^(−1/2) of X = x^(1/2ᵏ)·z, z in [lowest, 1].
    let [interval, lowest, scale] = [l, 1, 1];
    for (let power = 1; power < p; power *= 2) {
      const stage = rationalRoot(interval * lowest, count);
      stages.push(stage);
      scale = Math.sqrt(lowest);
      lowest = scale * stage.lowest;
      interval = Math.sqrt(interval);
    }
    const rounds = roundsFrom(lowest ** p, { p, degree: 4, tolerance, floor: FLOOR });
    if (rounds.length === 1) return { stages, scale, last: rounds[0] as Round };
  }
  return undefined;
}

/** Below this one round is not enough anyway. */
const FLOOR = 2e-3;

/** D^(−1/p), D = C + ridge·I, and its true residual. */
export function emitRational(
  b: GraphBuilder,
  a: Arithmetic,
  tiling: Tiling,
  damped: Damped,
  { stages, scale, last }: RationalPlan,
  p: number,
): Attempt {
  const { d, bound, start } = normalised(b, a, tiling, damped);
  const wellShifted = p === 2 ? WELL_SHIFTED.square : WELL_SHIFTED.other;
  let x = start;
  let h: SymmetricTiles = [];
  for (const { poles } of stages) {
    const terms = poles.map(({ shift, weight }) => {
      // The inverse comes with its weight, if the matrix is divided by it.
      const divided = tiling.map(x, (tile) => b.mul(tile, a.constant(b, 1 / weight)));
      return emitTiledInverse(b, tiling, tiling.shift(b, divided, shift / weight), shift < wellShifted);
    });
    h = tiling.map(x, (_, i, j) => sum(terms.map((term) => tiling.tile(term, i, j))));
    // X·R(X) = Σ wⱼ·I − Σ tⱼwⱼ·(X + tⱼI)⁻¹ needs no product.
    const rest = tiling.map(x, (_, i, j) =>
      sum(terms.map((term, k) => b.mul(tiling.tile(term, i, j), a.constant(b, -(poles[k]?.shift as number))))),
    );
    x = tiling.shift(
      b,
      rest,
      poles.reduce((total, { weight }) => total + weight, 0),
    );
  }
  const product = (left: SymmetricTiles, right: SymmetricTiles) => tiling.product(b, left, right);
  const m = p === 2 ? tiling.symmetric(b, product(x, h)) : nextM(b, tiling, start, h, p);
  const scaled = tiling.map(m, (tile) => (scale === 1 ? tile : b.mul(tile, a.constant(b, scale ** p))));
  const unscaled = tiling.product(b, h, polynomial(b, tiling, scaled, last));
  const factor = b.mul(b.pow(bound, a.constant(b, -1 / p)), a.constant(b, last.scale * scale));
  const root = tiling.map(unscaled, (tile) => b.mul(tile, factor));
  return {
    root,
    residual: emitResidual(b, a, tiling, d, root, p),
    iterations: a.constant(b, [stages.length + 1], [1, 1]),
  };

  function sum(terms: readonly string[]): string {
    return terms.length === 1 ? (terms[0] as string) : b.op("Sum", terms);
  }
}
