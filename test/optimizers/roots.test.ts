/** Inverse roots against eigendecompositions. */
import { Matrix } from "ml-matrix";
import { describe, expect, it } from "vitest";
import { DataType } from "../../src/onnx/proto.js";
import { parseOptions } from "../../src/optimizers/options.js";
import { coefficientTable } from "../../src/optimizers/shampoo/coefficients.js";
import { emitInverseRoots } from "../../src/optimizers/shampoo/newton.js";
import { rootOptions } from "../../src/optimizers/shampoo/options.js";
import { f32, modelOf, newBuilder, runModel } from "../support/run.js";
import { largestEigenvalue, matrixFunction, maxDifference, normals, rounded, withEigenvalues } from "./matrices.js";

interface Setting {
  exponent: number;
  epsilon?: number;
  epsilonKind?: "relative" | "absolute";
  root?: Record<string, unknown>;
}

interface Rooted {
  roots: Matrix[];
  usable: number[];
  failed: number[];
  residual: number[];
  condition: number[];
  iterations: number[];
  retries: number[];
}

/** Roots of a stack of equal-sized matrices, computed by the graph. */
async function rootsOf(matrices: readonly Matrix[], setting: Setting): Promise<Rooted> {
  const count = matrices.length;
  const size = (matrices[0] as Matrix).rows;
  const b = newBuilder();
  b.input("s", { elemType: DataType.FLOAT, shape: [count, size, size] });
  const result = emitInverseRoots(b, "s", count, size, setting.exponent, {
    epsilon: setting.epsilon ?? 1e-6,
    epsilonKind: setting.epsilonKind ?? "relative",
    root: parseOptions(rootOptions, setting.root ?? {}, "root"),
  });
  for (const [key, value] of Object.entries(result)) {
    const bool = key === "usable" || key === "failed";
    b.output(b.alias(value, `result:${key}`), { elemType: bool ? DataType.BOOL : DataType.FLOAT, shape: undefined });
  }
  const data = matrices.flatMap((matrix) => matrix.to1DArray());
  const out = await runModel(modelOf(b.graph), { s: f32(data, [count, size, size]) });
  const numbers = (key: string) => Array.from(out[`result:${key}`]?.data as ArrayLike<number>, Number);
  const flat = numbers("root");
  return {
    roots: matrices.map((_, i) => Matrix.from1DArray(size, size, flat.slice(i * size * size, (i + 1) * size * size))),
    usable: numbers("usable"),
    failed: numbers("failed"),
    residual: numbers("residual"),
    condition: numbers("condition"),
    iterations: numbers("iterations"),
    retries: numbers("retries"),
  };
}

/** The root of the matrix with its ridge, by eigendecomposition of what float32 holds. */
function reference(matrix: Matrix, exponent: number, epsilon: number): Matrix {
  const ridge = epsilon * largestEigenvalue(matrix);
  return matrixFunction(matrix, (x) => (x + ridge) ** (-1 / exponent));
}

function error(actual: Matrix, expected: Matrix): number {
  return maxDifference(actual, expected) / expected.clone().abs().max();
}

const SOLVERS = ["newton", "higher-order"] as const;

