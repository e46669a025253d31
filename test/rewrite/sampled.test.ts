/** Sampled gradients: their second moments against closed forms derived here, and the independence of sections. */
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { encodeModel } from "../../src/onnx/codec.js";
import type { TrainingProgram } from "../../src/rewrite/manifest.js";
import { type RewriteOptions, rewrite } from "../../src/rewrite/rewrite.js";
import { type Forward, forward, type TwoLayerNet, twoLayerNet } from "../support/mlp.js";

const SEEDS = 6000;

type Matrix = number[][];

/** The mean over many seeds of f(sampled gradients), and its standard error, by entry. */
async function monteCarlo(
  net: TwoLayerNet,
  options: RewriteOptions,
  statistic: (gradient: (name: string) => Float32Array) => number[],
): Promise<{ mean: number[]; error: number[] }> {
  const program = await rewrite(net.model, { loss: "softmax-cross-entropy", ...options });
  const session = await ort.InferenceSession.create(encodeModel(program.model), { logSeverityLevel: 3 });
  const labels = new ort.Tensor("int64", new BigInt64Array(net.batch), [net.batch]);
  const x = new ort.Tensor("float32", Float32Array.from(net.x), [net.batch, net.sizes[0]]);
  let sum: number[] = [];
  let squares: number[] = [];
  for (let seed = 0; seed < SEEDS; seed++) {
    const seedTensor = new ort.Tensor("int64", BigInt64Array.of(BigInt(seed)), []);
    const names = program.manifest.parameters.map((parameter) => parameter.sampledGradient as string);
    const results = await session.run({ x, labels, seed: seedTensor }, names);
    const values = statistic((name) => results[`${name}_sampled_grad`]?.data as Float32Array);
    if (sum.length === 0) [sum, squares] = [values.map(() => 0), values.map(() => 0)];
    for (const [i, value] of values.entries()) {
      sum[i] = (sum[i] as number) + value;
      squares[i] = (squares[i] as number) + value * value;
    }
  }
  await session.release();
  const mean = sum.map((value) => value / SEEDS);
  const error = mean.map((m, i) => Math.sqrt(Math.max(0, (squares[i] as number) / SEEDS - m * m) / SEEDS));
  return { mean, error };
}

/** Every entry within 5 standard errors; entries that hardly vary within 1e-6. */
function expectClose({ mean, error }: { mean: number[]; error: number[] }, reference: number[]): void {
  expect(mean.length).toBe(reference.length);
  for (const [i, value] of reference.entries()) {
    expect(Math.abs((mean[i] as number) - value), `entry ${i}`).toBeLessThan(5 * (error[i] as number) + 1e-6);
  }
}

/** G Gᵀ of a row-major [rows, columns] matrix. */
function gram(g: ArrayLike<number>, rows: number): number[] {
  const columns = g.length / rows;
  const result: number[] = [];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < rows; j++) {
      let sum = 0;
      for (let k = 0; k < columns; k++) sum += (g[i * columns + k] as number) * (g[j * columns + k] as number);
      result.push(sum);
    }
  }
  return result;
}

/** Mean and variance of p(y) ∝ exp(a·y − F*(y)) on [−1, 1], F*(y) = ½[(1+y)ln(1+y) + (1−y)ln(1−y)], by Simpson's rule. */
function tanhMoments(a: number): { mean: number; variance: number } {
  const intervals = 20000;
  const xlogx = (x: number) => (x > 0 ? x * Math.log(x) : 0);
  const moments = [0, 0, 0];
  for (let i = 0; i <= intervals; i++) {
    const y = -1 + (2 * i) / intervals;
    const weight = i === 0 || i === intervals ? 1 : i % 2 === 1 ? 4 : 2;
    const density = weight * Math.exp(a * y - (xlogx(1 + y) + xlogx(1 - y)) / 2);
    for (let k = 0; k < 3; k++) moments[k] = (moments[k] as number) + density * y ** k;
  }
  const [z, first, second] = moments as [number, number, number];
  return { mean: first / z, variance: second / z - (first / z) ** 2 };
}

