/** The random numbers of fast draws: uniform, any two independent, the same for the same seed. */
import { describe, expect, test } from "vitest";
import { LEVEL_STEP, LEVELS, pooledRandom } from "../../src/families/pool.js";
import { familyByName } from "../../src/families/registry.js";
import type { Dim } from "../../src/onnx/builder.js";
import { DataType } from "../../src/onnx/proto.js";
import { Runner } from "./support.js";

/** Standard deviations of a normal; of a χ² with many degrees of freedom, about. */
const LIMIT = 5;

/** Levels of two boundaries of one program, the first of the shape given, the second of twice its first dimension. */
async function poolRunner(shape: readonly Dim[], last?: number) {
  return Runner.create(shape, (b, a) => {
    const own = { shape: b.shape(a), last };
    const twice = { shape: b.shape(b.concat([a, a], 0)), last };
    const [first, second] = pooledRandom(b, "seed", [own, twice]);
    return [first?.levels() as string, second?.levels() as string, second?.normals() as string];
  });
}

const levelOf = (value: number) => Math.floor(value / LEVEL_STEP) % LEVELS;

/** (χ² − degrees)/√(2·degrees) of counts that should be equal. */
function chiSquared(counts: Float64Array): number {
  const expected = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  const value = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  return (value - (counts.length - 1)) / Math.sqrt(2 * (counts.length - 1));
}

describe("pooled levels", () => {
  test.each([
    [[0], undefined],
    [[1], undefined],
    [[3, 500], 500],
    [[5, 7], 7],
    [[2, 3, 128], 128],
  ] as [number[], number | undefined][])(
    "of shape %j lie in their range, with a fraction below 1",
    async (dims, last) => {
      const count = dims.reduce((product, dim) => product * dim, 1);
      const runner = await poolRunner(
        dims.map((_, i) => `d${i}`),
        last,
      );
      const drawn = await runner.run(new Float32Array(count), dims);
      const again = await runner.run(new Float32Array(count), dims);
      const other = await runner.run(new Float32Array(count), dims, 2n);
      await runner.release();
      expect(drawn.map((values) => values.length)).toEqual([count, 2 * count, 2 * count]);
      expect(again).toEqual(drawn);
      for (const value of drawn[0] as Float32Array) {
        expect(value % LEVEL_STEP).toBeLessThan(1);
        expect(value).toBeGreaterThanOrEqual(0);
        expect(value).toBeLessThan(2 * LEVELS * LEVEL_STEP);
      }
      if (count > 100) expect(other).not.toEqual(drawn);
    },
  );

  test("are uniform, and any two of them independent", async () => {
    const dims = [40, 500];
    const runner = await poolRunner(["n", 500], 500);
    const one = new Float64Array(LEVELS);
    // Within a run; in two runs of a column; far apart; in two boundaries.
    const pairs = Array.from({ length: 4 }, () => new Float64Array(LEVELS * LEVELS));
    for (let seed = 0; seed < 60; seed++) {
      const [first, second] = await runner.run(new Float32Array(20_000), dims, BigInt(seed));
      const level = (at: number) => levelOf((first as Float32Array)[at] as number);
      const inSecond = (at: number) => levelOf((second as Float32Array)[at] as number);
      for (let i = 0; i + 1 < 40; i++) {
        for (let j = 0; j + 7 < 125; j++) {
          const at = 500 * i + j;
          one[level(at)] = (one[level(at)] as number) + 1;
          const others = [level(at + 7), level(at + 500), level((at + 9_131) % 20_000), inSecond(at)];
          for (const [k, other] of others.entries()) {
            const cell = level(at) * LEVELS + other;
            (pairs[k] as Float64Array)[cell] = ((pairs[k] as Float64Array)[cell] as number) + 1;
          }
        }
      }
    }
    await runner.release();
    expect(Math.abs(chiSquared(one))).toBeLessThan(LIMIT);
    for (const counts of pairs) expect(Math.abs(chiSquared(counts))).toBeLessThan(LIMIT);
  });

  test("normals have mean 0, variance 1 and no correlation between columns or rows", async () => {
    const runner = await poolRunner(["n", 256], 256);
    const [, , normals] = await runner.run(new Float32Array(256 * 1000), [1000, 256], 3n);
    await runner.release();
    const z = normals as Float32Array;
    const mean = (product: (at: number) => number) => {
      let sum = 0;
      for (let at = 0; at < z.length - 512; at++) sum += product(at);
      return sum / (z.length - 512);
    };
    const value = (at: number) => z[at] as number;
    const limit = LIMIT / Math.sqrt(z.length);
    expect(Math.abs(mean(value))).toBeLessThan(limit);
    expect(Math.abs(mean((at) => value(at) ** 2) - 1)).toBeLessThan(Math.SQRT2 * limit);
    for (const lag of [1, 5, 128, 256]) expect(Math.abs(mean((at) => value(at) * value(at + lag)))).toBeLessThan(limit);
  });
});

test("fast draws of tanh give the expected statistic of a layer: E[gᵀg] over seeds", async () => {
  // g = Σ_i e_i x_i for one unit and four examples with inputs x; E[g²] = Σ Var_i·x_i² + (Σ bias_i·x_i)².
  const [family, a, x] = [familyByName("tanh"), [-1.5, 0.2, 0.9, 4], [1, -2, 0.5, 3]];
  const columns = 640;
  const runner = await Runner.create(["n", columns], (b, given) => {
    const type = { elemType: DataType.FLOAT, shape: ["n", columns] } as const;
    const pool = pooledRandom(b, "seed", [{ shape: b.shape(given), last: columns }])[0];
    const random = { uniform: () => "", integers: () => "" };
    return [family.residual(b, { a: given, type, random, ...(pool && { pool }), score: "paper", draw: "fast" })];
  });
  const squares: number[] = [];
  for (let seed = 0; seed < 200; seed++) {
    const [e] = await runner.run(
      Float32Array.from(a.flatMap((v) => new Array(columns).fill(v))),
      [4, columns],
      BigInt(seed),
    );
    for (let j = 0; j < columns; j++) {
      const g = x.reduce((sum, value, i) => sum + value * ((e as Float32Array)[i * columns + j] as number), 0);
      squares.push(g * g);
    }
  }
  await runner.release();
  const scalar = family.scalar as NonNullable<typeof family.scalar>;
  const bias = a.reduce((sum, v, i) => sum + (scalar.mean(v) - scalar.activation(v)) * (x[i] as number), 0);
  const expected = a.reduce((sum, v, i) => sum + scalar.variance(v) * (x[i] as number) ** 2, bias ** 2);
  const mean = squares.reduce((sum, value) => sum + value, 0) / squares.length;
  const deviation = Math.sqrt(squares.reduce((sum, value) => sum + (value - mean) ** 2, 0) / squares.length);
  expect(Math.abs(mean - expected)).toBeLessThan((LIMIT * deviation) / Math.sqrt(squares.length) + 5e-3 * expected);
});
