/** Inverse p-th roots of a stack of symmetric positive semidefinite matrices, by coupled iteration, as ONNX nodes. */
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import { Arithmetic, any } from "./arithmetic.js";
import { coefficientTable } from "./coefficients.js";
import { exactFraction } from "./fraction.js";
import { emitLoop, emitUnrolled } from "./loop.js";
import type { ShampooOptions } from "./options.js";
import { emitNormFromBelow, emitTopEigenvector } from "./power-iteration.js";
import { type Attempt, emitBranchedTries, emitTries } from "./tries.js";

export interface RootOptions {
  readonly epsilon: number;
  readonly epsilonKind: ShampooOptions["epsilonKind"];
  readonly root: ShampooOptions["root"];
  /** Whether rounds are repeated without a Loop: as many as the worst spectrum needs. Only in float32. */
  readonly unrolled?: boolean;
}

/**
 * The smallest ridge, relative to λ_max, that float32 without a Loop is given: with it the residual stays below 0.03 (with
 * 1e-6 it passes the default threshold of 0.1 now and then), and 20 steps are those of float64 to 1e-4 (docs/webgpu.md).
 */
const FLOAT32_RIDGE = 1e-5;

/** How roots are computed on a device: one without Loop and float64 takes float32, unrolled, and a ridge that suits it. */
export function rootOptionsFor(options: RootOptions, target: "webgpu" | undefined): RootOptions {
  const { epsilon, epsilonKind, root } = options;
  if (target === undefined) return { epsilon, epsilonKind, root };
  return {
    epsilon: epsilonKind === "relative" ? Math.max(epsilon, FLOAT32_RIDGE) : epsilon,
    epsilonKind,
    root: { ...root, precision: "float32" },
    unrolled: true,
  };
}

/** Values by name; all but `root` are [count] float32 (`usable` bool). */
export interface InverseRoots {
  /** (S + ridge·I)^(−1/p), [count, d, d] float32. Meaningless where not usable. */
  readonly root: string;
  /** Whether the root may be used: finite, and its true residual within the threshold; not for a matrix of zeros. */
  readonly usable: string;
  /** Whether every try failed. */
  readonly failed: string;
  /** max|D·Hᵖ − I| of the last try, D the matrix with its ridge. */
  readonly residual: string;
  /** λ_max(D)/λ_min(D), estimated by power iterations on D and H: from below. */
  readonly condition: string;
  /** Rounds of the last try. */
  readonly iterations: string;
  /** Tries with a larger ridge. */
  readonly retries: string;
}

/**
 * D = S + ridge·I, H = D^(−1/p). The matrices are scaled to a largest entry of 1 first, so tiny and huge ones are alike.
 * A bound of λ_max is ‖C⁴‖_F^(1/4), C the scaled matrix, which is at most d^(1/8) too large; with the ridge it gives the
 * interval of the spectrum and so the whole course of the iteration (see coefficients.ts).
 *
 * @param statistics [count, d, d] float32.
 * @param factor a float32 scalar that multiplies the statistics, or undefined.
 */
