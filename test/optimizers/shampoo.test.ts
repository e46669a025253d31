/** Shampoo's steps against a float64 implementation with eigendecompositions. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Matrix } from "ml-matrix";
import { describe, expect, it } from "vitest";
import { createOptimizer, type OptimizerOptions } from "../../src/optimizers/registry.js";
import { createArrayOptimizer } from "../../src/training/array-optimizer.js";
import { relativeError } from "../support/run.js";
import { normals } from "./matrices.js";
import { type ReferenceOptions, ReferenceShampoo } from "./reference.js";

type Options = Partial<Extract<OptimizerOptions, { name: "shampoo" }>>;

/** Plain Shampoo in both languages: no graft, no momentum, roots at every step. */
const PLAIN: Options = {
  learningRate: 0.1,
  momentum: 0,
  beta2: 0.9,
  epsilon: 1e-3,
  rootInterval: 1,
  startStep: 1,
  graft: "none",
};
const REFERENCE: ReferenceOptions = {
  lr: 0.1,
  beta2: 0.9,
  init: 0,
  correctStatistics: true,
  epsilon: 1e-3,
  exponent: 4,
  rows: [[0, 7]],
  columns: [[0, 5]],
  sides: "all",
  isStatisticsStep: () => true,
  isRootStep: () => true,
  startStep: 1,
  graft: "none",
  graftBeta2: 0.999,
  graftEpsilon: 1e-8,
  graftPerBlock: false,
  momentum: 0,
  ema: true,
  correctMomentum: true,
  momentumFirst: false,
  nesterov: false,
  decay: 0,
  decayKind: "decoupled",
};

