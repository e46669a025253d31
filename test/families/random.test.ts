/** The generator, tested as generators are: the graph against its twin, then the twin's statistics. */
import * as ort from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { FishyError } from "../../src/errors.js";
import { counterIntegers, counterUniforms, counterWords, mix, ROW_WIDTH } from "../../src/families/counter-hash.js";
import { counterRandom, dropoutMask } from "../../src/families/random.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import { modelOf, newBuilder } from "../support/run.js";
import { Runner } from "./support.js";

/** Limits below are for fixed seeds, so a pass is a pass for ever; they are what a perfect generator exceeds once in a million. */
const Z_LIMIT = 4.9;

async function drawn(seed: bigint, boundary: number, calls: number, dims: readonly number[]): Promise<Float32Array[]> {
  const runner = await Runner.create(
    dims.map((_, i) => `d${i}`),
    (b, a, seedName) => {
      const random = counterRandom(seedName, boundary);
      return Array.from({ length: calls }, () => random.uniform(b, b.shape(a)));
    },
  );
  const count = dims.reduce((product, dim) => product * dim, 1);
  const results = await runner.run(new Float32Array(count), dims, seed);
  await runner.release();
  return results;
}

describe("the graph draws its twin's bits", () => {
  const seeds = [0n, 1n, -1n, 2n ** 32n - 1n, 2n ** 32n, -(2n ** 32n), 2n ** 62n + 12345n, -(2n ** 62n) - 7n];
  test.each(seeds)("seed %s", async (seed) => {
    for (const [call, uniforms] of (await drawn(seed, 5, 2, [3, 700])).entries()) {
      expect(uniforms).toEqual(counterUniforms(seed, 5, call, 2100));
    }
  });

  test.each([[[0]], [[1]], [[ROW_WIDTH]], [[ROW_WIDTH + 1]], [[2, 0, 3]], [[5, 1, 7, 300]]])(
    "shape %j",
    async (dims) => {
      const count = dims.reduce((product, dim) => product * dim, 1);
      const [uniforms] = await drawn(42n, 0, 1, dims);
      expect(uniforms).toEqual(counterUniforms(42n, 0, 0, count));
    },
  );

  test("one thread or two, optimised or not", async () => {
    const b = newBuilder();
    const seed = b.input("seed", { elemType: DataType.INT64, shape: [] });
    const shape = b.input("shape", { elemType: DataType.INT64, shape: [2] });
    const random = counterRandom(seed, 1);
    b.output(random.uniform(b, shape), { elemType: DataType.FLOAT, shape: undefined });
    const model = encodeModel(modelOf(b.graph));
    const expected = counterUniforms(9n, 1, 0, 300_000);
    for (const options of [
      { intraOpNumThreads: 1 },
      { intraOpNumThreads: 2 },
      { intraOpNumThreads: 2, graphOptimizationLevel: "disabled" as const },
    ]) {
      const session = await ort.InferenceSession.create(model, { ...options, logSeverityLevel: 3 });
      const results = await session.run({
        seed: new ort.Tensor("int64", [9n], []),
        shape: new ort.Tensor("int64", [300n, 1000n], [2]),
      });
      expect(Object.values(results)[0]?.data).toEqual(expected);
      await session.release();
    }
  });

  test("only operators and types that CUDA and WebGPU have", () => {
    const b = newBuilder();
    const seed = b.input("seed", { elemType: DataType.INT64, shape: [] });
    counterRandom(seed, 0).uniform(b, b.i64([10]));
    const used = new Set(b.graph.node.map((node) => node.opType));
    const allowed = "Add Sub Mul Div Cast Range ReduceProd Reshape Slice Squeeze Unsqueeze".split(" ");
    expect([...used].filter((operator) => !allowed.includes(operator ?? ""))).toEqual([]);
  });
});

const SAMPLE = 1 << 21;
const sample = Float64Array.from(counterUniforms(2024n, 3, 0, SAMPLE));

/** Pearson's χ² as a standard normal deviate. */
function chiSquared(counts: ArrayLike<number>, total: number): number {
  const cells = counts.length;
  let sum = 0;
  for (let i = 0; i < cells; i++) sum += ((counts[i] as number) - total / cells) ** 2 / (total / cells);
  return (sum - (cells - 1)) / Math.sqrt(2 * (cells - 1));
}