export function emitInverseRoots(
  b: GraphBuilder,
  statistics: string,
  count: number,
  size: number,
  exponent: number,
  options: RootOptions,
  factor?: string,
): InverseRoots {
  const a = new Arithmetic(options.root.precision, count, size);
  const fraction = exactFraction(exponent);
  if (!fraction) throw new Error(`${exponent} is no exponent`);
  const relative = options.epsilonKind === "relative";
  let s = a.double ? b.cast(statistics, DataType.DOUBLE) : statistics;
  if (factor) s = b.mul(s, a.double ? b.cast(factor, DataType.DOUBLE) : factor);
  const largest = b.reduce("ReduceMax", s, [1, 2], true);
  const zero = relative ? b.equal(largest, a.constant(b, 0)) : undefined;
  const unit = zero
    ? b.where(zero, a.constant(b, 1), largest)
    : b.max(b.add(largest, a.constant(b, options.epsilon)), a.tiny(b));
  const c = b.div(s, unit);
  const squared = b.matMul(c, c);
  const fourth = b.matMul(squared, squared);
  const bound = b.sqrt(b.sqrt(b.reduce("ReduceL2", fourth, [1, 2], true)));
  const top = relative ? emitTopEigenvalue(b, a, c, fourth, options.unrolled) : bound;
  let ridge = relative ? b.mul(top, a.constant(b, options.epsilon)) : b.div(a.constant(b, options.epsilon), unit);
  if (options.unrolled && !relative) ridge = b.max(ridge, b.mul(bound, a.constant(b, FLOAT32_RIDGE)));
  if (zero) ridge = b.where(zero, a.constant(b, 1), ridge);

  const eye = b.op("EyeLike", [b.op("ConstantOfShape", [b.i64([size, size])])], { dtype: a.type });
  const attempt = (inner: GraphBuilder, ridgeNow: string) =>
    emitIteration(
      inner,
      a,
      { c, squared, bound, ridge: ridgeNow, eye },
      {
        numerator: fraction.numerator,
        denominator: fraction.denominator,
        ...options,
      },
    );
  const emit = options.unrolled ? emitBranchedTries : emitTries;
  const tried = emit(b, a, [c], [a.matrices], ridge, options.root, attempt);
  const [rooted] = tried.root as [string];

  // Undo the scaling: (unit·D)^(−1/p) = unit^(−1/p)·D^(−1/p).
  const power = integerPower(b, rooted, fraction.denominator);
  const unscaled = b.mul(power, b.pow(unit, a.constant(b, -1 / exponent)));
  const root = a.double ? b.cast(unscaled, DataType.FLOAT) : unscaled;
  const overflow = b.op("IsInf", [b.reduce("ReduceMax", root, [1, 2], true)]);
  const ok = b.op("And", [tried.ok, b.op("Not", [overflow])]);
  const nonzero = zero ? b.op("Not", [zero]) : undefined;
  const failed = nonzero ? b.op("And", [b.op("Not", [ok]), nonzero]) : b.op("Not", [ok]);
  const condition = b.mul(
    b.add(top, tried.ridge),
    b.pow(emitNormFromBelow(b, a, rooted), a.constant(b, fraction.numerator)),
  );
  const flat = (value: string, type?: DataType) => b.reshape(type === undefined ? value : b.cast(value, type), [count]);
  return {
    root,
    usable: flat(nonzero ? b.op("And", [ok, nonzero]) : ok),
    failed: flat(failed),
    residual: flat(tried.residual, DataType.FLOAT),
    condition: flat(condition, DataType.FLOAT),
    iterations: flat(tried.iterations, DataType.FLOAT),
    retries: flat(tried.retries, DataType.FLOAT),
  };
}

/** λ_max by power iteration with C⁴; the Rayleigh quotient at the end is of C. */
function emitTopEigenvalue(b: GraphBuilder, a: Arithmetic, c: string, fourth: string, unrolled?: boolean): string {
  const vector = emitTopEigenvector(b, a, fourth, a.double ? 1e-7 : 1e-5, unrolled);
  const product = b.reduceSum(b.mul(vector, b.matMul(vector, c)), [1, 2], true);
  const square = b.max(b.reduceSum(b.mul(vector, vector), [1, 2], true), a.tiny(b));
  return b.div(product, square);
}

/** A stack on its way to its roots. */
interface Damped {
  /** The scaled statistics C, and C². */
  readonly c: string;
  readonly squared: string;
  /** At least ‖C‖₂. */
  readonly bound: string;
  readonly ridge: string;
  readonly eye: string;
}