const CASES: [string, Options, Partial<ReferenceOptions>][] = [
  ["plain", {}, {}],
  ["sum of statistics (β₂ = 1)", { beta2: 1 }, { beta2: 1 }],
  [
    "statistics that start at a multiple of I, uncorrected",
    { statisticsInit: 0.01, statisticsBiasCorrection: false },
    { init: 0.01, correctStatistics: false },
  ],
  ["exponent 2", { exponent: 2 }, { exponent: 2 }],
  ["a rational exponent", { exponent: 2.5 }, { exponent: 2.5 }],
  ["an exponent by order", { exponent: { 2: 3 } }, { exponent: 3 }],
  ["only the leading side", { sides: "leading" }, { sides: "leading", exponent: 2 }],
  ["only the last side", { sides: "last" }, { sides: "last", exponent: 2 }],
  ["the higher-order iteration", { root: { solver: "higher-order" } }, {}],
  [
    "fixed blocks with a remainder",
    { blockSize: 3, blocks: "fixed" },
    {
      rows: [
        [0, 3],
        [3, 6],
        [6, 7],
      ],
      columns: [
        [0, 3],
        [3, 5],
      ],
    },
  ],
  [
    "balanced blocks",
    { blockSize: 3 },
    {
      rows: [
        [0, 3],
        [3, 5],
        [5, 7],
      ],
      columns: [
        [0, 3],
        [3, 5],
      ],
    },
  ],
  ["graft sgd", { graft: "sgd" }, { graft: "sgd" }],
  ["graft adagrad", { graft: "adagrad" }, { graft: "adagrad" }],
  ["graft adagrad-normalized", { graft: "adagrad-normalized" }, { graft: "adagrad-normalized" }],
  [
    "graft rmsprop",
    { graft: "rmsprop", graftBeta2: 0.9, graftEpsilon: 1e-3 },
    { graft: "rmsprop", graftBeta2: 0.9, graftEpsilon: 1e-3 },
  ],
  [
    "graft rmsprop-normalized",
    { graft: "rmsprop-normalized", graftBeta2: 0.9 },
    { graft: "rmsprop-normalized", graftBeta2: 0.9 },
  ],
  [
    "graft adam",
    { graft: "adam", graftBeta2: 0.95, graftEpsilon: 1e-3 },
    { graft: "adam", graftBeta2: 0.95, graftEpsilon: 1e-3 },
  ],
  ["graft sgd-normalized", { graft: "sgd-normalized" }, { graft: "sgd-normalized" }],
  ["graft sqrt-n", { graft: "sqrt-n" }, { graft: "sqrt-n" }],
  [
    "graft norm by block",
    { graft: "adam", graftNorm: "block", blockSize: 3 },
    {
      graft: "adam",
      graftPerBlock: true,
      rows: [
        [0, 3],
        [3, 5],
        [5, 7],
      ],
      columns: [
        [0, 3],
        [3, 5],
      ],
    },
  ],
  ["momentum after, ema", { graft: "rmsprop", momentum: 0.8 }, { graft: "rmsprop", momentum: 0.8 }],
  [
    "momentum after, ema, uncorrected",
    { momentum: 0.8, momentumBiasCorrection: false },
    { momentum: 0.8, correctMomentum: false },
  ],
  [
    "momentum after, heavy ball",
    { graft: "sgd", momentum: 0.8, momentumKind: "heavy-ball" },
    { graft: "sgd", momentum: 0.8, ema: false },
  ],
  [
    "momentum after, heavy ball, Nesterov",
    { graft: "sgd", momentum: 0.8, momentumKind: "heavy-ball", nesterov: true },
    { graft: "sgd", momentum: 0.8, ema: false, nesterov: true },
  ],
  [
    "momentum after, ema, Nesterov",
    { graft: "adam", momentum: 0.8, nesterov: true },
    { graft: "adam", momentum: 0.8, nesterov: true },
  ],
  [
    "momentum before, ema",
    { graft: "adam", momentum: 0.8, momentumOrder: "before" },
    { graft: "adam", momentum: 0.8, momentumFirst: true },
  ],
  [
    "momentum before, ema, Nesterov",
    { graft: "adam", momentum: 0.8, momentumOrder: "before", nesterov: true },
    { graft: "adam", momentum: 0.8, momentumFirst: true, nesterov: true },
  ],
  [
    "momentum before, heavy ball",
    { graft: "sgd", momentum: 0.8, momentumOrder: "before", momentumKind: "heavy-ball" },
    { graft: "sgd", momentum: 0.8, momentumFirst: true, ema: false },
  ],
  ["l2 decay", { weightDecay: 0.1, weightDecayKind: "l2" }, { decay: 0.1, decayKind: "l2" }],
  [
    "coupled decay, momentum after",
    { weightDecay: 0.1, weightDecayKind: "coupled", graft: "sgd", momentum: 0.8 },
    { decay: 0.1, decayKind: "coupled", graft: "sgd", momentum: 0.8 },
  ],
  [
    "coupled decay, momentum before",
    { weightDecay: 0.1, weightDecayKind: "coupled", graft: "adam", momentum: 0.8, momentumOrder: "before" },
    { decay: 0.1, decayKind: "coupled", graft: "adam", momentum: 0.8, momentumFirst: true },
  ],
  ["decoupled decay", { weightDecay: 0.1, graft: "adam", momentum: 0.8 }, { decay: 0.1, graft: "adam", momentum: 0.8 }],
  [
    "independent decay",
    { weightDecay: 0.01, weightDecayKind: "independent" },
    { decay: 0.01, decayKind: "independent" },
  ],
  [
    "intervals and a start step",
    { statisticsInterval: 2, rootInterval: 3, startStep: 4, graft: "adam", momentum: 0.8 },
    {
      isStatisticsStep: (t) => t % 2 === 1,
      isRootStep: (t) => t >= 4 && t % 3 === 1,
      startStep: 4,
      graft: "adam",
      momentum: 0.8,
    },
  ],
  [
    "Google's root steps",
    { rootInterval: 4, startStep: 4, rootSchedule: "from-first-step", graft: "sgd" },
    { isRootStep: (t) => t % 4 === 1, startStep: 4, graft: "sgd" },
  ],
  [
    "Meta's root steps",
    { rootInterval: 3, startStep: 2, rootSchedule: "multiples", graft: "sgd" },
    { isRootStep: (t) => t === 2 || (t > 2 && t % 3 === 0), startStep: 2, graft: "sgd" },
  ],
];

