/** The categorical family. */
import { describe, expect, test } from "vitest";
import type { Draw, RandomSource } from "../../src/families/family.js";
import { counterRandom } from "../../src/families/random.js";
import { type SoftmaxOptions, softmax } from "../../src/families/softmax.js";
import type { Dim } from "../../src/onnx/builder.js";
import { DataType } from "../../src/onnx/proto.js";
import { constantRandom, Runner } from "./support.js";

const LOGITS = [0.3, -1, 2, 0, -4, 1.1];
const CLASSES = LOGITS.length;

function probabilitiesOf(logits: readonly number[]): number[] {
  const most = Math.max(...logits);
  const weights = logits.map((x) => Math.exp(x - most));
  const total = weights.reduce((sum, w) => sum + w, 0);
  return weights.map((w) => w / total);
}

function runner(shape: readonly Dim[], draw: Draw, options: SoftmaxOptions = {}, random?: RandomSource) {
  return Runner.create(shape, (b, a, seed) => {
    const type = { elemType: DataType.FLOAT, shape };
    const source = random ?? counterRandom(seed, 0);
    const p = b.op("Softmax", [a], { axis: options.axis ?? -1 });
    const activation = options.log ? b.op("LogSoftmax", [a], { axis: options.axis ?? -1 }) : p;
    return [softmax(options).residual(b, { a, type, activation, random: source, score: "paper", draw }), p];
  });
}

describe.each(["exact", "two-point"] as const)("%s draws", (draw) => {
  test("have mean zero and covariance diag(p) − p pᵀ", async () => {
    const rows = 200_000;
    const session = await runner(["n", CLASSES], draw);
    const a = Float32Array.from({ length: rows * CLASSES }, (_, i) => LOGITS[i % CLASSES] as number);
    const [residuals] = (await session.run(a, [rows, CLASSES])) as [Float32Array];
    await session.release();
    const p = probabilitiesOf(LOGITS);
    for (let j = 0; j < CLASSES; j++) {
      for (let k = j; k < CLASSES; k++) {
        let sum = 0;
        let squares = 0;
        for (let row = 0; row < rows; row++) {
          const product = (residuals[row * CLASSES + j] as number) * (residuals[row * CLASSES + k] as number);
          sum += product;
          squares += product * product;
        }
        const covariance = (j === k ? (p[j] as number) : 0) - (p[j] as number) * (p[k] as number);
        const error = Math.sqrt(squares / rows - (sum / rows) ** 2) / Math.sqrt(rows);
        expect(Math.abs(sum / rows - covariance), `covariance ${j}, ${k}`).toBeLessThan(5 * error + 1e-6);
      }
      let mean = 0;
      for (let row = 0; row < rows; row++) mean += (residuals[row * CLASSES + j] as number) / rows;
      const error = Math.sqrt(((p[j] as number) * (1 - (p[j] as number))) / rows);
      expect(Math.abs(mean), `mean ${j}`).toBeLessThan(5 * error);
    }
  });
});

/** y itself: residual + p. */
async function oneHots(a: Float32Array, dims: number[], options: SoftmaxOptions, random?: RandomSource) {
  const session = await runner(
    dims.map((_, i) => `d${i}`),
    "exact",
    options,
    random,
  );
  const [residuals, p] = (await session.run(a, dims)) as [Float32Array, Float32Array];
  await session.release();
  return residuals.map((residual, i) => Math.abs(Math.round(residual + (p[i] as number))));
}

describe("one-hot draws", () => {
  test.each([
    [[50, 7], -1],
    [[50, 7], 1],
    [[4, 5, 3, 2], 1],
    [[6, 4, 2], 0],
    [[3, 1], -1],
    [[300, 1000], -1],
  ] as [number[], number][])("shape %j, axis %d: exactly one 1 a row", async (dims, axis) => {
    const count = dims.reduce((product, dim) => product * dim, 1);
    const a = Float32Array.from({ length: count }, (_, i) => Math.sin(i) * 4);
    const y = await oneHots(a, dims, { axis });
    const at = axis < 0 ? axis + dims.length : axis;
    const inner = dims.slice(at + 1).reduce((product, dim) => product * dim, 1);
    const classes = dims[at] as number;
    for (let row = 0; row < count / classes; row++) {
      const start = Math.floor(row / inner) * classes * inner + (row % inner);
      const values = Array.from({ length: classes }, (_, k) => y[start + k * inner] as number);
      expect(values.filter((value) => value === 1)).toHaveLength(1);
      expect(values.filter((value) => value === 0)).toHaveLength(classes - 1);
    }
  });

  test.each([2 ** -24, 1 - 2 ** -24])("u = %d still gives one 1, and never an impossible class", async (u) => {
    const rows = [
      [0, 0, 0, 0],
      [-1000, 5, 5, -1000],
      [80, -80, -80, -80],
      [-80, -80, -80, 80],
      [1e30, 0, 0, -1e30],
    ];
    const y = await oneHots(Float32Array.from(rows.flat()), [rows.length, 4], {}, constantRandom(u));
    for (const [i, row] of rows.entries()) {
      const values = Array.from(y.subarray(4 * i, 4 * i + 4));
      expect(values.filter((value) => value === 1)).toHaveLength(1);
      expect(probabilitiesOf(row)[values.indexOf(1)]).toBeGreaterThan(0);
    }
  });

  test("log-probabilities draw the same", async () => {
    const a = Float32Array.from({ length: 300 }, (_, i) => Math.cos(i) * 3);
    expect(await oneHots(a, [50, 6], { log: true })).toEqual(await oneHots(a, [50, 6], {}));
  });
});

test("moments are p and the covariance's diagonal", async () => {
  const session = await Runner.create(["n", 3], (b, a) => {
    const { mean, variance } = softmax().moments(b, { a, type: { elemType: DataType.FLOAT, shape: ["n", 3] } });
    return [mean, variance];
  });
  const [mean, variance] = await session.run(Float32Array.from([0, 1, -2]), [1, 3]);
  await session.release();
  for (const [k, p] of probabilitiesOf([0, 1, -2]).entries()) {
    expect(mean?.[k]).toBeCloseTo(p, 6);
    expect(variance?.[k]).toBeCloseTo(p * (1 - p), 6);
  }
});