/** The correlation of two uniform sequences in standard errors. */
function correlation(x: ArrayLike<number>, y: ArrayLike<number>, count: number, lag = 0): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += ((x[i] as number) - 0.5) * ((y[i + lag] as number) - 0.5);
  return (12 * sum) / Math.sqrt(count);
}

describe("integers", () => {
  test.each([1, 10, 12, 16, 24])("of %d bits: the graph draws its twin's", async (bits) => {
    for (const dims of [[0], [1], [3, 700], [2 * ROW_WIDTH + 5], [4, 1, 2000]]) {
      const count = dims.reduce((product, dim) => product * dim, 1);
      const runner = await Runner.create(
        dims.map((_, i) => `d${i}`),
        (b, a, seed) => [b.cast(counterRandom(seed, 7).integers(b, b.shape(a), bits), DataType.FLOAT)],
      );
      const [drawn] = await runner.run(new Float32Array(count), dims, -5n);
      await runner.release();
      expect(drawn).toEqual(Float32Array.from(counterIntegers(-5n, 7, 0, count, bits)));
    }
  });

  test.each([1, 10, 12])("of %d bits: uniform, and without correlation along the stream and across lanes", (bits) => {
    const count = 1 << 20;
    const cells = 2 ** bits;
    const integers = counterIntegers(77n, 2, 0, count, bits);
    const counts = new Float64Array(cells);
    for (const integer of integers) counts[integer] = (counts[integer] as number) + 1;
    expect(Math.abs(chiSquared(counts, count))).toBeLessThan(Z_LIMIT);
    const deviation = Math.sqrt((cells * cells - 1) / 12);
    const values = Float64Array.from(integers, (integer) => (integer - (cells - 1) / 2) / deviation);
    // One lane further is ROW_WIDTH elements further, and another row of words all lanes further.
    for (const lag of [1, 2, ROW_WIDTH, 2 * ROW_WIDTH, 3 * ROW_WIDTH, 29 * ROW_WIDTH, 30 * ROW_WIDTH]) {
      let sum = 0;
      for (let i = 0; i + lag < count; i++) sum += (values[i] as number) * (values[i + lag] as number);
      expect(Math.abs(sum) / Math.sqrt(count - lag), `lag ${lag}`).toBeLessThan(Z_LIMIT);
    }
    // Pairs of the upper bits of neighbouring lanes fill their square evenly.
    const side = Math.min(cells, 32);
    const pairs = new Float64Array(side * side);
    for (let i = 0; i + ROW_WIDTH < count; i++) {
      const [x, y] = [integers[i] as number, integers[i + ROW_WIDTH] as number];
      const at = Math.floor((x * side) / cells) * side + Math.floor((y * side) / cells);
      pairs[at] = (pairs[at] as number) + 1;
    }
    expect(Math.abs(chiSquared(pairs, count - ROW_WIDTH))).toBeLessThan(Z_LIMIT);
  });
});