const draw = (seed: number) => [...Float32Array.from(normals(35, seed))];
const gradients = Array.from({ length: 10 }, (_, i) => draw(100 + i));
const sampled = Array.from({ length: 10 }, (_, i) => draw(200 + i));
const start = draw(1);
const matrix = (values: readonly number[]) => Matrix.from1DArray(7, 5, [...values]);

async function compare(
  options: OptimizerOptions,
  reference: Partial<ReferenceOptions>,
  statistics?: number[][],
  tolerance = 2e-5,
) {
  const ours = await createArrayOptimizer(options, [{ name: "w", dims: [7, 5], data: start }]);
  const theirs = new ReferenceShampoo({ ...REFERENCE, ...reference }, matrix(start));
  for (const [i, gradient] of gradients.entries()) {
    const other = statistics?.[i];
    await ours.step({ w: gradient }, other && { w: other });
    theirs.step(matrix(gradient), other && matrix(other));
    const moved = (values: ArrayLike<number>) => Array.from(values, (x, k) => x - (start[k] as number));
    const error = relativeError(moved(ours.parameters.get("w") as Float32Array), moved(theirs.theta.to1DArray()));
    expect(error, `step ${i + 1}`).toBeLessThan(tolerance);
  }
  await ours.release();
}

describe("ten steps of Shampoo", () => {
  it.each(CASES)("%s", async (_, options, reference) => {
    await compare({ name: "shampoo", ...PLAIN, ...options }, reference);
  });

  it("with sampled gradients in the statistics: Fishy, exponent 2, and FIM Shampoo alike", async () => {
    await compare({ name: "fishy", ...PLAIN }, { exponent: 2 }, sampled);
    await compare({ name: "fim-shampoo", ...PLAIN, graft: "adam" }, { exponent: 2, graft: "adam" }, sampled);
  });

  it("are Fishy's when the sampled gradient is the true one", async () => {
    const w = [{ name: "w", dims: [7, 5], data: start }];
    const shampoo = await createArrayOptimizer({ name: "shampoo", ...PLAIN }, w);
    const fishy = await createArrayOptimizer({ ...PLAIN, name: "fishy", exponent: 4 }, w);
    for (const gradient of gradients) {
      await shampoo.step({ w: gradient });
      await fishy.step({ w: gradient }, { w: gradient });
    }
    expect(fishy.parameters.get("w")).toEqual(shampoo.parameters.get("w"));
    await Promise.all([shampoo.release(), fishy.release()]);
  });
});

