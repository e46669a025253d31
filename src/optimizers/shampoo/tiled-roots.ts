/** The inverse p-th root of one large matrix: the coupled iteration on the tiles of its upper half. */
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import { Arithmetic } from "./arithmetic.js";
import { exactFraction } from "./fraction.js";
import { emitLoop } from "./loop.js";
import type { InverseRoots, RootOptions } from "./newton.js";
import { emitNormFromBelow, emitTopEigenvector } from "./power-iteration.js";
import { planRounds, type Round, type RoundPlan } from "./rounds.js";
import { type SymmetricTiles, Tiling } from "./tiles.js";
import { type Attempt, emitTries } from "./tries.js";

/** Smallest size for which tiles are faster than whole matrices in stacks. */
const SMALLEST_TILED = 192;

/** Whether matrices of a size are rooted one by one, in tiles. */
export function isTiled(size: number): boolean {
  return size >= SMALLEST_TILED;
}

/**
 * How much larger than λ_max the bound ‖C⁴‖_F^(1/4) is likely to be, at most: it is the 8-norm of the spectrum, which for
 * one that falls evenly over six decades is 1.3 of its largest value at d = 1000.
 */
const LIKELY_SLACK = 1.4;

/** Above this relative ridge float64 has digits to spare, and a lower floor saves a round. */
const WELL_CONDITIONED = 1e-7;

/**
 * The same as `emitInverseRoots` for a single matrix.
 * @param statistics [d, d] float32.
 * @returns the root [d, d] float32, and [1, 1] values.
 */
export function emitTiledRoot(
  b: GraphBuilder,
  statistics: string,
  size: number,
  exponent: number,
  options: RootOptions,
  factor?: string,
): InverseRoots {
  const a = new Arithmetic(options.root.precision, undefined, size);
  const tiling = new Tiling(size, a.type);
  const fraction = exactFraction(exponent);
  if (!fraction) throw new Error(`${exponent} is no exponent`);
  const relative = options.epsilonKind === "relative";
  const wide = (value: string) => (a.double ? b.cast(value, DataType.DOUBLE) : value);

  // C = S/unit; the factor of the statistics is that of unit.
  const largest = b.reduce("ReduceMax", statistics, [0, 1], true);
  const factored = factor ? b.mul(wide(largest), wide(factor)) : wide(largest);
  const zero = relative ? b.equal(largest, b.f32(0)) : undefined;
  const unit = zero
    ? b.where(zero, a.constant(b, 1), factored)
    : b.max(b.add(factored, a.constant(b, options.epsilon)), a.tiny(b));
  const divisor = factor ? b.div(unit, wide(factor)) : unit;
  const c = tiling.map(tiling.split(b, statistics), (tile) => b.div(wide(tile), divisor));

  const { bound, top } = emitSpectrum(b, a, tiling, c, statistics, divisor, relative);
  let ridge = relative ? b.mul(top, a.constant(b, options.epsilon)) : b.div(a.constant(b, options.epsilon), unit);
  if (zero) ridge = b.where(zero, a.constant(b, 1), ridge);

  const p = fraction.numerator;
  const plan = planRounds({
    p,
    degree: options.root.solver === "newton" ? 1 : 4,
    smallest: a.double ? 1e-15 : 1e-8,
    ...(relative && intervals(options.epsilon, size)),
    // A fifth, since every eigenvalue may come out as far from 1 as this; no less than rounding leaves.
    tolerance: Math.max(options.root.tolerance / 5, a.double ? 1e-13 : 1e-6),
    floor: a.double && relative && options.epsilon > WELL_CONDITIONED ? 2e-3 : 5e-2,
  });
  const attempt = (inner: GraphBuilder, ridgeNow: string) =>
    emitIteration(inner, a, tiling, { c, bound, ridge: ridgeNow }, plan, p, options.root.maxIterations);
  const carried = tiling.shapes.map((shape) => ({ elemType: a.type, shape }));
  const tried = emitTries(b, a, c, carried, ridge, options.root, attempt);

  // Undo the scaling: (unit·D)^(−1/p) = unit^(−1/p)·D^(−1/p).
  let power = tried.root;
  for (let q = 1; q < fraction.denominator; q++) power = tiling.product(b, power, tried.root);
  const scale = b.pow(unit, a.constant(b, -1 / exponent));
  const root = tiling.join(
    b,
    tiling.map(power, (tile) => {
      const unscaled = b.mul(tile, scale);
      return a.double ? b.cast(unscaled, DataType.FLOAT) : unscaled;
    }),
  );
  const overflow = b.op("IsInf", [b.reduce("ReduceMax", root, [0, 1], true)]);
  const ok = b.op("And", [tried.ok, b.op("Not", [overflow])]);
  const nonzero = zero ? b.op("Not", [zero]) : undefined;
  const failed = nonzero ? b.op("And", [b.op("Not", [ok]), nonzero]) : b.op("Not", [ok]);
  // λ_max(D)/λ_min(D), the smallest from the root's norm.
  const stretch = wide(emitNormFromBelow(b, new Arithmetic("float32", undefined, size), root));
  const condition = b.mul(b.mul(b.add(top, tried.ridge), unit), b.pow(stretch, a.constant(b, exponent)));
  const single = (value: string) => b.cast(value, DataType.FLOAT);
  return {
    root,
    usable: nonzero ? b.op("And", [ok, nonzero]) : ok,
    failed,
    residual: single(tried.residual),
    condition: single(condition),
    iterations: single(tried.iterations),
    retries: single(tried.retries),
  };
}

