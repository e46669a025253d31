/** Inverse roots of large blocks, in tiles, against eigendecompositions. */
import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import { describe, expect, it } from "vitest";
import { DataType } from "../../src/onnx/proto.js";
import { parseOptions } from "../../src/optimizers/options.js";
import { rootOptionsFor } from "../../src/optimizers/shampoo/newton.js";
import { rootOptions } from "../../src/optimizers/shampoo/options.js";
import { emitRoots, groupFactors } from "../../src/optimizers/shampoo/roots.js";
import { evaluateRound, planRounds } from "../../src/optimizers/shampoo/rounds.js";
import { Tiling } from "../../src/optimizers/shampoo/tiles.js";
import { f32, modelOf, newBuilder, runModel } from "../support/run.js";
import { normals } from "./matrices.js";

interface Setting {
  exponent: number;
  epsilon?: number;
  epsilonKind?: "relative" | "absolute";
  root?: Record<string, unknown>;
  target?: "webgpu";
  /** Multiplies the statistics, as their bias correction does. */
  factor?: number;
}

/** Refreshes the roots of matrices of one size, each the statistics of a factor of its own. */
async function rootsOf(matrices: readonly Float32Array[], size: number, setting: Setting) {
  const b = newBuilder();
  const factors = matrices.map((_, i) => ({
    statistics: `s${i}`,
    preconditioner: `p${i}`,
    label: `m${i}`,
    count: 1,
    size,
    exponent: setting.exponent,
    tracePower: 0,
  }));
  const groups = groupFactors(factors);
  expect(groups.map((group) => group.count)).toEqual([matrices.length]);
  for (const { statistics, preconditioner } of factors) {
    b.input(statistics, { elemType: DataType.FLOAT, shape: [size, size] });
    b.input(preconditioner, { elemType: DataType.FLOAT, shape: [size, size] });
  }
  const [group] = groups;
  const failures = `roots/${group?.name}/failures`;
  b.input(failures, { elemType: DataType.FLOAT, shape: [matrices.length] });
  const result = emitRoots(
    b,
    groups,
    rootOptionsFor(
      {
        epsilon: setting.epsilon ?? 1e-6,
        epsilonKind: setting.epsilonKind ?? "relative",
        root: parseOptions(rootOptions, setting.root ?? {}, "root"),
      },
      setting.target,
    ),
    { state: (name) => name },
    setting.factor === undefined ? undefined : b.f32(setting.factor),
  );
  const output = (value: string | undefined, name: string) =>
    b.output(b.alias(value as string, name), { elemType: DataType.FLOAT, shape: undefined });
  for (const [i, { preconditioner }] of factors.entries()) output(result.state.get(preconditioner), `root${i}`);
  output(result.state.get(failures), "failures");
  for (const metric of ["residual", "condition", "iterations", "retries"]) {
    output(result.blockMetrics?.get(`roots/${group?.name}/${metric}`), metric);
  }
  const feeds = Object.fromEntries(
    matrices.flatMap((matrix, i) => [
      [`s${i}`, f32(matrix, [size, size])],
      [`p${i}`, f32(new Float32Array(size * size).fill(7), [size, size])],
    ]),
  );
  feeds[failures] = f32(new Float32Array(matrices.length).fill(2), [matrices.length]);
  const out = await runModel(modelOf(b.graph), feeds);
  const numbers = (name: string) => Array.from(out[name]?.data as ArrayLike<number>, Number);
  return {
    roots: matrices.map((_, i) => numbers(`root${i}`)),
    failures: numbers("failures"),
    residual: numbers("residual"),
    condition: numbers("condition"),
    iterations: numbers("iterations"),
    retries: numbers("retries"),
  };
}

/** AAᵀ of a rank so low that its roots have a closed form, with integer entries, so that float32 holds it exactly. */
class LowRank {
  readonly data: Float32Array;
  readonly eigenvalues: number[];
  private readonly vectors: Matrix;