describe("blocks", () => {
  it("are independent: a blocked run equals runs on each block", async () => {
    const options: OptimizerOptions = {
      name: "shampoo",
      ...PLAIN,
      blockSize: 3,
      graft: "adam",
      graftNorm: "block",
      momentum: 0.9,
    };
    const rows = [
      [0, 3],
      [3, 5],
      [5, 7],
    ] as const;
    const columns = [
      [0, 3],
      [3, 5],
    ] as const;
    const cut = (values: readonly number[], [a, b]: readonly [number, number], [c, d]: readonly [number, number]) =>
      matrix(values)
        .subMatrix(a, b - 1, c, d - 1)
        .to1DArray();
    const whole = await createArrayOptimizer(options, [{ name: "w", dims: [7, 5], data: start }]);
    const blocks = rows.flatMap((r) =>
      columns.map((c) => ({ r, c, name: `${r}:${c}`, dims: [r[1] - r[0], c[1] - c[0]] })),
    );
    const parts = await createArrayOptimizer(
      options,
      blocks.map(({ r, c, name, dims }) => ({ name, dims, data: cut(start, r, c) })),
    );
    for (const gradient of gradients) {
      await whole.step({ w: gradient });
      await parts.step(Object.fromEntries(blocks.map(({ r, c, name }) => [name, cut(gradient, r, c)])));
    }
    const result = [...(whole.parameters.get("w") as Float32Array)];
    for (const { r, c, name } of blocks) {
      expect(relativeError(parts.parameters.get(name) ?? [], cut(result, r, c))).toBeLessThan(1e-6);
    }
    await Promise.all([whole.release(), parts.release()]);
  });

  it("of a tensor of rank 4 are those of the matrix it merges to, and without merging each axis has its own", async () => {
    const dims = [6, 2, 3, 2];
    const values = (seed: number) => normals(72, seed);
    const run = async (options: Options, shape: number[]) => {
      const optimizer = await createArrayOptimizer({ name: "shampoo", ...PLAIN, ...options }, [
        { name: "w", dims: shape, data: values(1) },
      ]);
      for (let i = 0; i < 3; i++) await optimizer.step({ w: values(i + 2) });
      await optimizer.release();
      return optimizer;
    };
    const merged = await run({ blockSize: 12 }, dims);
    const flat = await run({ blockSize: 12 }, [6, 12]);
    expect(merged.parameters.get("w")).toEqual(flat.parameters.get("w"));

    const full = await run({ mergeDims: "none" }, dims);
    expect([...full.state.keys()].filter((name) => name.includes("statistics"))).toHaveLength(4);
    // One axis alone, the others untouched: the same as the matrix with that axis in front.
    for (const axis of [0, 1, 2, 3]) {
      const statistics = full.state.get(`w/statistics${axis}`) as Float32Array;
      const size = dims[axis] as number;
      const stride = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
      const expected = new Float64Array(size * size);
      for (let i = 0; i < 3; i++) {
        const g = values(i + 2);
        const weight = 0.1 * 0.9 ** (2 - i);
        for (let a = 0; a < 72; a++) {
          const index = Math.floor(a / stride) % size;
          for (let other = 0; other < size; other++) {
            const b = a + (other - index) * stride;
            expected[index * size + other] =
              (expected[index * size + other] as number) + weight * (g[a] as number) * (g[b] as number);
          }
        }
      }
      expect(relativeError(statistics, expected)).toBeLessThan(1e-5);
    }
    await expectEinsum(full, dims, values(1), values);
  });
});

/** The last step of a rank-4 run, recomputed from its preconditioners: every axis contracted with its own. */
async function expectEinsum(
  optimizer: Awaited<ReturnType<typeof createArrayOptimizer>>,
  dims: number[],
  initial: number[],
  values: (seed: number) => number[],
) {
  const again = await createArrayOptimizer({ name: "shampoo", ...PLAIN, mergeDims: "none" }, [
    { name: "w", dims, data: initial },
  ]);
  for (let i = 0; i < 2; i++) await again.step({ w: values(i + 2) });
  const before = [...(again.parameters.get("w") as Float32Array)];
  await again.release();
  let g = values(4);
  for (const [axis, size] of dims.entries()) {
    const p = optimizer.state.get(`w/preconditioner${axis}`) as Float32Array;
    const stride = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
    g = g.map((_, a) => {
      const index = Math.floor(a / stride) % size;
      let sum = 0;
      for (let k = 0; k < size; k++) sum += (p[index * size + k] as number) * (g[a + (k - index) * stride] as number);
      return sum;
    });
  }
  const expected = before.map((x, i) => x - 0.1 * (g[i] as number));
  expect(relativeError(optimizer.parameters.get("w") ?? [], expected)).toBeLessThan(1e-6);
}

