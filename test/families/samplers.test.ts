/** Properties of every family's sampler that need no luck: moments, centring, extremes, shapes. */
import { describe, expect, test } from "vitest";
import type { Draw, Family, ScalarFamily, Score } from "../../src/families/family.js";
import { LEVELS } from "../../src/families/pool.js";
import { prelu } from "../../src/families/prelu.js";
import { familyByName } from "../../src/families/registry.js";
import { DataType } from "../../src/onnx/proto.js";
import { f32, modelOf, newBuilder, runModel } from "../support/run.js";
import { Accumulator, constantRandom, goldenFamilies, Runner, residualRunner, rowsOf } from "./support.js";

// Absolute tolerances of 3e-7 are float32's: 1 − σ(a) where σ(a) is close to 1.
const SMALLEST = 2 ** -24;
const families = goldenFamilies();
const draws: Draw[] = ["exact", "fast", "two-point"];
const scores: Score[] = ["paper", "centred"];

/** One residual per value of `a` for a uniform that is the same everywhere; fast draws have the pool's numbers. */
async function residualsAt(family: Family, values: readonly number[], u: number, draw: Draw, score: Score) {
  const options = { draw, score, ...(draw !== "fast" && { random: () => constantRandom(u) }) };
  const runner = await residualRunner(family, options, ["n"]);
  const [residuals] = await runner.run(Float32Array.from(values), [values.length]);
  await runner.release();
  return residuals as Float32Array;
}

describe("moments as nodes", () => {
  test.each(families)("$label", async ({ rows, make }) => {
    const family = make();
    const runner = await Runner.create(["n"], (b, a) => {
      const { mean, variance } = family.moments(b, { a, type: { elemType: DataType.FLOAT, shape: ["n"] } });
      return [mean, variance];
    });
    const [means, variances] = await runner.run(
      Float32Array.from(rows, (row) => row.a),
      [rows.length],
    );
    await runner.release();
    for (const [i, row] of rows.entries()) {
      const mean = Math.abs((means?.[i] as number) - row.mean);
      expect(mean, `mean at ${row.a}`).toBeLessThan(1.5e-4 * Math.sqrt(row.variance) + 2e-7 * (1 + Math.abs(row.mean)));
      const variance = Math.abs((variances?.[i] as number) - row.variance);
      expect(variance, `variance at ${row.a}`).toBeLessThan(1.5e-4 * row.variance + 3e-7);
    }
  });
});

describe("two-point draws", () => {
  // The coin's two sides give E[y] ± sd exactly, so no luck is needed to check both moments.
  test.each(families)("$label have the family's mean and variance", async ({ rows, make }) => {
    const family = make();
    const values = rows.map((row) => row.a);
    for (const score of scores) {
      const heads = await residualsAt(family, values, 0.25, "two-point", score);
      const tails = await residualsAt(family, values, 0.75, "two-point", score);
      for (const [i, row] of rows.entries()) {
        const [x, y] = [heads[i] as number, tails[i] as number];
        const mean = score === "paper" ? row.bias : 0;
        const deviation = Math.sqrt(row.variance);
        expect(Math.abs((x + y) / 2 - mean), `mean at ${row.a}`).toBeLessThan(1.5e-4 * deviation + 2e-7);
        expect(Math.abs((x - y) ** 2 / 4 - row.variance), `variance at ${row.a}`).toBeLessThan(
          3e-4 * row.variance + 3e-7,
        );
      }
    }
  });
});

describe("centred draws", () => {
  test.each(families)("$label have mean zero and the family's variance", async ({ rows, make }) => {
    const n = 100_000;
    const runner = await residualRunner(make(), { score: "centred" });
    const wide = rows.filter((row) => row.variance > 1e-3);
    const a = rowsOf(
      wide.map((row) => row.a),
      n,
    );
    const [residuals] = await runner.run(a, [wide.length, n], 99n);
    await runner.release();
    for (const [i, row] of wide.entries()) {
      const accumulator = new Accumulator(0, Math.sqrt(row.variance));
      accumulator.add((residuals as Float32Array).subarray(i * n, (i + 1) * n));
      const { mean, variance, meanError, varianceError } = accumulator.sums();
      expect(Math.abs(mean / meanError), `mean at ${row.a}`).toBeLessThan(5);
      expect(Math.abs((variance - row.variance) / varianceError), `variance at ${row.a}`).toBeLessThan(5);
    }
  });
});