const norm2 = (values: readonly number[]) => values.reduce((sum, value) => sum + value * value, 0);

/** E[G Gᵀ] of one layer: 1/n² Σ |h_i|² V_i + B Bᵀ, with B = 1/n Σ b_i h_iᵀ (facts: bregman.md 4.1, derived again in the comments). */
function layerExpectation(inputs: Matrix, covariances: Matrix, biases: Matrix): number[] {
  // G = 1/n Σ δ_i h_iᵀ with δ_i independent, mean b_i, covariance V_i; cross terms i ≠ j leave only the means.
  const n = inputs.length;
  const size = (biases[0] as number[]).length;
  const width = (inputs[0] as number[]).length;
  const b = Array.from({ length: size * width }, (_, at) => {
    const [row, column] = [Math.floor(at / width), at % width];
    return inputs.reduce((sum, h, i) => sum + ((biases[i] as number[])[row] as number) * (h[column] as number), 0) / n;
  });
  const result = gram(b, size);
  for (const [i, h] of inputs.entries()) {
    for (const [at, value] of (covariances[i] as number[]).entries()) {
      result[at] = (result[at] as number) + (norm2(h) * value) / n ** 2;
    }
  }
  return result;
}

const diagonal = (values: number[]) => values.flatMap((v, i) => values.map((_, j) => (i === j ? v : 0)));
const softmaxCovariance = (p: number[]) => p.flatMap((pi, i) => p.map((pj, j) => (i === j ? pi : 0) - pi * pj));

function rowsOf(net: TwoLayerNet): Matrix {
  const width = net.sizes[0];
  return Array.from({ length: net.batch }, (_, i) => net.x.slice(i * width, (i + 1) * width));
}

describe("per-layer sampled gradients", () => {
  const net = twoLayerNet("Tanh", 2);
  const values: Forward = forward(net, Math.tanh);
  const [, hidden, classes] = net.sizes;

  it.each(["paper", "centred"] as const)("have the closed form of E[G Gᵀ] (%s)", async (score) => {
    const estimate = await monteCarlo(net, { score }, (g) => [
      ...gram(g("fc1.weight"), hidden),
      ...gram(g("fc2.weight"), classes),
    ]);
    const moments = values.a1.map((row) => row.map(tanhMoments));
    const biases = moments.map((row, i) =>
      row.map(({ mean }, k) => (score === "paper" ? mean - ((values.h1[i] as number[])[k] as number) : 0)),
    );
    const first = layerExpectation(
      rowsOf(net),
      moments.map((row) => diagonal(row.map(({ variance }) => variance))),
      biases,
    );
    const second = layerExpectation(
      values.h1,
      values.p.map(softmaxCovariance),
      values.p.map((p) => p.map(() => 0)),
    );
    expectClose(estimate, [...first, ...second]);
  });
});

describe("output-only sampled gradients", () => {
  const net = twoLayerNet("Tanh");
  const values = forward(net, Math.tanh);
  const [inputs, hidden, classes] = net.sizes;

  /** ∇_{W1, W2} of log p(class | x_i), flattened. */
  function score(i: number, label: number): number[] {
    const p = values.p[i] as number[];
    const h = values.h1[i] as number[];
    const x = rowsOf(net)[i] as number[];
    const delta2 = p.map((value, k) => (k === label ? 1 : 0) - value);
    const delta1 = h.map((value, j) => {
      const back = delta2.reduce((sum, d, k) => sum + d * (net.weights[1][k * hidden + j] as number), 0);
      return back * (1 - value * value);
    });
    return [...delta1.flatMap((d) => x.map((v) => d * v)), ...delta2.flatMap((d) => h.map((v) => d * v))];
  }

  it("have the true Fisher as their covariance", async () => {
    const size = hidden * inputs + classes * hidden;
    // E[g gᵀ] of the batch mean = 1/n² Σ_i Σ_y p(y|x_i) ∇log p ∇log pᵀ, by enumerating the classes.
    const fisher = new Array<number>(size * size).fill(0);
    for (let i = 0; i < net.batch; i++) {
      for (let label = 0; label < classes; label++) {
        const gradient = score(i, label);
        const weight = ((values.p[i] as number[])[label] as number) / net.batch ** 2;
        for (let r = 0; r < size; r++) {
          for (let c = 0; c < size; c++) {
            fisher[r * size + c] =
              (fisher[r * size + c] as number) + weight * (gradient[r] as number) * (gradient[c] as number);
          }
        }
      }
    }
    const estimate = await monteCarlo(net, { sections: { kind: "output" } }, (g) => {
      const flat = [...g("fc1.weight"), ...g("fc2.weight")];
      return flat.flatMap((a) => flat.map((b) => a * b));
    });
    expectClose(estimate, fisher);
  });
});