describe("parameters that are not matrices", () => {
  it("a bias takes the graft's step, or full-matrix statistics when vectors are preconditioned", async () => {
    const data = normals(6, 1);
    const g = (i: number) => normals(6, 10 + i);
    const run = async (options: OptimizerOptions) => {
      const optimizer = await createArrayOptimizer(options, [{ name: "b", dims: [6], data }]);
      for (let i = 0; i < 5; i++) await optimizer.step({ b: g(i) });
      await optimizer.release();
      return optimizer;
    };
    const skipped = await run({ name: "shampoo", ...PLAIN, graft: "adam", momentum: 0.9, momentumOrder: "before" });
    const adam = await run({ name: "adam", learningRate: 0.1 });
    expect(relativeError(skipped.parameters.get("b") ?? [], adam.parameters.get("b") ?? [])).toBeLessThan(1e-6);
    expect([...skipped.state.keys()]).toEqual(["b/momentum", "b/graft"]);

    const vector = await run({ name: "shampoo", ...PLAIN, skipRankBelow: 1 });
    const column = new ReferenceShampoo(
      { ...REFERENCE, rows: [[0, 6]], columns: [[0, 1]], sides: "leading", exponent: 2 },
      Matrix.columnVector([...Float32Array.from(data)]),
    );
    for (let i = 0; i < 5; i++) column.step(Matrix.columnVector([...Float32Array.from(g(i))]));
    expect(relativeError(vector.parameters.get("b") ?? [], column.theta.to1DArray())).toBeLessThan(1e-5);
  });

  it("scalars and long dimensions are skipped", () => {
    const names = (parameters: { name: string; dims: number[] }[], options: Options = {}) =>
      createOptimizer({ name: "shampoo", ...options }, parameters).state.map((state) => state.name);
    expect(names([{ name: "s", dims: [] }], { skipRankBelow: 1 })).toEqual(["s/momentum", "s/graft"]);
    expect(names([{ name: "e", dims: [20000, 4] }])).toEqual(["e/momentum", "e/graft"]);
    expect(names([{ name: "r", dims: [1, 9] }])).toEqual(["r/momentum", "r/graft"]);
  });
});

