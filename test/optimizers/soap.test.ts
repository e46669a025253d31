/** SOAP against a float64 implementation with Householder's QR, written here; its bases, blocks and limits. */
import { EigenvalueDecomposition, Matrix, QrDecomposition } from "ml-matrix";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import { createOptimizer, type OptimizerOptions } from "../../src/optimizers/registry.js";
import { emitBasis } from "../../src/optimizers/soap/basis.js";
import { emitCholeskyInverse } from "../../src/optimizers/soap/cholesky.js";
import { createArrayOptimizer } from "../../src/training/array-optimizer.js";
import { momentOfState } from "../../src/training/moments.js";
import { f32, modelOf, relativeError, runModel } from "../support/run.js";
import { normals } from "./matrices.js";

type Soap = Extract<OptimizerOptions, { name: "soap" }>;

const transpose = (m: Matrix) => m.transpose();
const scaled = (m: Matrix, x: number) => Matrix.mul(m, x);

/** QR with a positive diagonal of R, which makes it unique. */
function orthogonalFactor(m: Matrix): Matrix {
  const qr = new QrDecomposition(m);
  const [q, r] = [qr.orthogonalMatrix, qr.upperTriangularMatrix];
  return new Matrix(q.to2DArray().map((row) => row.map((x, j) => (r.get(j, j) < 0 ? -x : x))));
}

/** One step of orthogonal iteration, columns sorted by their estimates. @returns the basis and where its columns came from. */
function refreshed(s: Matrix, q: Matrix): { q: Matrix; order: number[] } {
  const ridge = Matrix.add(s, scaled(Matrix.eye(s.rows), 1e-6 * s.trace()));
  const product = ridge.mmul(q);
  const estimates = Matrix.mul(product, q).sum("column");
  const order = estimates.map((_, i) => i).sort((a, b) => (estimates[b] as number) - (estimates[a] as number));
  return { q: orthogonalFactor(product.subMatrixColumn(order)), order };
}

interface Options {
  lr: number;
  beta1: number;
  beta2: number;
  statisticsBeta: number;
  epsilon: number;
  decay: number;
  statisticsInterval: number;
  basisInterval: number;
  sides: "all" | "leading" | "last";
}

/** SOAP on one matrix. */
class Reference {
  private readonly m: Matrix;
  private v: Matrix;
  private l: Matrix;
  private r: Matrix;
  ql: Matrix;
  qr: Matrix;
  private step = 0;
  private first: Matrix;

  constructor(
    public w: Matrix,
    private readonly o: Options,
  ) {
    const { rows, columns } = w;
    this.m = Matrix.zeros(rows, columns);
    this.first = this.m.clone();
    this.v = this.m.clone();
    [this.l, this.r] = [Matrix.zeros(rows, rows), Matrix.zeros(columns, columns)];
    [this.ql, this.qr] = [Matrix.eye(rows), Matrix.eye(columns)];
  }

  update(g: Matrix): void {
    const { o } = this;
    this.step++;
    if ((this.step - 1) % o.statisticsInterval === 0) {
      const mix = (old: Matrix, gram: Matrix) =>
        Matrix.add(scaled(old, o.statisticsBeta), scaled(gram, 1 - o.statisticsBeta));
      this.l = mix(this.l, g.mmul(transpose(g)));
      this.r = mix(this.r, transpose(g).mmul(g));
    }
    if ((this.step - 1) % o.basisInterval === 0) {
      if (o.sides !== "last") {
        const { q, order } = refreshed(this.l, this.ql);
        this.ql = q;
        this.v = this.v.subMatrixRow(order);
      }
      if (o.sides !== "leading") {
        const { q, order } = refreshed(this.r, this.qr);
        this.qr = q;
        this.v = this.v.subMatrixColumn(order);
      }
    }
    // The first step starts the bases.
    const t = this.step - 1;
    if (t === 0) return;
    const into = (x: Matrix) => transpose(this.ql).mmul(x).mmul(this.qr);
    this.first = Matrix.add(scaled(this.first, o.beta1), scaled(g, 1 - o.beta1));
    this.v = Matrix.add(scaled(this.v, o.beta2), scaled(Matrix.pow(into(g), 2), 1 - o.beta2));
    const mean = scaled(into(this.first), 1 / (1 - o.beta1 ** t));
    const root = Matrix.sqrt(scaled(this.v, 1 / (1 - o.beta2 ** t)));
    const turned = Matrix.div(mean, Matrix.add(root, o.epsilon));
    const direction = this.ql.mmul(turned).mmul(transpose(this.qr));
    this.w = Matrix.sub(scaled(this.w, 1 - o.lr * o.decay), scaled(direction, o.lr));
  }
}