  constructor(
    readonly size: number,
    rank: number,
    seed: number,
  ) {
    const values = normals(size * rank, seed).map((x, i) => Math.round((i % rank === 0 ? 12 : 5) * x) || 1);
    const a = Matrix.from1DArray(size, rank, values);
    const small = new EigenvalueDecomposition(a.transpose().mmul(a), { assumeSymmetric: true });
    this.eigenvalues = small.realEigenvalues;
    this.vectors = a.mmul(small.eigenvectorMatrix).mmul(Matrix.diag(this.eigenvalues.map((x) => x ** -0.5)));
    this.data = new Float32Array(a.mmul(a.transpose()).to1DArray());
  }

  get largest(): number {
    return Math.max(...this.eigenvalues);
  }

  /** The largest difference from (S + ridge·I)^(−1/p), of the largest entry of that. */
  error(root: readonly number[], p: number, ridge: number): number {
    const base = ridge ** (-1 / p);
    const change = Matrix.diag(this.eigenvalues.map((x) => (x + ridge) ** (-1 / p) - base));
    const expected = this.vectors.mmul(change).mmul(this.vectors.transpose()).to1DArray();
    let [difference, largest] = [0, 0];
    for (const [k, value] of expected.entries()) {
      const exact = value + (k % (this.size + 1) === 0 ? base : 0);
      difference = Math.max(difference, Math.abs((root[k] as number) - exact));
      largest = Math.max(largest, Math.abs(exact));
    }
    return difference / largest;
  }
}

describe("tiles", () => {
  it.each([192, 500, 1000])("of a matrix of %d: products, shifts and joining", async (size) => {
    const tiling = new Tiling(size, DataType.DOUBLE);
    const b = newBuilder();
    // Polynomials of one matrix commute.
    const data = Float32Array.from({ length: size * size }, (_, k) => {
      const [i, j] = [Math.floor(k / size), k % size];
      return Math.cos(i + j) + (i === j ? 1 : 0);
    });
    b.input("single", { elemType: DataType.FLOAT, shape: [size, size] });
    const full = b.cast("single", DataType.DOUBLE);
    const x = tiling.split(b, full);
    const y = tiling.shift(b, x, 0.5);
    const product = tiling.product(b, x, y, { scale: 2, plus: { tiles: x, weight: -3 } });
    const expected = b.sub(
      b.mul(b.matMul(full, b.add(full, b.mul(b.op("EyeLike", [full]), b.f64(0.5)))), b.f64(2)),
      b.mul(full, b.f64(3)),
    );
    const difference = b.reduce("ReduceMax", b.abs(b.sub(tiling.join(b, product), expected)), undefined, false);
    b.output(difference, { elemType: DataType.DOUBLE, shape: [] });
    const whole = tiling.wholeProduct(b, x, y).map(({ tile }) => b.reduceSum(tile, undefined, false));
    const sum = b.sub(
      b.op("Sum", whole),
      b.reduceSum(b.matMul(full, b.add(full, b.mul(b.op("EyeLike", [full]), b.f64(0.5)))), undefined, false),
    );
    b.output(sum, { elemType: DataType.DOUBLE, shape: [] });
    const out = await runModel(modelOf(b.graph), { single: f32(data, [size, size]) });
    expect(out[difference]?.data[0]).toBeLessThan(1e-11);
    expect(Math.abs(Number(out[sum]?.data[0]))).toBeLessThan(1e-8);
  });
});

