/** Log-densities as nodes against float64, against 34-digit normalisers, and by their own property: d/da log p = y − E[y]. */
import * as ort from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import type { Family, ScalarFamily } from "../../src/families/family.js";
import { gaussLegendre } from "../../src/families/quadrature.js";
import { familyByName } from "../../src/families/registry.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import { modelOf, newBuilder } from "../support/run.js";
import { type GoldenRow, goldenFamilies } from "./support.js";

/** log p(y | a) of pairs, by the family's nodes. */
async function logDensities(family: Family, pairs: readonly (readonly [number, number])[]): Promise<Float32Array> {
  const b = newBuilder();
  const type = { elemType: DataType.FLOAT, shape: ["n"] };
  b.input("y", type);
  b.input("a", type);
  b.output(family.logDensity(b, { y: "y", a: "a", type }), type);
  const session = await ort.InferenceSession.create(encodeModel(modelOf(b.graph)), { logSeverityLevel: 3 });
  const column = (i: 0 | 1) =>
    new ort.Tensor(
      "float32",
      Float32Array.from(pairs, (pair) => pair[i]),
      [pairs.length],
    );
  const results = await session.run({ y: column(0), a: column(1) });
  await session.release();
  return Object.values(results)[0]?.data as Float32Array;
}

const f32 = Math.fround;

/** With float32 kernels on CPU, CUDA and WebGPU (docs/operators.md). WebGPU's Cos is too coarse to be among them. */
const OPERATORS: ReadonlySet<string> = new Set(
  `Abs Add Cast Clip Div Equal Erf Exp Floor GatherElements Greater Less Log Max Min Mul Neg Reciprocal ReduceLogSum Relu
   Reshape Shape Sqrt Sub Unsqueeze Where`.split(/\s+/),
);
/** The activation itself, which CUDA leaves to the CPU in the forward pass too. */
const OWN_OPERATORS: Readonly<Record<string, string[]>> = { atan: ["Atan"], asinh: ["Asinh"] };

/** Between the golden values of `a`, off the nodes of the tables. */
const FURTHER_ARGUMENTS = [-47.3, -6.1, -1.03, 0.013, 0.9, 17.7].map(f32);

/** What log Z, the logarithm of a density near 1, may be off. */
const ERROR = 2e-5;

/** Values in the support of a continuous family around its mass at `a`, near its ends, and out to 8 deviations. */
function valuesAt(scalar: ScalarFamily, a: number): number[] {
  if (scalar.points) return [...scalar.points];
  const [low, high] = scalar.support;
  const [mean, deviation] = [scalar.mean(a), Math.sqrt(scalar.variance(a))];
  return [
    ...[-8, -4, -2, -1, -0.3, 0, 0.4, 1.1, 2, 4, 8].map((z) => mean + z * deviation),
    ...[1e-6, 1e-4, 0.01].flatMap((distance) => [low + distance, high - distance]),
  ]
    .filter(Number.isFinite)
    .map((y) => f32(Math.min(Math.max(y, low), high)))
    .filter((y) => y >= low && y <= high);
}

interface Piece {
  readonly a: number;
  readonly upTo: number;
  readonly probability: number;
  readonly nodes: readonly { readonly y: number; readonly weight: number }[];
}

const PANELS = 24;

/** The pieces of the support between the golden quantiles, out to 14 deviations beyond the last ones, with nodes to integrate over. */
function between(row: GoldenRow, [low, high]: readonly [number, number]): Piece[] {
  const reach = 14 * Math.sqrt(row.variance);
  const quantiles = Object.entries(row.residual_quantiles)
    .map(([p, residual]) => ({ p: Number(p), y: row.yhat + residual }))
    .sort((one, other) => one.p - other.p);
  const ends = [
    { p: 0, y: Math.max(low, (quantiles[0]?.y as number) - reach) },
    ...quantiles,
    { p: 1, y: Math.min(high, (quantiles.at(-1)?.y as number) + reach) },
  ];
  const rule = gaussLegendre(4);
  return ends.slice(1).map((end, i) => {
    const start = ends[i] as { p: number; y: number };
    // In the tails the panels shrink towards the mass.
    const edge = (t: number) => (i === 0 ? 1 - (1 - t) ** 3 : i === ends.length - 2 ? t ** 3 : t);
    const nodes = Array.from({ length: PANELS }, (_, panel) => {
      const [from, to] = [panel, panel + 1].map((n) => start.y + (end.y - start.y) * edge(n / PANELS));
      const width = (to as number) - (from as number);
      return Array.from(rule.nodes, (x, k) => ({
        y: (from as number) + width * x,
        weight: width * (rule.weights[k] as number),
      }));
    }).flat();
    return { a: row.a, upTo: end.y, probability: end.p - start.p, nodes };
  });
}