const matrix = (data: ArrayLike<number>, rows: number) =>
  Matrix.from1DArray(rows, data.length / rows, Array.from(data));
const DEFAULTS: Options = {
  ...{ lr: 0.01, beta1: 0.9, beta2: 0.95, statisticsBeta: 0.95, epsilon: 1e-8, decay: 0.1 },
  ...{ statisticsInterval: 1, basisInterval: 3, sides: "all" },
};
const PLAIN: Soap = { name: "soap", learningRate: 0.01, beta1: 0.9, weightDecay: 0.1, basisInterval: 3 };

/** Gradients whose covariance has a spectrum that tells eigenvectors apart. */
function gradients(rows: number, columns: number, steps: number): Float32Array[] {
  return Array.from({ length: steps }, (_, t) => {
    const data = normals(rows * columns, 50 + t);
    return Float32Array.from(data, (x, i) => x * 1.7 ** -Math.floor(i / columns) * 1.4 ** -(i % columns));
  });
}

describe("SOAP", () => {
  it.each<[string, Partial<Soap>, Partial<Options>]>([
    ["plain", {}, {}],
    ["a refresh at every step", { basisInterval: 1 }, { basisInterval: 1 }],
    [
      "moments of another decay than the statistics",
      { beta2: 0.99, statisticsBeta: 0.8 },
      { beta2: 0.99, statisticsBeta: 0.8 },
    ],
    ["statistics every other step", { statisticsInterval: 2 }, { statisticsInterval: 2 }],
    ["leading sides", { sides: "leading" }, { sides: "leading" }],
    ["the last side", { sides: "last" }, { sides: "last" }],
    ["no decay, a large epsilon", { weightDecay: 0, epsilon: 1e-3 }, { decay: 0, epsilon: 1e-3 }],
  ])("steps as its reference does: %s", async (_, options, reference) => {
    const [rows, columns] = [6, 5];
    const start = normals(rows * columns, 3);
    const optimizer = await createArrayOptimizer({ ...PLAIN, ...options }, [
      { name: "w", dims: [rows, columns], data: start },
    ]);
    const expected = new Reference(matrix(start, rows), { ...DEFAULTS, ...reference });
    for (const g of gradients(rows, columns, 14)) {
      const { metrics } = await optimizer.step({ w: g });
      expect(metrics["bases/failed"] ?? 0).toBe(0);
      expected.update(matrix(g, rows));
      const moved = expected.w.to1DArray().map((x, i) => x - (start[i] as number));
      const own = Array.from(optimizer.parameters.get("w") as Float32Array, (x, i) => x - (start[i] as number));
      expect(relativeError(own, moved)).toBeLessThan(2e-4);
    }
    await optimizer.release();
  });

  it("without refreshes is AdamW", async () => {
    const w = [{ name: "w", dims: [6, 5], data: normals(30, 3) }];
    const soap = await createArrayOptimizer({ ...PLAIN, basisInterval: Number.POSITIVE_INFINITY }, w);
    const adamw = await createArrayOptimizer(
      { name: "adamw", learningRate: 0.01, beta1: 0.9, beta2: 0.95, weightDecay: 0.1 },
      w,
    );
    for (const g of gradients(6, 5, 5)) {
      await soap.step({ w: g });
      await adamw.step({ w: g });
    }
    expect(soap.optimizer.emitStatistics).toBeUndefined();
    expect(relativeError(soap.parameters.get("w") ?? [], adamw.parameters.get("w") ?? [])).toBeLessThan(1e-6);
    await Promise.all([soap.release(), adamw.release()]);
  });

  it("takes blocks as matrices of their own, convolutions as matrices, and vectors as AdamW does", async () => {
    const [rows, columns, size] = [8, 6, 4];
    const w = normals(rows * columns, 5);
    const bias = normals(4, 6);
    const conv = normals(3 * 2 * 2 * 2, 7);
    const whole = await createArrayOptimizer({ ...PLAIN, blockSize: size, mergeLimit: 100, blocks: "fixed" }, [
      { name: "w", dims: [rows, columns], data: w },
      { name: "bias", dims: [4], data: bias },
    ]);
    const parts = [0, 4].flatMap((i) => [0, 4].map((j) => ({ i, j, width: Math.min(size, columns - j) })));
    const cut = (data: ArrayLike<number>, { i, j, width }: (typeof parts)[number]) =>
      Float32Array.from(
        { length: size * width },
        (_, k) => data[(i + Math.floor(k / width)) * columns + j + (k % width)] as number,
      );
    const apart = await createArrayOptimizer(
      PLAIN,
      parts.map((part) => ({ name: `${part.i},${part.j}`, dims: [size, part.width], data: cut(w, part) })),
    );
    const adamw = await createArrayOptimizer(
      { name: "adamw", learningRate: 0.01, beta1: 0.9, beta2: 0.95, weightDecay: 0.1 },
      [{ name: "bias", dims: [4], data: bias }],
    );
    const tensor = await createArrayOptimizer(PLAIN, [{ name: "k", dims: [3, 2, 2, 2], data: conv }]);
    const flat = await createArrayOptimizer(PLAIN, [{ name: "k", dims: [3, 8], data: conv }]);
    for (const [t, g] of gradients(rows, columns, 8).entries()) {
      const gBias = normals(4, 80 + t);
      await whole.step({ w: g, bias: gBias });
      await apart.step(Object.fromEntries(parts.map((part) => [`${part.i},${part.j}`, cut(g, part)])));
      if (t > 0) await adamw.step({ bias: gBias });
      for (const optimizer of [tensor, flat]) await optimizer.step({ k: g.slice(0, 24) });
    }
    for (const part of parts) {
      const own = cut(whole.parameters.get("w") as Float32Array, part);
      expect(relativeError(own, apart.parameters.get(`${part.i},${part.j}`) as Float32Array)).toBeLessThan(1e-5);
    }
    expect(relativeError(whole.parameters.get("bias") ?? [], adamw.parameters.get("bias") ?? [])).toBeLessThan(1e-6);
    expect(tensor.parameters.get("k")).toEqual(flat.parameters.get("k"));
    await Promise.all([whole, apart, adamw, tensor, flat].map((optimizer) => optimizer.release()));
  });

  it("has a basis for each dimension of a tensor that is not merged", async () => {
    const dims = [3, 4, 2];
    const optimizer = await createArrayOptimizer({ ...PLAIN, mergeDims: "none", weightDecay: 0 }, [
      { name: "w", dims, data: new Float32Array(24) },
    ]);
    expect(optimizer.optimizer.state.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["w/basis0", "w/basis1", "w/basis2"]),
    );
    // The first step makes the bases, the second fills the second moment in them.
    const g = gradients(4, 6, 1)[0] as Float32Array;
    await optimizer.step({ w: g });
    expect(optimizer.parameters.get("w")).toEqual(new Float32Array(24));
    await optimizer.step({ w: g });
    const bases = dims.map((d, axis) => matrix(optimizer.state.get(`w/basis${axis}`) as Float32Array, d));
    const turned = Array.from({ length: 24 }, (_, at) => {
      const [i, j, k] = [Math.floor(at / 8), Math.floor(at / 2) % 4, at % 2];
      let sum = 0;
      for (let n = 0; n < 24; n++) {
        const place = [Math.floor(n / 8), Math.floor(n / 2) % 4, n % 2];
        const columns = [i, j, k] as [number, number, number];
        sum += columns.reduce(
          (x, c, axis) => x * (bases[axis] as Matrix).get(place[axis] as number, c),
          g[n] as number,
        );
      }
      return sum;
    });
    const second = optimizer.state.get("w/exp_avg_sq") as Float32Array;
    expect(
      relativeError(
        second,
        turned.map((x) => 0.05 * x * x),
      ),
    ).toBeLessThan(1e-4);
    await optimizer.release();
  });

  it("leaves zero gradients and their bases alone", async () => {
    const data = normals(12, 4);
    const optimizer = await createArrayOptimizer({ ...PLAIN, weightDecay: 0 }, [{ name: "w", dims: [4, 3], data }]);
    const { metrics } = await optimizer.step({ w: new Float32Array(12) });
    expect(metrics["bases/failed"]).toBe(0);
    expect(optimizer.parameters.get("w")).toEqual(Float32Array.from(data));
    expect(Array.from(optimizer.state.get("w/basis1") as Float32Array)).toEqual([1, 0, 0, 0, 1, 0, 0, 0, 1]);
    await optimizer.release();
  });

  it("starts from no other program's moments, which are of other axes", () => {
    for (const kind of ["exp_avg", "exp_avg_sq"]) {
      expect(momentOfState(`w/${kind}`, { name: "soap" })).toBeUndefined();
      expect(momentOfState(`w/${kind}`, { name: "adamw" })).toBeDefined();
    }
  });

  it("refuses what it cannot be", () => {
    const create = (options: object) => () => createOptimizer({ name: "soap", ...options } as OptimizerOptions, []);
    expect(create({ basisInterval: 0 })).toThrow(
      /'basisInterval' of soap must be an integer of at least 1 or infinity; got 0/,
    );
    expect(create({ statisticsBeta: 1 })).toThrow(/'statisticsBeta' of soap must be a number in \[0, 1\); got 1/);
    expect(create({ exponent: 2 })).toThrow(/soap has no option 'exponent'/);
  });
});