describe("sections", () => {
  async function sampledGradients(program: TrainingProgram, net: TwoLayerNet, overrides: Record<string, ort.Tensor>) {
    // The Node binding ignores feeds of initializers, so what is overridden stops being one.
    const { graph } = program.model;
    const initializer = graph.initializer.filter((tensor) => !((tensor.name as string) in overrides));
    const model = { ...program.model, graph: { ...graph, initializer } };
    const session = await ort.InferenceSession.create(encodeModel(model), { logSeverityLevel: 3 });
    const results = await session.run({
      x: new ort.Tensor("float32", Float32Array.from(net.x), [net.batch, net.sizes[0]]),
      labels: new ort.Tensor("int64", new BigInt64Array(net.batch), [net.batch]),
      seed: new ort.Tensor("int64", BigInt64Array.of(5n), []),
      ...overrides,
    });
    await session.release();
    return (name: string) => Array.from(results[`${name}_sampled_grad`]?.data as Float32Array);
  }
  const net = twoLayerNet("Tanh");
  const [inputs, hidden, classes] = net.sizes;
  const changed = {
    "fc1.weight": new ort.Tensor(
      "float32",
      Float32Array.from(net.weights[0], (w) => -1.5 * w),
      [hidden, inputs],
    ),
    "fc2.weight": new ort.Tensor(
      "float32",
      Float32Array.from(net.weights[1], (w) => -1.5 * w),
      [classes, hidden],
    ),
  };

  it("do not depend on parameters of later sections, and do on their own", async () => {
    const program = await rewrite(net.model, { loss: "softmax-cross-entropy" });
    const initial = await sampledGradients(program, net, {});
    const later = await sampledGradients(program, net, { "fc2.weight": changed["fc2.weight"] });
    const own = await sampledGradients(program, net, { "fc1.weight": changed["fc1.weight"] });
    expect(later("fc1.weight")).toEqual(initial("fc1.weight"));
    expect(later("fc2.weight")).not.toEqual(initial("fc2.weight"));
    expect(own("fc1.weight")).not.toEqual(initial("fc1.weight"));
  });

  it("join what one boundary covers: with the output alone, every parameter feels every other", async () => {
    const program = await rewrite(net.model, { loss: "softmax-cross-entropy", sections: { kind: "output" } });
    expect(program.manifest.sections).toHaveLength(1);
    const initial = await sampledGradients(program, net, {});
    const later = await sampledGradients(program, net, { "fc2.weight": changed["fc2.weight"] });
    expect(later("fc1.weight")).not.toEqual(initial("fc1.weight"));
  });

  it("change with the seed and with nothing else", async () => {
    const program = await rewrite(net.model, { loss: "softmax-cross-entropy" });
    const first = await sampledGradients(program, net, {});
    const again = await sampledGradients(program, net, {});
    const other = await sampledGradients(program, net, { seed: new ort.Tensor("int64", BigInt64Array.of(6n), []) });
    expect(again("fc1.weight")).toEqual(first("fc1.weight"));
    expect(other("fc1.weight")).not.toEqual(first("fc1.weight"));
  });
});