describe("inverse roots", () => {
  it.each(SOLVERS)("of an integer matrix whose root is known (%s)", async (solver) => {
    // Meta's test matrix: its inverse square root is an integer matrix, and no entry or eigenvector is special.
    const matrix = new Matrix([
      [1195, -944, -224],
      [-944, 746, 177],
      [-224, 177, 42],
    ]);
    const expected = new Matrix([
      [1, 1, 1],
      [1, 2, -3],
      [1, -3, 18],
    ]);
    const { roots, residual } = await rootsOf([matrix], {
      exponent: 2,
      epsilon: 0,
      epsilonKind: "absolute",
      root: { solver },
    });
    expect(maxDifference(roots[0] as Matrix, expected)).toBeLessThan(1e-4);
    expect(residual[0]).toBeLessThan(1e-6);
  });

  const EXPONENTS = [1, 2, 3, 4, 6, 8, 1.5, 8 / 3];

  // Integer matrices of low rank are exact in float32, so the ridge alone decides the condition number, 1/epsilon.
  it.each(SOLVERS.flatMap((solver) => EXPONENTS.map((p) => [solver, p] as const)))(
    "%s, p = %d: rank-deficient matrices with conditions 10² … 10¹⁰",
    async (solver, exponent) => {
      for (const size of [1, 2, 48]) {
        const matrix = integerMatrix(size, Math.ceil(size / 2), size);
        for (const power of [2, 4, 6, 8, 10]) {
          const epsilon = 10 ** -power;
          const { roots, residual, failed, retries } = await rootsOf([matrix], { exponent, epsilon, root: { solver } });
          expect([failed[0], retries[0]]).toEqual([0, 0]);
          const what = `10^${power}, size ${size}`;
          expect(error(roots[0] as Matrix, reference(matrix, exponent, epsilon)), what).toBeLessThan(3e-6);
          expect(residual[0], what).toBeLessThan(1e-4);
        }
      }
    },
  );

  it.each(SOLVERS)("of stacks whose matrices differ in condition (%s)", async (solver) => {
    for (const exponent of [2, 4]) {
      const powers = [0, 1, 2, 3, 4, 5, 6];
      const matrices = powers.map((power, i) =>
        rounded(
          withEigenvalues(
            Array.from({ length: 40 }, (_, k) => 10 ** ((-power * k) / 39)),
            i + 1,
          ),
        ),
      );
      const result = await rootsOf(matrices, { exponent, root: { solver } });
      for (const [i, matrix] of matrices.entries()) {
        expect(error(result.roots[i] as Matrix, reference(matrix, exponent, 1e-6)), `10^${i}`).toBeLessThan(3e-6);
        expect(result.residual[i]).toBeLessThan(1e-6);
        const ratio = (result.condition[i] as number) / (10 ** i / (1 + 10 ** (i - 6)));
        expect(ratio, `condition 10^${i}`).toBeGreaterThan(0.5);
        expect(ratio, `condition 10^${i}`).toBeLessThan(1.1);
      }
    }
  });

  it("does not care about scale, from 10⁻³⁰ to 10³⁰", async () => {
    const matrix = integerMatrix(12, 5, 3);
    for (const scale of [2 ** -100, 2 ** -40, 1, 2 ** 90]) {
      const scaled = Matrix.mul(matrix, scale);
      const { roots, residual } = await rootsOf([scaled], { exponent: 2 });
      expect(error(roots[0] as Matrix, reference(scaled, 2, 1e-6))).toBeLessThan(3e-6);
      expect(residual[0]).toBeLessThan(1e-6);
    }
  });

  it("in float32 are as good as float32 allows", async () => {
    const matrices = [1, 2, 3].map((seed) => integerMatrix(24, 12, seed));
    for (const exponent of [2, 4]) {
      for (const [epsilon, tolerance] of [
        [1e-2, 1e-5],
        [1e-4, 5e-4],
      ] as const) {
        const { roots, failed } = await rootsOf(matrices, {
          exponent,
          epsilon,
          root: { precision: "float32", retries: 0 },
        });
        expect(failed).toEqual([0, 0, 0]);
        for (const [i, matrix] of matrices.entries()) {
          expect(error(roots[i] as Matrix, reference(matrix, exponent, epsilon))).toBeLessThan(tolerance);
        }
      }
    }
  });

  it("in float32 with a ridge too small for it get a larger one", async () => {
    const { usable, retries } = await rootsOf([integerMatrix(24, 12, 2)], {
      exponent: 4,
      root: { precision: "float32", threshold: 0.01 },
    });
    expect(usable).toEqual([1]);
    expect(retries[0]).toBeGreaterThan(0);
  });

  it("take an absolute ridge as it stands", async () => {
    const matrix = integerMatrix(10, 4, 1);
    for (const epsilon of [1e-3, 1, 1e6]) {
      const { roots } = await rootsOf([matrix, Matrix.zeros(10, 10)], {
        exponent: 4,
        epsilon,
        epsilonKind: "absolute",
      });
      expect(
        error(
          roots[0] as Matrix,
          matrixFunction(matrix, (x) => (x + epsilon) ** -0.25),
        ),
      ).toBeLessThan(3e-6);
      expect(error(roots[1] as Matrix, Matrix.eye(10).mul(epsilon ** -0.25))).toBeLessThan(3e-6);
    }
  });

  it("fail alone: the others of the stack are not touched, and zeros are no failure", async () => {
    const good = integerMatrix(8, 4, 1);
    const indefinite = withEigenvalues([1, 1, 1, 1, 1, 1, 1, -0.5], 2);
    const nan = Matrix.eye(8);
    nan.set(3, 4, Number.NaN);
    const infinite = Matrix.eye(8);
    infinite.set(3, 3, Number.POSITIVE_INFINITY);
    const huge = Matrix.eye(8).mul(1e-38);
    const stack = [good, indefinite, nan, infinite, Matrix.zeros(8, 8), huge];
    const result = await rootsOf(stack, { exponent: 1, root: { retries: 2 } });
    expect(result.usable).toEqual([1, 0, 0, 0, 0, 1]);
    expect(result.failed).toEqual([0, 1, 1, 1, 0, 0]);
    expect(result.retries.slice(0, 4)).toEqual([0, 2, 2, 2]);
    expect(error(result.roots[0] as Matrix, reference(good, 1, 1e-6))).toBeLessThan(3e-6);
    const overflowing = await rootsOf([huge.mul(1e-2)], { exponent: 1 });
    expect([overflowing.usable[0], overflowing.failed[0]]).toEqual([0, 1]);
  });

  it("are tried again with a larger ridge", async () => {
    // The smallest eigenvalue is −10⁻⁵ of the largest: a ridge of 10⁻⁶ cannot lift it, one of 10⁻⁴ does.
    const matrix = rounded(withEigenvalues([1, 0.5, 0.2, -1e-5], 5));
    const { roots, retries, usable } = await rootsOf([matrix, Matrix.eye(4)], { exponent: 4 });
    expect([retries, usable]).toEqual([
      [2, 0],
      [1, 1],
    ]);
    expect(error(roots[0] as Matrix, reference(matrix, 4, 1e-4))).toBeLessThan(1e-5);
    const strict = await rootsOf([matrix], { exponent: 4, root: { retries: 1 } });
    expect(strict.failed).toEqual([1]);
  });
});

