/** The coupled iteration for the inverse p-th root of one large matrix, on the tiles of its upper half. */
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import type { Arithmetic } from "./arithmetic.js";
import { emitLoop } from "./loop.js";
import type { Round, RoundPlan } from "./rounds.js";
import type { SymmetricTiles, Tiling } from "./tiles.js";
import type { Attempt } from "./tries.js";

/** A matrix on its way to its root. */
export interface Damped {
  /** The scaled statistics. */
  readonly c: SymmetricTiles;
  /** At least ‖C‖₂. */
  readonly bound: string;
  readonly ridge: string;
}

/** D = C + ridge·I, its bound, and D over it, which lies below 1. */
export function normalised(b: GraphBuilder, a: Arithmetic, tiling: Tiling, { c, bound: bare, ridge }: Damped) {
  const d = tiling.shift(b, c, ridge);
  const bound = b.add(bare, ridge);
  const inverse = b.div(a.constant(b, 1), bound);
  return { d, bound, start: tiling.map(d, (tile) => b.mul(tile, inverse)) };
}

/** The coupled iteration for D^(−1/p), and its true residual. */
export function emitIteration(
  b: GraphBuilder,
  a: Arithmetic,
  tiling: Tiling,
  damped: Damped,
  plan: RoundPlan,
  p: number,
  maxIterations: number,
): Attempt {
  const { d, bound, start } = normalised(b, a, tiling, damped);

  const rounds = [...(plan.head ? [plan.head] : []), ...plan.tail, plan.last];
  const opening = rounds[0] as Round;
  // H starts as I, so the first round needs no product; its scale waits until the end.
  const first = polynomial(b, tiling, start, opening);
  let scale = opening.scale;
  let iterations = a.constant(b, [rounds.length], [1, 1]);
  if (rounds.length === 1) return finished(first);
  let now = { m: nextM(b, tiling, start, first, p, opening.scale), h: first };
  if (plan.head) {
    const { head } = plan;
    const ratio = b.div(damped.ridge, bound);
    const thresholds = a.constant(b, [...plan.thresholds], [1, plan.thresholds.length]);
    const due = b.reduceSum(b.cast(b.less(ratio, thresholds), DataType.INT64), [0, 1], false);
    const trips = b.op("Min", [b.op("Max", [b.sub(due, b.i64(1)), b.i64(0)]), b.i64(maxIterations)]);
    now = emitHeads(b, a, tiling, now, trips, (inner, before) => advance(inner, tiling, before, head, p));
    iterations = b.add(iterations, b.cast(trips, a.type));
  }
  for (const round of plan.tail.slice(plan.head ? 0 : 1)) now = advance(b, tiling, now, round, p);
  scale *= plan.last.scale;
  return finished(tiling.product(b, now.h, polynomial(b, tiling, now.m, plan.last)));

  function finished(unscaled: SymmetricTiles): Attempt {
    const factor = b.mul(b.pow(bound, a.constant(b, -1 / p)), a.constant(b, scale));
    const root = tiling.map(unscaled, (tile) => b.mul(tile, factor));
    return { root, residual: emitResidual(b, a, tiling, d, root, p), iterations };
  }
}

interface Pair {
  readonly m: SymmetricTiles;
  readonly h: SymmetricTiles;
}

/** A round in the middle: M·T(M)ᵖ and H·T(M). */
function advance(b: GraphBuilder, tiling: Tiling, { m, h }: Pair, round: Round, p: number): Pair {
  const t = polynomial(b, tiling, m, round);
  return { m: nextM(b, tiling, m, t, p, round.scale), h: tiling.product(b, h, t, { scale: round.scale }) };
}