describe("one stream", () => {
  test.each([64, 1024, 65536])("is uniform over %d cells", (cells) => {
    const counts = new Float64Array(cells);
    for (const u of sample) counts[Math.floor(u * cells)] = (counts[Math.floor(u * cells)] as number) + 1;
    expect(Math.abs(chiSquared(counts, SAMPLE))).toBeLessThan(Z_LIMIT);
  });

  test("is uniform in its low bits too", () => {
    const counts = new Float64Array(1024);
    for (const u of sample) {
      const low = Math.floor(u * 2 ** 23) % 1024;
      counts[low] = (counts[low] as number) + 1;
    }
    expect(Math.abs(chiSquared(counts, SAMPLE))).toBeLessThan(Z_LIMIT);
  });

  test.each([1, 2, 3, 10, 250, 784, 1000, ROW_WIDTH - 1, ROW_WIDTH, ROW_WIDTH + 1, 2 * ROW_WIDTH])(
    "does not correlate at lag %d",
    (lag) => {
      expect(Math.abs(correlation(sample, sample, SAMPLE - lag, lag))).toBeLessThan(Z_LIMIT);
    },
  );

  test.each([1, 10, ROW_WIDTH])("has uniform pairs at lag %d", (lag) => {
    const side = 128;
    const counts = new Float64Array(side * side);
    for (let i = 0; i + lag < SAMPLE; i++) {
      const cell = Math.floor((sample[i] as number) * side) * side + Math.floor((sample[i + lag] as number) * side);
      counts[cell] = (counts[cell] as number) + 1;
    }
    expect(Math.abs(chiSquared(counts, SAMPLE - lag))).toBeLessThan(Z_LIMIT);
  });

  test("has uniform triples", () => {
    const side = 32;
    const counts = new Float64Array(side ** 3);
    for (let i = 0; i + 2 < SAMPLE; i++) {
      const [x, y, z] = [0, 1, 2].map((k) => Math.floor((sample[i + k] as number) * side)) as [number, number, number];
      counts[(x * side + y) * side + z] = (counts[(x * side + y) * side + z] as number) + 1;
    }
    expect(Math.abs(chiSquared(counts, SAMPLE - 2))).toBeLessThan(Z_LIMIT);
  });

  // Row keys plus column words must not leave a trace: x(i,j) − x(i,l) − x(k,j) + x(k,l) would vanish for a bare sum.
  test("has no rectangle structure between rows and columns", () => {
    const sign = (row: number, column: number) => ((sample[row * ROW_WIDTH + column] as number) < 0.5 ? -1 : 1);
    const rows = SAMPLE / ROW_WIDTH;
    let squares = 0;
    let pairs = 0;
    for (let j = 0; j < 40; j++) {
      for (let l = j + 1; l < 40; l++, pairs++) {
        let sum = 0;
        for (let row = 0; row + 1 < rows; row++)
          sum += sign(row, j) * sign(row, l) * sign(row + 1, j) * sign(row + 1, l);
        squares += sum ** 2 / (rows - 1);
      }
    }
    expect(Math.abs(squares - pairs) / Math.sqrt(2 * pairs)).toBeLessThan(Z_LIMIT);
  });

  test("stays inside (0, 1) and repeats like random 23-bit numbers do", () => {
    const step = 2 ** -23;
    let least = 1;
    let most = 0;
    for (const u of sample) {
      least = Math.min(least, u);
      most = Math.max(most, u);
      if (!Number.isInteger(u / step - 0.5)) throw new Error(`${u} is not the middle of a step`);
    }
    expect(least).toBeGreaterThanOrEqual(step / 2);
    expect(most).toBeLessThanOrEqual(1 - step / 2);
    const distinct = new Set(sample).size;
    const cells = 2 ** 23;
    const expected = cells * (1 - Math.exp(-SAMPLE / cells));
    expect(Math.abs(distinct - expected)).toBeLessThan(Z_LIMIT * Math.sqrt(expected));
  });
});

describe("many streams", () => {
  const LENGTH = 1 << 14;
  const PAIRS = 200;

  test.each<[string, (i: number) => Float32Array]>([
    ["consecutive seeds", (i) => counterUniforms(BigInt(i), 0, 0, LENGTH)],
    ["seeds that differ in the upper word", (i) => counterUniforms(BigInt(i) << 32n, 0, 0, LENGTH)],
    ["consecutive boundaries", (i) => counterUniforms(7n, i, 0, LENGTH)],
    ["consecutive calls", (i) => counterUniforms(7n, 2, i, LENGTH)],
    ["seed and boundary rising together", (i) => counterUniforms(BigInt(i), PAIRS - i, 0, LENGTH)],
  ])("%s do not correlate", (_, stream) => {
    let squares = 0;
    let previous = stream(0);
    for (let i = 1; i <= PAIRS; i++) {
      const next = stream(i);
      const z = correlation(previous, next, LENGTH);
      expect(Math.abs(z)).toBeLessThan(Z_LIMIT);
      squares += z * z;
      previous = next;
    }
    expect(Math.abs(squares - PAIRS) / Math.sqrt(2 * PAIRS)).toBeLessThan(Z_LIMIT);
  });

  test.each([0, 1, 777, ROW_WIDTH, 2 * ROW_WIDTH + 3])("element %d is uniform over consecutive seeds", (element) => {
    const draws = 5000;
    const values = Float64Array.from({ length: draws }, (_, seed) => elementOf(BigInt(seed), element));
    const counts = new Float64Array(64);
    for (const u of values) counts[Math.floor(u * 64)] = (counts[Math.floor(u * 64)] as number) + 1;
    expect(Math.abs(chiSquared(counts, draws))).toBeLessThan(Z_LIMIT);
    expect(Math.abs(correlation(values, values, draws - 1, 1))).toBeLessThan(Z_LIMIT);
  });

  function elementOf(seed: bigint, element: number): number {
    return counterUniforms(seed, 0, 0, element + 1)[element] as number;
  }

  test("no two streams are the same", () => {
    const heads = new Set<string>();
    for (let seed = 0n; seed < 20n; seed++) {
      for (let boundary = 0; boundary < 20; boundary++) {
        for (let call = 0; call < 3; call++) heads.add(counterWords(seed, boundary, call, 4).join());
      }
    }
    expect(heads.size).toBe(20 * 20 * 3);
  });
});