describe("the coefficients of the iteration", () => {
  it.each([1, 2, 3, 4, 8].flatMap((p) => [1, 2].map((degree) => [p, degree] as const)))(
    "p = %d, degree %d: keep every eigenvalue of [l, 1] positive, within 1, and drive it to 1",
    (p, degree) => {
      const table = coefficientTable({
        p,
        degree: degree as 1 | 2,
        smallest: 1e-9,
        likely: 1e-6,
        tolerance: 1e-8,
        floor: 1e-2,
      });
      expect(table.bounds).toContain(1e-6);
      let [smallestFactor, largestValue, worst] = [Number.POSITIVE_INFINITY, 0, 0];
      for (const [from, low] of table.bounds.entries()) {
        for (let i = 0; i <= 200; i++) {
          const start = low ** (1 - i / 200);
          let [x, h] = [start, 1];
          for (const row of table.rows.slice(from)) {
            const t = row.reduceRight((sum, c) => sum * x + c, 0);
            x *= t ** p;
            h *= t;
            smallestFactor = Math.min(smallestFactor, t);
            largestValue = Math.max(largestValue, x);
          }
          worst = Math.max(worst, Math.abs(h * start ** (1 / p) - 1));
        }
      }
      expect(smallestFactor).toBeGreaterThan(0);
      expect(largestValue).toBeLessThan(1 + 1e-9);
      expect(worst).toBeLessThan(1e-7);
    },
  );
});

/** AAᵀ with integer entries, exact in float32. */
function integerMatrix(size: number, rank: number, seed: number): Matrix {
  const values = normals(size * rank, seed).map((x) => Math.round(5 * x) || 1);
  const factor = Matrix.from1DArray(size, rank, values);
  return factor.mmul(factor.transpose());
}
