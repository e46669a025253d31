/** The inverse p-th root of one large matrix, in the tiles of its upper half. */
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import { Arithmetic } from "./arithmetic.js";
import { emitIteration } from "./coupled-iteration.js";
import { exactFraction } from "./fraction.js";
import type { InverseRoots, RootOptions } from "./newton.js";
import { emitNormFromBelow, emitTopEigenvector } from "./power-iteration.js";
import { emitRational, planRational } from "./rational-roots.js";
import { planRounds } from "./rounds.js";
import { type SymmetricTiles, Tiling } from "./tiles.js";
import { emitTries } from "./tries.js";

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

/** What inverses of ill-conditioned matrices leave, at best. */
const FINEST_TOLERANCE = 1e-9;

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
  const rational = suitsRational(a, options)
    ? planRational(p, intervals(options.epsilon, size).certain, options.root.tolerance / 5)
    : undefined;
  const attempt = (inner: GraphBuilder, ridgeNow: string) =>
    rational
      ? emitRational(inner, a, tiling, { c, bound, ridge: ridgeNow }, rational, p)
      : emitIteration(inner, a, tiling, { c, bound, ridge: ridgeNow }, plan, p, options.root.maxIterations);
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

/** Whether the ridge keeps the condition within what inverses by halves are good for. */
function suitsRational(a: Arithmetic, { epsilonKind, epsilon, root }: RootOptions): boolean {
  const wellConditioned = a.double && epsilonKind === "relative" && epsilon > WELL_CONDITIONED;
  return wellConditioned && root.solver === "higher-order" && root.tolerance >= FINEST_TOLERANCE;
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
