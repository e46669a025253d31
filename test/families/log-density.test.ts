/** Log-densities as nodes against float64, against 34-digit normalisers, and by their own property: d/da log p = y − E[y]. */
import * as ort from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import type { Family, ScalarFamily } from "../../src/families/family.js";
import { familyByName } from "../../src/families/registry.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import { modelOf, newBuilder } from "../support/run.js";
import { goldenFamilies } from "./support.js";

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

/** Values in the support of a continuous family around its mass at `a`, and out to 8 deviations. */
function valuesAt(scalar: ScalarFamily, a: number): number[] {
  if (scalar.points) return [...scalar.points];
  const [low, high] = scalar.support;
  const [mean, deviation] = [scalar.mean(a), Math.sqrt(scalar.variance(a))];
  return [-8, -4, -2, -1, -0.3, 0, 0.4, 1.1, 2, 4, 8]
    .map((z) => f32(Math.min(Math.max(mean + z * deviation, low), high)))
    .filter((y) => y >= low && y <= high);
}

describe.each(goldenFamilies())("$label", ({ rows, make }) => {
  const family = make();

  test("agrees with float64 and with the golden normaliser", async () => {
    const scalar = family.scalar as ScalarFamily;
    const pairs: [number, number][] = [];
    for (const row of rows) {
      const a = f32(row.a);
      for (const y of valuesAt(scalar, a)) pairs.push([y, a]);
    }
    const values = await logDensities(family, pairs);
    for (const [i, [y, a]] of pairs.entries()) {
      const expected = scalar.logDensity(y, a);
      const where = `y = ${y}, a = ${a}`;
      if (expected === Number.NEGATIVE_INFINITY || expected < -80) {
        expect(values[i], where).toBeLessThan(-60);
        continue;
      }
      // Near an end of a bounded support y itself is only known to a unit in its last place: what that changes is allowed.
      const nudged = [y - 6e-8 * Math.max(Math.abs(y), 1), y + 6e-8 * Math.max(Math.abs(y), 1)]
        .map((other) => Math.abs(scalar.logDensity(other, a) - expected))
        .filter(Number.isFinite);
      const allowed = 3e-4 + 1e-5 * Math.abs(expected) + Math.max(0, ...nudged);
      expect(Math.abs((values[i] as number) - expected), where).toBeLessThan(allowed);
    }
    if (scalar.points) return;
    // At the mode D = 0, so the log-density is −log Z there.
    const modes = await logDensities(
      family,
      rows.map((row) => [f32(row.yhat), f32(row.a)] as const),
    );
    for (const [i, row] of rows.entries()) {
      if (Math.abs(row.a) > 10) continue;
      expect(modes[i], `a = ${row.a}`).toBeCloseTo(-row.logZ, 3);
    }
  });

  test("is −∞ outside the support", async () => {
    const { support, points } = family.scalar as ScalarFamily;
    const outside = points
      ? [0.5]
      : support.flatMap((end, i) => (Number.isFinite(end) ? [end + (i === 0 ? -0.1 : 0.1)] : []));
    if (outside.length === 0) return;
    const values = await logDensities(
      family,
      outside.flatMap((y) => [-3, 0, 2].map((a) => [y, a] as const)),
    );
    for (const value of values) expect(value).toBe(Number.NEGATIVE_INFINITY);
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
      expect(slope, `a = ${(low + high) / 2}`).toBeCloseTo(y - mean, 2);
    }
  });
});

describe("softmax", () => {
  test("log p of the class that is 1, the class axis reduced to 1", async () => {
    const b = newBuilder();
    const type = { elemType: DataType.FLOAT, shape: [2, 3, 2] };
    b.input("y", type);
    b.input("a", type);
    const value = familyByName("softmax", { axis: 1 }).logDensity(b, { y: "y", a: "a", type });
    b.output(value, { elemType: DataType.FLOAT, shape: [2, 1, 2] });
    const session = await ort.InferenceSession.create(encodeModel(modelOf(b.graph)), { logSeverityLevel: 3 });
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
    const results = await session.run({
      y: new ort.Tensor("float32", y, [2, 3, 2]),
      a: new ort.Tensor("float32", Float32Array.from(a), [2, 3, 2]),
    });
    await session.release();
    const values = results[value]?.data as Float32Array;
    for (const [i, log] of expected.entries()) expect(values[i]).toBeCloseTo(log, 5);
  });
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