describe("avalanche", () => {
  const WORDS = 20_000;

  function worstBias(flips: Float64Array, trials: number): number {
    return Math.max(...Array.from(flips, (count) => Math.abs(count / trials - 0.5)));
  }

  test.each(Array.from({ length: 32 }, (_, bit) => bit))(
    "flipping input bit %d of the mix flips every output bit",
    (bit) => {
      const flips = new Float64Array(32);
      for (let i = 0; i < WORDS; i++) {
        // Spread inputs, and small ones as counters are.
        const x = i % 2 ? Math.imul(i, 0x2545f491) >>> 0 : i;
        const changed = (mix(x) ^ mix((x ^ (1 << bit)) >>> 0)) >>> 0;
        for (let k = 0; k < 32; k++) flips[k] = (flips[k] as number) + ((changed >>> k) & 1);
      }
      // Half of the pairs occur twice when the bit is small, hence the factor.
      expect(worstBias(flips, WORDS)).toBeLessThan((Math.SQRT2 * Z_LIMIT) / Math.sqrt(4 * WORDS));
    },
  );

  test.each([0, 1, 5, 31, 32, 47, 62])("flipping seed bit %d flips every bit of every element", (bit) => {
    const flips = new Float64Array(32);
    let trials = 0;
    for (let seed = 0n; seed < 40n; seed++) {
      const words = counterWords(seed, 0, 0, ROW_WIDTH);
      const others = counterWords(seed ^ (1n << BigInt(bit)), 0, 0, ROW_WIDTH);
      for (let i = 0; i < ROW_WIDTH; i++, trials++) {
        const changed = ((words[i] as number) ^ (others[i] as number)) >>> 0;
        for (let k = 0; k < 32; k++) flips[k] = (flips[k] as number) + ((changed >>> k) & 1);
      }
    }
    expect(worstBias(flips, trials)).toBeLessThan((Math.SQRT2 * Z_LIMIT) / Math.sqrt(4 * trials));
  });
});

describe("dropout mask", () => {
  test.each([0, 0.1, 0.5, 0.9])("ratio %d keeps 1 − ratio and has mean one", async (ratio) => {
    const runner = await Runner.create(["n"], (b, a, seed) => [dropoutMask(b, counterRandom(seed, 0), a, ratio)]);
    const count = 200_000;
    const [mask] = await runner.run(new Float32Array(count), [count]);
    await runner.release();
    const scale = Math.fround(1 / (1 - ratio));
    expect([...new Set(mask)].sort()).toEqual(ratio === 0 ? [scale] : [0, scale]);
    const kept = (mask as Float32Array).filter((value) => value !== 0).length;
    const deviation = Math.sqrt(count * ratio * (1 - ratio));
    expect(Math.abs(kept - count * (1 - ratio))).toBeLessThanOrEqual(Z_LIMIT * deviation);
  });

  test.each([1, -0.1, Number.NaN])("a ratio of %d is refused", (ratio) => {
    const b = newBuilder();
    expect(() => dropoutMask(b, counterRandom("seed", 0), "x", ratio)).toThrow(FishyError);
  });
});