/** The nodes against the float64 family, at all of `arguments_`. */
async function expectAgreement(family: Family, arguments_: readonly number[]): Promise<void> {
  const scalar = family.scalar as ScalarFamily;
  const pairs = arguments_.flatMap((a) => valuesAt(scalar, a).map((y) => [y, a] as const));
  const values = await logDensities(family, pairs);
  for (const [i, [y, a]] of pairs.entries()) {
    const expected = scalar.logDensity(y, a);
    const where = `y = ${y}, a = ${a}`;
    if (expected === Number.NEGATIVE_INFINITY) {
      // F* is infinite at an end of the support; the logarithm of 0 is cut off there.
      expect(values[i], where).toBeLessThan(-60);
      continue;
    }
    // Near an end of a bounded support y itself is only known to a unit in its last place: what that changes is allowed.
    const nudged = [y - 6e-8 * Math.abs(y), y + 6e-8 * Math.abs(y)]
      .map((other) => Math.abs(scalar.logDensity(other, a) - expected))
      .filter(Number.isFinite);
    const allowed = ERROR + 5e-6 * Math.abs(expected) + Math.max(0, ...nudged);
    expect(Math.abs((values[i] as number) - expected), where).toBeLessThan(allowed);
  }
}

/** Values just outside of the support; none where it is the whole line. */
function valuesOutside({ support, points }: ScalarFamily): number[] {
  const beyond = support.flatMap((end, i) => (Number.isFinite(end) ? [end + (i === 0 ? -0.1 : 0.1)] : []));
  return points ? [0.5, ...beyond] : beyond;
}

async function expectNothingAt(outside: readonly number[], family: Family): Promise<void> {
  const values = await logDensities(
    family,
    outside.flatMap((y) => [-30, -3, 0, 2, 30].map((a) => [y, a] as const)),
  );
  for (const value of values) expect(value).toBe(Number.NEGATIVE_INFINITY);
}

describe.each(goldenFamilies())("$label", ({ rows, make }) => {
  const family = make();

  test("agrees with float64 and with the golden normaliser", async () => {
    await expectAgreement(family, [...rows.map((row) => f32(row.a)), ...FURTHER_ARGUMENTS]);
    if (family.scalar?.points) return;
    // At the mode D = 0, so the log-density is −log Z there.
    const modes = await logDensities(
      family,
      rows.map((row) => [f32(row.yhat), f32(row.a)] as const),
    );
    for (const [i, row] of rows.entries()) {
      expect(Math.abs((modes[i] as number) + row.logZ), `a = ${row.a}`).toBeLessThan(ERROR);
    }
  });

  test("integrates to the golden probabilities, and to one", async () => {
    const { support, points } = family.scalar as ScalarFamily;
    if (points) {
      for (const { a } of rows) {
        const values = await logDensities(
          family,
          points.map((y) => [y, f32(a)] as const),
        );
        expect(Math.abs(Math.exp(values[0] as number) + Math.exp(values[1] as number) - 1), `a = ${a}`).toBeLessThan(
          1e-6,
        );
      }
      return;
    }
    const pieces = rows.flatMap((row) => between(row, support));
    const nodes = pieces.flatMap((piece) => piece.nodes.map(({ y }) => [f32(y), f32(piece.a)] as const));
    const values = await logDensities(family, nodes);
    const totals = new Map<number, number>();
    let at = 0;
    for (const { a, nodes: own, probability, upTo } of pieces) {
      const mass = own.reduce((sum, { weight }) => sum + weight * Math.exp(values[at++] as number), 0);
      expect(Math.abs(mass - probability), `a = ${a}, y up to ${upTo}`).toBeLessThan(ERROR);
      totals.set(a, (totals.get(a) ?? 0) + mass);
    }
    for (const [a, total] of totals) expect(Math.abs(total - 1), `a = ${a}`).toBeLessThan(ERROR);
  });

  const outside = valuesOutside(family.scalar as ScalarFamily);
  if (outside.length > 0) test("is −∞ outside the support", () => expectNothingAt(outside, family));

  test("has kernels everywhere", () => {
    const b = newBuilder();
    const type = { elemType: DataType.FLOAT, shape: ["n"] };
    family.logDensity(b, { y: b.input("y", type), a: b.input("a", type), type });
    const used = new Set(b.graph.node.map((node) => node.opType as string));
    expect([...used].filter((operator) => !OPERATORS.has(operator))).toEqual(OWN_OPERATORS[family.name] ?? []);
  });

  test("has the slope y − E[y] in a", async () => {
    const scalar = family.scalar as ScalarFamily;
    const step = f32(2 ** -4);
    const pairs: [number, number][] = [];
    for (const a of [-1.5, -0.5, 0.25, 1.25]) {
      const [mean, deviation] = [scalar.mean(a), Math.sqrt(scalar.variance(a))];
      const y = scalar.points ? (scalar.points[1] as number) : f32(mean + 0.3 * deviation);
      pairs.push([y, a - step], [y, a + step]);
    }
    const values = await logDensities(family, pairs);
    for (let i = 0; i < pairs.length; i += 2) {
      const [[y, low], [, high]] = [pairs[i], pairs[i + 1]] as [[number, number], [number, number]];
      const slope = ((values[i + 1] as number) - (values[i] as number)) / (high - low);
      // Exact: the integral of y − E[y] over the step.
      const mean = (scalar.mean(low) + 4 * scalar.mean((low + high) / 2) + scalar.mean(high)) / 6;
      // Twice the error of log Z over the step.
      expect(Math.abs(slope - (y - mean)), `a = ${(low + high) / 2}`).toBeLessThan((2 * ERROR) / (high - low));
    }
  });
});