/** The l that a relative ridge makes likely, and the one that the bound's worst case, d^(1/8), allows. */
function intervals(epsilon: number, size: number): { likely: number; certain: number } {
  const ridge = epsilon / (1 + epsilon);
  return { likely: ridge / LIKELY_SLACK, certain: ridge / (1.1 * size ** (1 / 8)) };
}

/**
 * A bound of λ_max(C), ‖C⁴‖_F^(1/4), and λ_max itself. Both are good enough in float32 but for the last step, the
 * Rayleigh quotient, whose error is the square of the vector's.
 */
function emitSpectrum(
  b: GraphBuilder,
  a: Arithmetic,
  tiling: Tiling,
  c: SymmetricTiles,
  statistics: string,
  divisor: string,
  relative: boolean,
): { bound: string; top: string } {
  const { size } = a;
  const single = b.div(statistics, a.double ? b.cast(divisor, DataType.FLOAT) : divisor);
  const squared = b.matMul(single, single);
  const fourth = b.matMul(squared, squared);
  const norm = b.sqrt(b.sqrt(b.reduce("ReduceL2", fourth, [0, 1], true)));
  // A thousand float32 terms in a sum are good to 1e-5 at worst.
  const safe = b.mul(norm, b.f32(1 + 1e-5));
  const bound = a.double ? b.cast(safe, DataType.DOUBLE) : safe;
  if (!relative) return { bound, top: bound };
  const vector = emitTopEigenvector(b, new Arithmetic("float32", undefined, size), fourth, 3e-7);
  const v = a.double ? b.cast(vector, DataType.DOUBLE) : vector;
  const quotient = b.div(emitQuadratic(b, tiling, c, v), b.max(b.reduceSum(b.mul(v, v), [0, 1], true), a.tiny(b)));
  return { bound, top: quotient };
}

/** v·C·vᵀ of a row v. */
function emitQuadratic(b: GraphBuilder, tiling: Tiling, c: SymmetricTiles, v: string): string {
  const parts = tiling.splitColumn(b, b.reshape(v, [-1, 1])).map((part) => b.reshape(part, [1, -1]));
  const terms: string[] = [];
  tiling.map(c, (tile, i, j) => {
    const product = b.reduceSum(b.mul(b.matMul(parts[i] as string, tile), parts[j] as string), [0, 1], true);
    terms.push(i === j ? product : b.add(product, product));
    return tile;
  });
  return b.op("Sum", terms);
}

interface Damped {
  /** The scaled statistics. */
  readonly c: SymmetricTiles;
  /** At least ‖C‖₂. */
  readonly bound: string;
  readonly ridge: string;
}

/** The coupled iteration for D^(−1/p), D = C + ridge·I, and its true residual. */
function emitIteration(
  b: GraphBuilder,
  a: Arithmetic,
  tiling: Tiling,
  { c, bound: bare, ridge }: Damped,
  plan: RoundPlan,
  p: number,
  maxIterations: number,
): Attempt {
  const d = tiling.shift(b, c, ridge);
  const bound = b.add(bare, ridge);
  const inverse = b.div(a.constant(b, 1), bound);
  const start = tiling.map(d, (tile) => b.mul(tile, inverse));

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
    const ratio = b.div(ridge, bound);
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
function polynomial(b: GraphBuilder, tiling: Tiling, m: SymmetricTiles, round: Round): SymmetricTiles {
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
function emitResidual(
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
function nextM(
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