describe("edges", () => {
  it.each(["none", "sgd", "adam", "rmsprop-normalized", "adagrad", "sqrt-n"] as const)(
    "a zero gradient moves nothing (graft %s)",
    async (graft) => {
      const options: OptimizerOptions = { name: "shampoo", ...PLAIN, graft, blockSize: 4, graftNorm: "block" };
      const optimizer = await createArrayOptimizer(options, [{ name: "w", dims: [7, 5], data: start }]);
      const zero = new Float32Array(35);
      const { metrics } = await optimizer.step({ w: zero });
      expect([...(optimizer.parameters.get("w") as Float32Array)]).toEqual(start);
      expect(metrics["roots/failed"]).toBe(0);
      await optimizer.step({ w: gradients[0] as number[] });
      await optimizer.step({ w: zero });
      expect((optimizer.parameters.get("w") as Float32Array).every(Number.isFinite)).toBe(true);
      await optimizer.release();
    },
  );

  it("a root that fails keeps the previous one, and is counted", async () => {
    const parameters = [
      { name: "w", dims: [3, 3], data: new Float32Array(9) },
      { name: "v", dims: [3, 3], data: new Float32Array(9) },
    ];
    const optimizer = await createArrayOptimizer({ name: "shampoo", ...PLAIN }, parameters);
    const g = normals(9, 3);
    await optimizer.step({ w: g, v: g });
    const good = optimizer.state.get("w/preconditioner0") as Float32Array;
    const broken = new Map(optimizer.state);
    broken.set("w/statistics0", new Float32Array(9).fill(Number.NaN));
    optimizer.restore(1, optimizer.parameters, broken);
    for (const failures of [1, 2]) {
      const { metrics, blockMetrics } = await optimizer.step({ w: g, v: g });
      expect(optimizer.state.get("w/preconditioner0")).toEqual(good);
      expect(optimizer.state.get("v/preconditioner0")).not.toEqual(good);
      expect(metrics["roots/failed"]).toBe(1);
      const names = optimizer.optimizer.blocks?.get("roots/3^4/failures") ?? [];
      expect(Object.fromEntries(names.map((name, i) => [name, blockMetrics["roots/3^4/failures"]?.[i]]))).toEqual({
        "w/axis0": failures,
        "w/axis1": 0,
        "v/axis0": 0,
        "v/axis1": 0,
      });
    }
    expect((optimizer.parameters.get("w") as Float32Array).every(Number.isFinite)).toBe(true);
    await optimizer.release();
  });

  it("a refresh of the roots does not change the statistics", async () => {
    const options: Options = { ...PLAIN, statisticsInterval: 100 };
    const optimizer = await createArrayOptimizer({ name: "shampoo", ...options }, [
      { name: "w", dims: [7, 5], data: start },
    ]);
    await optimizer.step({ w: gradients[0] as number[] });
    const before = optimizer.state.get("w/statistics0") as Float32Array;
    for (const gradient of gradients) await optimizer.step({ w: gradient });
    expect(optimizer.state.get("w/statistics0")).toEqual(before);
    await optimizer.release();
  });

  it("the trace factor makes exponent 1 the inverse of a separable Fisher", async () => {
    // F = A ⊗ B, whose statistics are L = tr(B)·A and R = tr(A)·B: rank one in each, here with the ridge as the rest.
    const options: OptimizerOptions = {
      name: "fishy",
      ...PLAIN,
      exponent: 1,
      epsilon: 0.1,
      traceFactor: true,
      learningRate: 1,
    };
    const [a, c] = [normals(3, 1), normals(4, 2)];
    const sample = a.flatMap((x) => c.map((y) => x * y));
    const optimizer = await createArrayOptimizer(options, [{ name: "w", dims: [3, 4], data: new Float32Array(12) }]);
    await optimizer.step({ w: sample }, { w: sample });
    // Along the sample g: F = ggᵀ has the eigenvalue |g|², so F⁻¹g = g/|g|², but for the ridge on both sides.
    const square = sample.reduce((sum, x) => sum + x * x, 0);
    const expected = sample.map((x) => -x / square / 1.1 ** 2);
    expect(relativeError(optimizer.parameters.get("w") ?? [], expected)).toBeLessThan(1e-5);
    await optimizer.release();
  });

  it("diagnostics compare the true and the sampled gradient", async () => {
    const options: OptimizerOptions = { name: "fishy", ...PLAIN, diagnostics: true };
    const optimizer = await createArrayOptimizer(options, [{ name: "w", dims: [7, 5], data: start }]);
    const [g, s] = [gradients[0], sampled[0]] as [number[], number[]];
    const { metrics } = await optimizer.step({ w: g }, { w: s });
    const dot = (x: number[], y: number[]) => x.reduce((sum, value, i) => sum + value * (y[i] as number), 0);
    expect(metrics["gradient/norm"]).toBeCloseTo(Math.sqrt(dot(g, g)), 4);
    expect(metrics["gradient/sampled_norm"]).toBeCloseTo(Math.sqrt(dot(s, s)), 4);
    expect(metrics["gradient/cosine"]).toBeCloseTo(dot(g, s) / Math.sqrt(dot(g, g) * dot(s, s)), 5);
    await optimizer.release();
  });

  it("diagnostics tell the cosine of each parameter that has statistics", async () => {
    const options: OptimizerOptions = { name: "fishy", ...PLAIN, diagnostics: true };
    const parameters = ["v", "w"].map((name) => ({ name, dims: [7, 5], data: start }));
    const optimizer = await createArrayOptimizer(options, [{ name: "s", dims: [], data: [1] }, ...parameters]);
    const [g, s] = [gradients[0], sampled[0]] as [number[], number[]];
    const minus = s.map((x) => -x);
    const { blockMetrics } = await optimizer.step({ s: [1], v: g, w: g }, { s: [1], v: s, w: minus });
    const dot = (x: number[], y: number[]) => x.reduce((sum, value, i) => sum + value * (y[i] as number), 0);
    const cosine = dot(g, s) / Math.sqrt(dot(g, g) * dot(s, s));
    const [v, w, ...others] = blockMetrics["gradient/parameter_cosine"] as Float32Array;
    expect(others).toEqual([]);
    expect(v).toBeCloseTo(cosine, 5);
    expect(w).toBeCloseTo(-cosine, 5);
    await optimizer.release();
  });

  it("Fishy without sampled gradients is refused", async () => {
    const optimizer = await createArrayOptimizer({ name: "fishy" }, [{ name: "w", dims: [7, 5], data: start }]);
    await expect(optimizer.step({ w: start })).rejects.toThrow(/fishy takes its statistics from sampled gradients/);
    await optimizer.release();
  });

  it.each([
    [{ name: "fishy", exponent: 0 }, /'exponent' of fishy/],
    [{ name: "fishy", exponent: Math.PI }, /'exponent' of fishy/],
    [{ name: "shampoo", epsilon: 0 }, /'epsilon' of shampoo must be above 0 when it is relative; got 0/],
    [
      { name: "shampoo", epsilon: 1e-9, root: { precision: "float32" } },
      /at least 1e-6 when roots are computed in float32; got 1e-9/,
    ],
    [
      { name: "shampoo", root: { toleranse: 1 } },
      /root of shampoo has no option 'toleranse'. Known options: solver, precision/,
    ],
    [{ name: "shampoo", graft: "lion" }, /'graft' of shampoo must be "none", "sgd", .*; got "lion"/],
    [{ name: "shampoo", startStep: 0 }, /'startStep' of shampoo must be an integer of at least 1 or infinity; got 0/],
  ])("refuses %o", (options, message) => {
    expect(() => createOptimizer(options as OptimizerOptions, [])).toThrow(message);
  });
});