describe("inverse roots in tiles", () => {
  const CASES = [
    ...[2, 3].map((p) => ["newton", p] as const),
    ...[1, 2, 3, 4, 8, 1.5].map((p) => ["higher-order", p] as const),
  ];

  it.each(CASES)("%s, p = %d: conditions 10², 10⁶ and 10¹⁰", async (solver, exponent) => {
    const matrix = new LowRank(194, 8, 3);
    for (const power of [2, 6, 10]) {
      const epsilon = 10 ** -power;
      const result = await rootsOf([matrix.data], 194, { exponent, epsilon, root: { solver } });
      const what = `10^${power}`;
      expect([result.failures[0], result.retries[0]]).toEqual([0, 0]);
      const error = matrix.error(result.roots[0] as number[], exponent, epsilon * matrix.largest);
      expect(error, what).toBeLessThan(3e-6);
      expect(result.residual[0], what).toBeLessThan(power <= 6 ? 1e-6 : 1e-4);
      const condition = (result.condition[0] as number) / (1 + 1 / epsilon);
      expect(condition, what).toBeGreaterThan(0.9);
      expect(condition, what).toBeLessThan(1.001);
    }
  });

  it("of sizes that tiles do not divide, and of several matrices", async () => {
    for (const size of [333, 601]) {
      const matrices = [new LowRank(size, 4, 1), new LowRank(size, 12, 2)];
      const { roots, residual } = await rootsOf(
        matrices.map((matrix) => matrix.data),
        size,
        { exponent: 2 },
      );
      for (const [i, matrix] of matrices.entries()) {
        expect(matrix.error(roots[i] as number[], 2, 1e-6 * matrix.largest)).toBeLessThan(1e-6);
        expect(residual[i]).toBeLessThan(1e-6);
      }
    }
  });

  it("take an absolute ridge as it stands, and a spectrum that is all the same", async () => {
    const matrix = new LowRank(200, 6, 4);
    const identity = Float32Array.from({ length: 200 * 200 }, (_, k) => (k % 201 === 0 ? 4 : 0));
    const zeros = new Float32Array(200 * 200);
    for (const epsilon of [1e-4, 1, 1e5]) {
      const { roots, residual } = await rootsOf([matrix.data, identity, zeros], 200, {
        exponent: 4,
        epsilon,
        epsilonKind: "absolute",
      });
      expect(matrix.error(roots[0] as number[], 4, epsilon)).toBeLessThan(3e-6);
      const expected = (4 + epsilon) ** -0.25;
      expect(roots[1]?.[0]).toBeCloseTo(expected, 6);
      expect((roots[2]?.[0] as number) / epsilon ** -0.25).toBeCloseTo(1, 6);
      expect(Math.max(...residual)).toBeLessThan(1e-5);
    }
  });

  it("do not care about scale, and apply the statistics' factor", async () => {
    const matrix = new LowRank(200, 6, 5);
    for (const scale of [2 ** -100, 2 ** -40, 2 ** 80]) {
      const scaled = matrix.data.map((x) => x * scale);
      const factor = 8;
      const { roots } = await rootsOf([scaled], 200, { exponent: 2, factor });
      const unscaled = (roots[0] as number[]).map((x) => x * Math.sqrt(scale * factor));
      expect(matrix.error(unscaled, 2, 1e-6 * matrix.largest)).toBeLessThan(3e-6);
    }
    const absolute = await rootsOf([matrix.data], 200, {
      exponent: 2,
      factor: 8,
      epsilon: 3,
      epsilonKind: "absolute",
    });
    const unscaled = (absolute.roots[0] as number[]).map((x) => x * Math.sqrt(8));
    expect(matrix.error(unscaled, 2, 3 / 8)).toBeLessThan(3e-6);
  });

  it("take the finest tolerance and the largest exponent", async () => {
    const matrix = new LowRank(200, 6, 9);
    for (const solver of ["newton", "higher-order"]) {
      const { roots, residual } = await rootsOf([matrix.data], 200, {
        exponent: 32,
        root: { solver, tolerance: 1e-14 },
      });
      expect(matrix.error(roots[0] as number[], 32, 1e-6 * matrix.largest)).toBeLessThan(1e-6);
      expect(residual[0]).toBeLessThan(1e-7);
    }
  });

  it("in float32 are as good as float32 allows", async () => {
    const matrix = new LowRank(200, 6, 6);
    for (const [epsilon, tolerance] of [
      [1e-2, 1e-5],
      [1e-4, 5e-4],
    ] as const) {
      for (const exponent of [2, 4]) {
        const { roots } = await rootsOf([matrix.data], 200, { exponent, epsilon, root: { precision: "float32" } });
        expect(matrix.error(roots[0] as number[], exponent, epsilon * matrix.largest)).toBeLessThan(tolerance);
      }
    }
  });

  it("without a Loop are whole matrices, in stacks of a bounded size", async () => {
    const matrices = [1, 2, 3].map((seed) => new LowRank(640, 4, seed));
    const { roots, residual } = await rootsOf(
      matrices.map(({ data }) => data),
      640,
      { exponent: 2, epsilon: 1e-3, target: "webgpu" },
    );
    for (const [i, matrix] of matrices.entries()) {
      expect(matrix.error(roots[i] as number[], 2, 1e-3 * matrix.largest)).toBeLessThan(1e-4);
      expect(residual[i]).toBeLessThan(1e-2);
    }
  });

  it("fail alone, and keep the preconditioner that was there", async () => {
    const good = new LowRank(200, 5, 7);
    const nan = good.data.slice();
    nan[12345] = Number.NaN;
    const infinite = good.data.slice();
    infinite[0] = Number.POSITIVE_INFINITY;
    const indefinite = good.data.map((x, k) => x - (k % 201 === 0 ? 0.5 * good.largest : 0));
    const zeros = new Float32Array(200 * 200);
    const result = await rootsOf([nan, good.data, infinite, indefinite, zeros], 200, { exponent: 2 });
    // Two refreshes had failed before; a matrix of zeros is no failure.
    expect(result.failures).toEqual([3, 0, 3, 3, 0]);
    expect(result.retries.slice(0, 4)).toEqual([2, 0, 2, 2]);
    for (const i of [0, 2, 3, 4]) expect(new Set(result.roots[i])).toEqual(new Set([7]));
    expect(good.error(result.roots[1] as number[], 2, 1e-6 * good.largest)).toBeLessThan(1e-6);
  });

  it("are tried again with a larger ridge", async () => {
    const base = new LowRank(200, 5, 8);
    // An eigenvalue of −10⁻⁵ of the largest, on all that the rank leaves.
    const shifted = base.data.map((x, k) => x - (k % 201 === 0 ? 1e-5 * base.largest : 0));
    const { retries, failures } = await rootsOf([shifted, base.data], 200, { exponent: 4 });
    expect(retries[0]).toBeGreaterThan(0);
    expect(retries[1]).toBe(0);
    expect(failures).toEqual([0, 0]);
    const strict = await rootsOf([shifted], 200, { exponent: 4, root: { retries: 0 } });
    expect(strict.failures).toEqual([3]);
  });
});