describe("extremes", () => {
  const values = [-50, -49.3, -20, -1e-30, 0, 1e-30, 0.5, 20, 49.3, 50, 1e3, -1e3, 1e6, -1e6, 1e30, -1e30, 3e38, -3e38];

  test.each(families)("$label draws are finite, and in the support where it has ends", async ({ make }) => {
    const family = make();
    const [low, high] = family.scalar?.support ?? [-Infinity, Infinity];
    for (const draw of draws) {
      for (const score of scores) {
        for (const u of [SMALLEST, 0.5, 1 - SMALLEST]) {
          const residuals = await residualsAt(family, values, u, draw, score);
          for (const [i, a] of values.entries()) {
            const residual = residuals[i] as number;
            expect(Number.isFinite(residual), `${draw} ${score} a = ${a}, u = ${u}: ${residual}`).toBe(true);
            if (draw !== "exact" || score !== "paper" || Math.abs(a) > 50) continue;
            const y = residual + (family.scalar?.activation(a) ?? 0);
            // The table's spline may pass the support's end by this much at u = 2⁻²⁴ (Celu; others by 1e-3).
            expect(y).toBeGreaterThanOrEqual(low - 0.05);
            expect(y).toBeLessThanOrEqual(high + 0.05);
          }
        }
      }
    }
  });

  test.each(families)("$label: NaN and infinity come out as NaN or a number, not as an error", async ({ make }) => {
    for (const draw of draws) {
      const residuals = await residualsAt(make(), [NaN, Infinity, -Infinity, 0], 0.3, draw, "paper");
      // The Gaussian residual does not depend on a.
      if (make().name !== "gaussian") expect(residuals[0]).toBeNaN();
      expect(Number.isFinite(residuals[3])).toBe(true);
    }
  });
});

describe("shapes and sharing", () => {
  test.each(["tanh", "relu", "leaky_relu", "bernoulli", "gaussian"])("%s keeps any shape", async (name) => {
    const family = familyByName(name);
    const flat = Float32Array.from({ length: 24 }, (_, i) => i / 8 - 1.5);
    const results: Float32Array[] = [];
    for (const dims of [[24], [2, 12], [2, 3, 4], [1, 2, 3, 4]]) {
      const runner = await residualRunner(
        family,
        {},
        dims.map((_, i) => `d${i}`),
      );
      const [residuals] = await runner.run(flat, dims);
      results.push(residuals as Float32Array);
      await runner.release();
    }
    // Draws go by the flat index, so the shape does not change them.
    for (const other of results) expect(other).toEqual(results[0]);
    const empty = await residualRunner(family);
    expect((await empty.run(new Float32Array(0), [0, 7]))[0]).toHaveLength(0);
    await empty.release();
  });

  test("the caller's ŷ is used as it is, and draws agree with those without one", async () => {
    const family = familyByName("tanh");
    const type = { elemType: DataType.FLOAT, shape: ["n"] } as const;
    const runner = await Runner.create(["n"], (b, a) => {
      const input = { a, type, random: constantRandom(0.3), score: "paper", draw: "exact" } as const;
      return [family.residual(b, input), family.residual(b, { ...input, activation: b.op("Tanh", [a]) })];
    });
    const [without, given] = await runner.run(Float32Array.from([-3, -0.2, 0, 1.7]), [4]);
    await runner.release();
    expect(given).toEqual(without);
  });

  test("boundaries of one family share its tables", async () => {
    const family = familyByName("tanh");
    const b = newBuilder();
    const type = { elemType: DataType.FLOAT, shape: [3] } as const;
    const a = b.input("a", type);
    const input = { a, type, random: constantRandom(0.4), score: "paper", draw: "exact" } as const;
    const first = family.residual(b, input);
    const tables = b.graph.initializer.length;
    const second = familyByName("tanh").residual(b, input);
    expect(b.graph.initializer.length).toBe(tables);
    for (const output of [first, second]) b.output(output, type);
    const results = await runModel(modelOf(b.graph), { a: f32([-1, 0, 2], [3]) });
    expect(results[first]?.data).toEqual(results[second]?.data);
  });
});