describe("forms that the golden file does not have", () => {
  test.each([
    ["gaussian", { slope: 0.3, offset: -2 }],
    ["clip", { min: -2 }],
    ["clip", { max: 1.5 }],
    ["clip", { min: 0, max: 13 }],
    ["clip", { min: -0.1, max: 0.2 }],
    ["hard_sigmoid", { alpha: 1, beta: 0.1 }],
    ["leaky_relu", { alpha: 3 }],
    ["shrink", { lambd: 2, bias: 0.7 }],
    ["thresholded_relu", { alpha: 2.5 }],
  ] as [string, Record<string, number>][])("%s %j", async (name, parameters) => {
    const family = familyByName(name, parameters);
    await expectAgreement(family, FURTHER_ARGUMENTS);
    await expectNothingAt(valuesOutside(family.scalar as ScalarFamily), family);
  });
});

describe("softmax", () => {
  const NEVER = Number.NEGATIVE_INFINITY;

  async function softmaxLogDensity(y: ArrayLike<number>, a: ArrayLike<number>, shape: number[], axis: number) {
    const b = newBuilder();
    const type = { elemType: DataType.FLOAT, shape };
    b.input("y", type);
    b.input("a", type);
    const value = familyByName("softmax", { axis }).logDensity(b, { y: "y", a: "a", type });
    b.output(value, { elemType: DataType.FLOAT, shape: shape.map((dim, i) => (i === axis ? 1 : dim)) });
    const session = await ort.InferenceSession.create(encodeModel(modelOf(b.graph)), { logSeverityLevel: 3 });
    const tensor = (values: ArrayLike<number>) => new ort.Tensor("float32", Float32Array.from(values), shape);
    const results = await session.run({ y: tensor(y), a: tensor(a) });
    await session.release();
    return results[value]?.data as Float32Array;
  }

  test("log p of the class that is 1, the class axis reduced to 1", async () => {
    const a = [1, -2, 0.5, 30, -1, 4, 0, 0, 90, 1, -90, 2];
    const classes = [0, 2, 1, 0];
    const y = new Float32Array(12);
    const expected = classes.map((k, position) => {
      const [outer, inner] = [Math.floor(position / 2), position % 2];
      y[outer * 6 + k * 2 + inner] = 1;
      const logits = [0, 1, 2].map((c) => a[outer * 6 + c * 2 + inner] as number);
      const largest = Math.max(...logits);
      const total = logits.reduce((sum, x) => sum + Math.exp(x - largest), 0);
      return (logits[k] as number) - largest - Math.log(total);
    });
    const values = await softmaxLogDensity(y, a, [2, 3, 2], 1);
    for (const [i, log] of expected.entries()) expect(values[i]).toBeCloseTo(log, 5);
  });

  test("over all classes the probabilities sum to one, and a masked class has none", async () => {
    const classes = 5;
    const identity = Array.from({ length: classes ** 2 }, (_, i) => (i % (classes + 1) === 0 ? 1 : 0));
    const logits = [40, NEVER, 39, -60, 38.5];
    const a = Array.from({ length: classes }, () => logits).flat();
    const values = await softmaxLogDensity(identity, a, [classes, classes], 1);
    expect(values[1]).toBe(NEVER);
    expect(values.reduce((sum, log) => sum + Math.exp(log), 0)).toBeCloseTo(1, 6);
    // The log-odds of two classes are the difference of their logits.
    expect((values[0] as number) - (values[3] as number)).toBeCloseTo(100, 4);
  });

  test.each([[[0.5, 0.5, 0]], [[0, 0, 0]], [[1, 1, -1]], [[1, 1, 0]], [[2, 0, 0]], [[0, -1, 0]]])(
    "is −∞ where y is not one-hot: %j",
    async (y) => {
      expect([...(await softmaxLogDensity(y, [1, 2, 3], [1, 3], 1))]).toEqual([NEVER]);
    },
  );
});

describe("prelu", () => {
  test("with slopes from a tensor: leaky Relu's density for each", async () => {
    const slopes = [0.05, 0.3, 1.5];
    const ys = [-2, -0.1, 0.2, 3];
    for (const slope of slopes) {
      const scalar = familyByName("leaky_relu", { alpha: slope }).scalar as ScalarFamily;
      const pairs = [-20, -1, 0, 0.7, 15].flatMap((a) => ys.map((y) => [f32(y), a] as const));
      const values = await logDensities(familyByName("prelu", { slope }), pairs);
      for (const [i, [y, a]] of pairs.entries()) {
        const expected = scalar.logDensity(y, a);
        expect(Math.abs((values[i] as number) - expected), `slope ${slope}, y ${y}, a ${a}`).toBeLessThan(
          2e-4 + 1e-5 * Math.abs(expected),
        );
      }
    }
  });
});