/** T(M)/scale. */
export function polynomial(b: GraphBuilder, tiling: Tiling, m: SymmetricTiles, round: Round): SymmetricTiles {
  if (round.degree === 1) return tiling.shift(b, m, round.gamma);
  const { centre, alpha, kappa, linear, gamma } = round;
  const e = tiling.shift(b, m, -centre);
  const q = tiling.product(b, tiling.shift(b, m, alpha - centre), e);
  // The last round's factor is no float32 number, so Gemm cannot apply it.
  const exact = Math.fround(linear) === linear;
  const shifted = tiling.shift(b, m, gamma - centre);
  const tiles = exact ? shifted : tiling.map(shifted, (tile) => b.mul(tile, b.constant(tiling.type, linear)));
  return tiling.product(b, tiling.shift(b, q, kappa), q, { plus: { tiles, weight: exact ? linear : 1 } });
}

/** The rounds of the head after the first, as a Loop over the tiles of M and H. */
function emitHeads(
  b: GraphBuilder,
  a: Arithmetic,
  tiling: Tiling,
  start: Pair,
  trips: string,
  round: (b: GraphBuilder, before: Pair) => Pair,
): Pair {
  const { shapes } = tiling;
  const keys = shapes.map((_, k) => k);
  const pairOf = (values: Readonly<Record<string, string>>): Pair => ({
    m: keys.map((k) => values[`m${k}`] as string),
    h: keys.map((k) => values[`h${k}`] as string),
  });
  const carriedOf = ({ m, h }: Pair) =>
    Object.fromEntries(
      keys.flatMap((k) => [
        [`m${k}`, m[k] as string],
        [`h${k}`, h[k] as string],
      ]),
    ) as Record<string, string>;
  const initial = Object.fromEntries(
    Object.entries(carriedOf(start)).map(([key, value]) => [
      key,
      { value, type: { elemType: a.type, shape: shapes[Number(key.slice(1))] as [number, number] } },
    ]),
  );
  return pairOf(
    emitLoop(b, trips, initial, (inner, values) => ({
      again: inner.constant(DataType.BOOL, 1),
      values: carriedOf(round(inner, pairOf(values))),
    })),
  );
}

/** max|D·Hᵖ − I|. Hᵖ is symmetric; that H commutes with D is not taken for granted. */
export function emitResidual(
  b: GraphBuilder,
  a: Arithmetic,
  tiling: Tiling,
  d: SymmetricTiles,
  h: SymmetricTiles,
  p: number,
): string {
  const power = emitPower(b, tiling, h, p);
  const largest: string[] = [];
  const sums: string[] = [];
  for (const { tile, diagonal } of tiling.wholeProduct(b, d, power)) {
    const error = diagonal === undefined ? tile : b.sub(tile, tiling.identity(b, diagonal));
    largest.push(b.reduce("ReduceMax", b.abs(error), [0, 1], true));
    sums.push(b.reduceSum(error, [0, 1], true));
  }
  // A maximum may pass over NaN; a sum does not.
  const finite = b.mul(b.op("Sum", sums), a.constant(b, 0));
  return b.add(b.op("Max", largest), finite);
}

/** M·(scale·T)ᵖ. With M as a factor of the last products no large power of T, and of its rounding, is ever formed. */
export function nextM(
  b: GraphBuilder,
  tiling: Tiling,
  m: SymmetricTiles,
  t: SymmetricTiles,
  p: number,
  scale?: number,
): SymmetricTiles {
  const times = (left: SymmetricTiles, right: SymmetricTiles) => tiling.product(b, left, right, { scale });
  const odd = p % 2 === 1 ? times(m, t) : m;
  if (p === 1) return tiling.symmetric(b, odd);
  const half = emitPower(b, tiling, t, Math.floor(p / 2), scale);
  return tiling.symmetric(b, times(times(odd, half), half));
}

/** scale^(n−1)·tⁿ, by repeated squaring. */
function emitPower(b: GraphBuilder, tiling: Tiling, t: SymmetricTiles, n: number, scale?: number): SymmetricTiles {
  if (n === 1) return t;
  const half = emitPower(b, tiling, t, Math.floor(n / 2), scale);
  const square = tiling.product(b, half, half, { scale });
  return n % 2 === 0 ? square : tiling.product(b, square, t, { scale });
}