describe("families that the golden file does not have", () => {
  // One bound, mirrored and moved tables, boxes so wide that each edge is drawn alone, linear outputs with a slope.
  test.each<[string, Record<string, number>, number[]]>([
    ["clip", { min: -2 }, [-6, -2, -1, 3]],
    ["clip", { max: 1.5 }, [-3, 1, 1.5, 7]],
    ["clip", { min: -9, max: 11 }, [-12, -9, -8, 1, 9.7, 14]],
    ["clip", { min: 3, max: 3.2 }, [-20, 3, 3.15, 40]],
    ["hard_sigmoid", { alpha: 0.002, beta: 0.3 }, [-200, -150, 0, 100, 345, 360]],
    ["gaussian", { slope: 0.25, offset: 3 }, [-2, 0, 5]],
    ["leaky_relu", { alpha: 0.5 }, [-2, 0, 5]],
  ])("%s %j: moments and distribution of the draws", async (name, parameters, values) => {
    const n = 200_000;
    const family = familyByName(name, parameters);
    const scalar = family.scalar as ScalarFamily;
    for (const score of scores) {
      for (const draw of draws) {
        const runner = await residualRunner(family, { score, draw });
        const [residuals] = await runner.run(rowsOf(values, n), [values.length, n], 5n);
        await runner.release();
        for (const [i, a] of values.entries()) {
          const where = `${score} ${draw} at ${a}`;
          const drawn = (residuals as Float32Array).subarray(i * n, (i + 1) * n);
          const centre = score === "paper" ? scalar.mean(a) - scalar.activation(a) : 0;
          const variance = scalar.variance(a);
          const accumulator = new Accumulator(centre, Math.sqrt(variance));
          accumulator.add(drawn);
          const sums = accumulator.sums();
          expect(Math.abs(sums.mean - centre) / sums.meanError, `mean, ${where}`).toBeLessThan(5);
          const tolerance = 5 * sums.varianceError + 3e-4 * variance;
          expect(Math.abs(sums.variance - variance), `variance, ${where}`).toBeLessThan(tolerance);
          if (draw === "two-point") continue;
          for (const p of [0.03, 0.3, 0.5, 0.8, 0.99]) {
            const limit = scalar.quantile(p, a) - (score === "paper" ? scalar.activation(a) : scalar.mean(a));
            const below = drawn.filter((value) => value <= limit).length / n;
            // A fast draw takes 16 values with equal chances: a step of their distribution function.
            const beyond = Math.abs(below - p) - (draw === "fast" ? 1 / LEVELS : 0);
            expect(beyond / Math.sqrt((p * (1 - p)) / n), `quantile ${p}, ${where}`).toBeLessThan(5);
          }
        }
      }
    }
  });
});

describe("prelu with a slope tensor", () => {
  const slopes = [0.05, 0.25, 1, 1.5];

  test("every channel has the moments of leaky Relu with its slope", async () => {
    const values = [-8, -2, -0.5, 0, 0.3, 1, 6];
    const runner = await Runner.create(["n", 4, 1], (b, a) => {
      const slope = b.initializer("slope", DataType.FLOAT, [4, 1], Float32Array.from(slopes));
      const type = { elemType: DataType.FLOAT, shape: ["n", 4, 1] } as const;
      const { mean, variance } = prelu(slope).moments(b, { a, type });
      return [mean, variance];
    });
    const a = Float32Array.from(values.flatMap((value) => slopes.map(() => value)));
    const [means, variances] = await runner.run(a, [values.length, 4, 1]);
    await runner.release();
    for (const [i, value] of values.entries()) {
      for (const [j, slope] of slopes.entries()) {
        const scalar = familyByName("leaky_relu", { alpha: slope }).scalar;
        const [mean, variance] = [scalar?.mean(value) as number, scalar?.variance(value) as number];
        expect(means?.[i * 4 + j]).toBeCloseTo(mean, 5);
        expect(Math.abs((variances?.[i * 4 + j] as number) / variance - 1)).toBeLessThan(1e-5);
      }
    }
  });
});