describe("the plan of the rounds", () => {
  const CASES = [1, 2, 3, 8].flatMap((p) =>
    [1, 4].flatMap((degree) => [1e-8, 1e-6, 0.5].map((l) => ({ p, degree, l }))),
  );

  it.each(CASES)("p = $p, degree $degree, l = $l: keeps [l, 1] within [0, 1] and ends at 1", ({ p, degree, l }) => {
    for (const likely of [l, l / 3, undefined]) {
      const plan = planRounds({
        p,
        degree: degree as 1 | 4,
        smallest: 1e-12,
        ...(likely !== undefined && { likely, certain: l / 4 }),
        tolerance: 1e-8,
        floor: 2e-3,
      });
      for (const low of [l, l / 3.9]) {
        const heads = plan.head ? Math.max(1, plan.thresholds.filter((bound) => low < bound).length) : 0;
        const rounds = [...new Array(heads).fill(plan.head), ...plan.tail, plan.last];
        let [smallestFactor, largest, worst] = [Number.POSITIVE_INFINITY, 0, 0];
        for (let i = 0; i <= 300; i++) {
          const start = low ** (1 - i / 300);
          let [x, h] = [start, 1];
          for (const round of rounds) {
            const t = evaluateRound(round, x);
            smallestFactor = Math.min(smallestFactor, t);
            x *= t ** p;
            h *= t;
            if (round !== plan.last) largest = Math.max(largest, x);
          }
          worst = Math.max(worst, Math.abs(h * start ** (1 / p) - 1));
        }
        expect(smallestFactor).toBeGreaterThan(0);
        expect(largest).toBeLessThanOrEqual(1);
        expect(worst).toBeLessThan(1e-8);
      }
    }
  });

  it("needs three of the head, one more and a last one for the default ridge and square roots", () => {
    const ridge = 1e-6 / (1 + 1e-6);
    const plan = planRounds({
      p: 2,
      degree: 4,
      smallest: 1e-15,
      likely: ridge / 1.4,
      certain: ridge / 2.6,
      tolerance: 2e-7,
      floor: 2e-3,
    });
    expect([plan.thresholds.filter((bound) => ridge < bound).length, plan.tail.length]).toEqual([3, 1]);
  });
});