describe("eigenbases", () => {
  /** A symmetric matrix of given eigenvalues. */
  function withSpectrum(values: readonly number[], seed: number): Matrix {
    const n = values.length;
    const q = orthogonalFactor(matrix(normals(n * n, seed), n));
    return q.mmul(Matrix.diag([...values])).mmul(transpose(q));
  }

  async function iterate(s: Matrix, rounds: number): Promise<{ q: Matrix; residual: number; failed: boolean }> {
    const n = s.rows;
    const b = new GraphBuilder(emptyGraph("basis"));
    for (const name of ["s", "q"]) b.input(name, { elemType: DataType.FLOAT, shape: [1, n, n] });
    const result = emitBasis(b, "s", "q", n);
    for (const key of ["basis", "residual", "failed"] as const) {
      b.output(b.alias(result[key], `out_${key}`), {
        elemType: key === "failed" ? DataType.BOOL : DataType.FLOAT,
        shape: undefined,
      });
    }
    const session = await ort.InferenceSession.create(encodeModel(modelOf(b.graph)), { logSeverityLevel: 3 });
    let q = Matrix.eye(n);
    let out: Record<string, ort.Tensor> = {};
    for (let i = 0; i < rounds; i++) {
      const feeds = { s: f32(s.to1DArray(), [1, n, n]), q: f32(q.to1DArray(), [1, n, n]) };
      out = (await session.run(feeds)) as Record<string, ort.Tensor>;
      q = matrix(out.out_basis?.data as Float32Array, n);
    }
    await session.release();
    return { q, residual: out.out_residual?.data[0] as number, failed: Boolean(out.out_failed?.data[0]) };
  }

  it.each([5, 16, 17, 40, 100])("of size %i are reached by repetition", async (n) => {
    const values = Array.from({ length: n }, (_, i) => 0.6 ** i);
    const shown = Math.min(n, 8);
    const s = withSpectrum(values, n);
    const { q, residual } = await iterate(s, 40);
    expect(residual).toBeLessThan(1e-9);
    const exact = new EigenvalueDecomposition(s, { assumeSymmetric: true });
    const eigenvalue = (i: number) => exact.realEigenvalues[i] as number;
    const order = exact.realEigenvalues.map((_, i) => i).sort((a, b) => eigenvalue(b) - eigenvalue(a));
    for (let k = 0; k < shown; k++) {
      const own = q.getColumn(k);
      const reference = exact.eigenvectorMatrix.getColumn(order[k] as number);
      const cosine = Math.abs(own.reduce((sum, x, i) => sum + x * (reference[i] as number), 0));
      expect(cosine, `eigenvector ${k}`).toBeGreaterThan(1 - 1e-5);
    }
  });

  it.each([
    ["of rank one", [1, ...Array<number>(23).fill(0)]],
    ["with equal eigenvalues", Array<number>(24).fill(2)],
    ["over twelve decades", Array.from({ length: 24 }, (_, i) => 10 ** (-i / 2))],
    ["tiny", Array.from({ length: 24 }, (_, i) => 1e-25 * 0.5 ** i)],
    ["huge", Array.from({ length: 24 }, (_, i) => 1e25 * 0.5 ** i)],
  ])("stay orthogonal for matrices %s", async (_, values) => {
    const { q, residual, failed } = await iterate(withSpectrum(values, 9), 6);
    expect(failed).toBe(false);
    expect(residual).toBeLessThan(1e-6);
    const error = Matrix.sub(transpose(q).mmul(q), Matrix.eye(24));
    expect(error.max()).toBeLessThan(1e-5);
  });

  it("stay what they were when the statistics are not finite", async () => {
    const s = withSpectrum([3, 2, 1], 9);
    s.set(1, 1, Number.NaN);
    const { q, failed } = await iterate(s, 1);
    expect(failed).toBe(true);
    expect(q.to2DArray()).toEqual(Matrix.eye(3).to2DArray());
  });

  it.each([1, 3, 16, 33, 50])("L⁻¹ of size %i undoes A = LLᵀ, for each matrix of a stack", async (n) => {
    const b = new GraphBuilder(emptyGraph("cholesky"));
    b.input("a", { elemType: DataType.DOUBLE, shape: [2, n, n] });
    b.output(b.alias(emitCholeskyInverse(b, "a", n), "inverse"), { elemType: DataType.DOUBLE, shape: undefined });
    const stack = [1, 2].map((seed) =>
      withSpectrum(
        Array.from({ length: n }, (_, i) => 1 + i),
        seed,
      ),
    );
    const feed = new ort.Tensor("float64", Float64Array.from(stack.flatMap((m) => m.to1DArray())), [2, n, n]);
    const inverse = (await runModel(modelOf(b.graph), { a: feed })).inverse as ort.Tensor;
    for (const [k, a] of stack.entries()) {
      const data = (inverse.data as Float64Array).slice(k * n * n, (k + 1) * n * n);
      const l = matrix(data, n);
      expect(relativeError(l.mmul(a).mmul(transpose(l)).to1DArray(), Matrix.eye(n).to1DArray())).toBeLessThan(1e-11);
      for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) expect(l.get(i, j)).toBe(0);
    }
  });
});
