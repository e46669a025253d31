/**
 * Coefficients of the coupled iteration for M^(−1/p):
 *
 *     T = c₀I + c₁M (+ c₂M²)      M ← M·Tᵖ      H ← H·T
 *
 * Plain Newton has T = ((p + 1)I − M)/p, which lets a small eigenvalue grow by only ((p + 1)/p)ᵖ in a round (Higham,
 * Functions of Matrices, 7.18). Since the ridge bounds the spectrum from below, each round can take the polynomial that
 * is best for the interval [l, 1] that holds the eigenvalues of M: of all polynomials of its degree, the one for which
 * x^(1/p)·T(x) stays nearest to a constant on [l, 1], scaled so that its largest value is 1. Then [l, 1] becomes
 * [l', 1] with the largest l'. For degree 1 that grows small eigenvalues by up to (p + 1)^(p + 1)/pᵖ (6.75 for p = 2,
 * 12.2 for p = 4, against 2.25 and 2.44) and is Newton's step after the best scaling of M; as l → 1 it becomes Newton's.
 */

export interface CoefficientTable {
  /** c₀, c₁ (, c₂) of each round. */
  readonly rows: readonly (readonly number[])[];
  /** The l that each round is meant for, ascending. The spectrum must lie in [l, 1]. */
  readonly bounds: readonly number[];
}

/** Best weighted polynomial of degree 1 or 2 for [l, 1], and l'. */
function bestPolynomial(l: number, p: number, degree: 1 | 2): number[] {
  const coefficients = degree === 1 ? linear(l, p) : quadratic(l, p);
  const top = Math.max(
    ...extrema(coefficients, p).map((x) => weighted(coefficients, x, p)),
    weighted(coefficients, 1, p),
  );
  return coefficients.map((c) => c / top);
}

/** x^(1/p)·T(x). */
function weighted(coefficients: readonly number[], x: number, p: number): number {
  return x ** (1 / p) * evaluate(coefficients, x);
}

function evaluate(coefficients: readonly number[], x: number): number {
  return coefficients.reduceRight((sum, c) => sum * x + c, 0);
}

/** Where x^(1/p)·T(x) has its maxima and minima inside (0, 1): T/p + x·T' = 0. */
function extrema(coefficients: readonly number[], p: number): number[] {
  const [a = 0, b = 0, c = 0] = coefficients.map((value, k) => value * (1 / p + k));
  const roots = c === 0 ? [-a / b] : quadraticRoots(a, b, c);
  return roots.filter((x) => x > 0 && x < 1).sort((x, y) => x - y);
}

/** Real roots of a + bx + cx². */
function quadraticRoots(a: number, b: number, c: number): number[] {
  const discriminant = b * b - 4 * a * c;
  if (discriminant < 0) return [];
  const q = -(b + Math.sign(b || 1) * Math.sqrt(discriminant)) / 2;
  return [q / c, a / q];
}

/** T = 1 − rx with equal ends: l^(1/p)(1 − rl) = 1 − r. */
function linear(l: number, p: number): number[] {
  const root = l ** (1 / p);
  // Near 1 the quotient loses its digits; Newton's own coefficients are its limit.
  const r = 1 - l < 1e-6 ? 1 / (p + 1) : (1 - root) / (1 - root * l);
  return [1, -r];
}

/** Exchange algorithm (Remez): values at l, x₁, x₂, 1 alternate about a constant. */
function quadratic(l: number, p: number): number[] {
  // Near 1: the series of x^(−1/p) about 1, which is what the best polynomial tends to.
  if (1 - l < 1e-3) return series(p);
  let points = [l, l + (1 - l) * 0.25, l + (1 - l) * 0.75, 1];
  let coefficients: number[] = [];
  for (let round = 0; round < 100; round++) {
    const rows = points.map((x, i) => {
      const w = x ** (1 / p);
      return [w, w * x, w * x * x, i % 2 === 0 ? 1 : -1, 1];
    });
    coefficients = solve(rows).slice(0, 3);
    const inside = extrema(coefficients, p).filter((x) => x > l);
    if (inside.length !== 2) break;
    const next = [l, ...inside, 1];
    const moved = Math.max(...next.map((x, i) => Math.abs(x - (points[i] as number)) / x));
    points = next;
    if (moved < 1e-13) break;
  }
  return coefficients;
}

/** 1 + e/p + (1 + p)e²/(2p²) with e = 1 − x, in powers of x. */
function series(p: number): number[] {
  const first = 1 / p;
  const second = (1 + p) / (2 * p * p);
  return [1 + first + second, -first - 2 * second, second];
}

/** Solves a small linear system given as rows [A | b], by elimination with pivoting. */
export function solve(rows: number[][]): number[] {
  const n = rows.length;
  const at = (i: number, j: number) => (rows[i] as number[])[j] as number;
  for (let column = 0; column < n; column++) {
    let pivot = column;
    for (let i = column + 1; i < n; i++) if (Math.abs(at(i, column)) > Math.abs(at(pivot, column))) pivot = i;
    [rows[column], rows[pivot]] = [rows[pivot] as number[], rows[column] as number[]];
    for (let i = 0; i < n; i++) {
      if (i === column) continue;
      const factor = at(i, column) / at(column, column);
      rows[i] = (rows[i] as number[]).map((value, j) => value - factor * at(column, j));
    }
  }
  return Array.from({ length: n }, (_, i) => at(i, n) / at(i, i));
}

export interface TableOptions {
  readonly p: number;
  readonly degree: 1 | 2;
  /** Smallest l that the table serves. */
  readonly smallest: number;
  /** An l that is likely, which gets a row of its own. */
  readonly likely: number;
  /** The last round leaves every eigenvalue within this of 1. */
  readonly tolerance: number;
  /**
   * Smallest l that a polynomial is made for; any larger one is safe too, only slower. A polynomial for [l, 1] maps 1 to
   * l', so that for a tiny l the largest eigenvalues lose the digits that they had (Chen and Chow 2014 see it for p = 2).
   */
  readonly floor: number;
}

/** The rounds from `smallest` on; the last one, which may serve any interval near 1, ends within the tolerance. */
export function coefficientTable(options: TableOptions): CoefficientTable {
  const { p, degree, tolerance } = options;
  const rows: number[][] = [];
  const bounds: number[] = [];
  let l = options.smallest;
  let likely: number | undefined = options.likely > l ? options.likely : undefined;
  for (;;) {
    if (likely !== undefined && l >= likely) {
      l = likely;
      likely = undefined;
    }
    const row = bestPolynomial(Math.max(l, options.floor), p, degree);
    rows.push(row);
    bounds.push(l);
    l *= evaluate(row, l) ** p;
    if ((l >= 1 - tolerance && likely === undefined) || rows.length >= 200) break;
  }
  return { rows, bounds };
}