describe("with preconditioning off", () => {
  const fixture = JSON.parse(
    readFileSync(join(import.meta.dirname, "../fixtures/optimizers/first_order.json"), "utf8"),
  ) as { start: number[][]; gradients: number[][][]; runs: Record<string, { last: number[][] }> };
  const off: Options = { startStep: Number.POSITIVE_INFINITY };
  const before: Options = { ...off, momentumOrder: "before" };
  it.each([
    ["sgd", { ...off, graft: "sgd", momentum: 0, learningRate: 0.1 }],
    ["sgd_momentum", { ...off, graft: "sgd", momentum: 0.9, momentumKind: "heavy-ball", learningRate: 0.1 }],
    [
      "sgd_nesterov",
      {
        ...before,
        graft: "sgd",
        momentum: 0.9,
        momentumKind: "heavy-ball",
        nesterov: true,
        learningRate: 0.1,
        weightDecay: 0.05,
        weightDecayKind: "l2",
      },
    ],
    ["adam", { ...before, graft: "adam", momentum: 0.9, learningRate: 0.01 }],
    [
      "adam_decay",
      {
        ...before,
        graft: "adam",
        momentum: 0.8,
        graftBeta2: 0.99,
        graftEpsilon: 1e-4,
        learningRate: 0.01,
        weightDecay: 0.1,
        weightDecayKind: "l2",
      },
    ],
    ["adamw", { ...before, graft: "adam", momentum: 0.9, learningRate: 0.01, weightDecay: 0.1 }],
    ["rmsprop", { ...off, graft: "rmsprop", momentum: 0, graftBeta2: 0.95, graftEpsilon: 1e-6, learningRate: 0.01 }],
    [
      "rmsprop_momentum",
      {
        ...off,
        graft: "rmsprop",
        momentum: 0.9,
        momentumKind: "heavy-ball",
        graftBeta2: 0.95,
        graftEpsilon: 1e-6,
        learningRate: 0.01,
      },
    ],
    ["adagrad", { ...off, graft: "adagrad", momentum: 0, graftEpsilon: 1e-8, learningRate: 0.1 }],
  ] as [string, Options][])("the graft is PyTorch's %s", async (name, options) => {
    for (const startStep of [Number.POSITIVE_INFINITY, 1000]) {
      const optimizer = await createArrayOptimizer({ name: "shampoo", ...options, startStep }, [
        { name: "w", dims: [4, 3], data: fixture.start[0] as number[] },
        { name: "b", dims: [3], data: fixture.start[1] as number[] },
      ]);
      for (const [w, b] of fixture.gradients) await optimizer.step({ w: w as number[], b: b as number[] });
      const [w, b] = (fixture.runs[name] as { last: number[][] }).last as [number[], number[]];
      expect(relativeError(optimizer.parameters.get("w") ?? [], w)).toBeLessThan(1e-6);
      expect(relativeError(optimizer.parameters.get("b") ?? [], b)).toBeLessThan(1e-6);
      await optimizer.release();
    }
  });
});