/** The coupled iteration for D^(−1/numerator), D = C + ridge·I, and its true residual. */
function emitIteration(
  b: GraphBuilder,
  a: Arithmetic,
  { c, squared, bound: bare, ridge, eye }: Damped,
  options: RootOptions & { numerator: number; denominator: number },
): Attempt {
  const d = b.add(c, b.mul(ridge, eye));
  const bound = b.add(bare, ridge);
  const p = options.numerator;
  const table = coefficientTable({
    p,
    degree: options.root.solver === "newton" ? 1 : 2,
    smallest: a.double ? 1e-15 : 1e-8,
    likely: options.epsilonKind === "relative" ? Math.min(0.5, options.epsilon / (1 + options.epsilon) / 1.1) : 0,
    tolerance: options.root.tolerance,
    // Measured: as accurate as the plain iteration, at half its rounds.
    floor: a.double ? 1e-2 : 5e-2,
  });
  const last = table.rows.length - 1;
  const degree = (table.rows[0] as number[]).length - 1;
  const columns = Array.from({ length: degree + 1 }, (_, k) =>
    a.constant(
      b,
      table.rows.map((row) => row[k] as number),
    ),
  );
  const coefficient = (inner: GraphBuilder, k: number, row: string) => inner.gather(columns[k] as string, row);
  const combine = (inner: GraphBuilder, m: string, square: () => string, row: (k: number) => string) => {
    const scaled = inner.add(inner.mul(eye, row(0)), inner.mul(m, row(1)));
    return degree === 1 ? scaled : inner.add(scaled, inner.mul(square(), row(2)));
  };
  const polynomial = (inner: GraphBuilder, m: string, row: string) =>
    combine(
      inner,
      m,
      () => inner.matMul(m, m),
      (k) => coefficient(inner, k, row),
    );

  // The first round that the interval [ridge/bound, 1] allows: the last row whose own interval holds it.
  const bounds = a.constant(b, [...table.bounds], [1, 1, last + 1]);
  const reached = b.cast(b.op("LessOrEqual", [bounds, b.div(ridge, bound)]), DataType.INT32);
  const row = b.max(b.sub(b.reduceSum(reached, [2], true), b.i32(1)), b.i32(0));
  const m = b.div(d, bound);
  const first = combine(
    b,
    c,
    () => squared,
    shifted(
      b,
      Array.from({ length: degree + 1 }, (_, k) => coefficient(b, k, row)),
      b.div(a.constant(b, 1), bound),
      ridge,
    ),
  );
  const begun = {
    m: { value: timesPower(b, m, first, p), type: a.matrices },
    h: { value: b.mul(first, b.pow(bound, a.constant(b, -1 / p))), type: a.matrices },
    row: {
      value: b.min(b.add(row, b.i32(1)), b.i32(last)),
      type: { elemType: DataType.INT32, shape: a.scalars.shape },
    },
  };
  const unfinished = (inner: GraphBuilder, at: string) => any(inner, inner.less(at, inner.i32(last)));
  const repeat = options.unrolled ? emitUnrolled : emitLoop;
  const ended = repeat(
    b,
    options.unrolled
      ? Math.min(worstRounds(table.bounds, a.size), options.root.maxIterations)
      : options.root.maxIterations,
    begun,
    (inner, now) => {
      const t = polynomial(inner, now.m, now.row);
      const next = inner.min(inner.add(now.row, inner.i32(1)), inner.i32(last));
      return {
        again: unfinished(inner, next),
        values: { m: timesPower(inner, now.m, t, p), h: inner.matMul(now.h, t), row: next },
      };
    },
    unfinished(b, begun.row.value),
  );
  const h = b.matMul(ended.h, polynomial(b, ended.m, ended.row));
  const error = b.sub(timesPower(b, d, h, p), eye);
  // A maximum may pass over NaN; a sum does not.
  const finite = b.mul(b.reduceSum(error, [1, 2], true), a.constant(b, 0));
  const residual = b.add(b.reduce("ReduceMax", b.abs(error), [1, 2], true), finite);
  return { root: [h], residual, iterations: b.cast(b.add(b.sub(ended.row, row), b.i32(1)), a.type) };
}

/** Rounds after the first, and before the last, when the ridge is the smallest of float32 and the bound d^(1/8) too large. */
function worstRounds(bounds: readonly number[], size: number): number {
  const smallest = FLOAT32_RIDGE / (1.01 * size ** (1 / 8) + FLOAT32_RIDGE);
  const first = Math.max(bounds.filter((bound) => bound <= smallest).length - 1, 0);
  return Math.max(bounds.length - 1 - (first + 1), 0);
}

/** The coefficients of T((C + ridge·I)·scale) as a polynomial of C, whose square is there already. */
function shifted(b: GraphBuilder, of: readonly string[], scale: string, ridge: string): (k: number) => string {
  const [zeroth, first, second] = of as [string, string, string | undefined];
  const linear = b.mul(first, scale);
  if (second === undefined) return (k) => (k === 0 ? b.add(zeroth, b.mul(linear, ridge)) : linear);
  const square = b.mul(second, b.mul(scale, scale));
  const squareRidge = b.mul(square, ridge);
  const shiftedLinear = b.add(linear, b.add(squareRidge, squareRidge));
  const constant = b.add(zeroth, b.mul(ridge, b.add(linear, squareRidge)));
  return (k) => [constant, shiftedLinear, square][k] as string;
}

/** x·yᵖ for commuting x and y, by repeated squaring. */
function timesPower(b: GraphBuilder, x: string, y: string, p: number): string {
  let result = x;
  let power = y;
  for (let rest = p; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) result = b.matMul(result, power);
    if (rest > 1) power = b.matMul(power, power);
  }
  return result;
}

/** hᵠ for the denominator q of a rational exponent. */
function integerPower(b: GraphBuilder, h: string, q: number): string {
  return q === 1 ? h : timesPower(b, h, h, q - 1);
}
