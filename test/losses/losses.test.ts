/** Appended losses: value and closed-form cotangent against float64 definitions and central differences of them. */
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import type { AppendedLossName } from "../../src/losses/loss.js";
import { lossByName } from "../../src/losses/registry.js";
import { DataType } from "../../src/onnx/proto.js";
import { pseudoRandom } from "../support/mlp.js";
import { f32, modelOf, newBuilder, relativeError, runModel } from "../support/run.js";

/** Runs a loss on an output of `dims`, the batch and other axes symbolic where `symbolic` says so. */
async function evaluate(
  name: AppendedLossName,
  dims: number[],
  x: number[],
  target: ort.Tensor,
  options: { classAxis?: number; symbolic?: boolean } = {},
) {
  const { classAxis = 1, symbolic = true } = options;
  const loss = lossByName(name);
  const b = newBuilder();
  const type = { elemType: DataType.FLOAT, shape: dims.map((dim, i) => (symbolic ? `d${i}` : dim)) };
  b.input("x", type);
  const targetType = loss.targetType(type, classAxis);
  b.input("t", targetType);
  const batchSize = b.f32(dims[0] as number);
  const emitted = loss.emit(b, { output: "x", type, target: "t", targetType, classAxis, batchSize });
  b.output(emitted.loss, { elemType: DataType.FLOAT, shape: [] });
  b.output(emitted.cotangent, type);
  const results = await runModel(modelOf(b.graph), { x: f32(x, dims), t: target });
  return {
    loss: Number(results[emitted.loss]?.data[0]),
    cotangent: results[emitted.cotangent]?.data as Float32Array,
  };
}

/** Central differences of a float64 function. */
function gradient(f: (x: number[]) => number, x: number[]): number[] {
  const h = 1e-5;
  return x.map((value, i) => {
    const at = (v: number) => f(x.map((old, j) => (j === i ? v : old)));
    return (at(value + h) - at(value - h)) / (2 * h);
  });
}

const product = (dims: number[]) => dims.reduce((a, b) => a * b, 1);

async function check(
  name: AppendedLossName,
  dims: number[],
  f: (x: number[]) => number,
  target: ort.Tensor,
  options: { classAxis?: number; scale?: number } = {},
): Promise<void> {
  const x = pseudoRandom(17, product(dims)).map((value) => Math.fround(value * (options.scale ?? 3)));
  for (const symbolic of [true, false]) {
    const result = await evaluate(name, dims, x, target, { ...options, symbolic });
    expect(result.loss).toBeCloseTo(f(x), 4);
    expect(relativeError(result.cotangent, gradient(f, x))).toBeLessThan(1e-4);
  }
}

/** Mean over positions of −log softmax(x)[label] along `axis`, as the definition says. */
function crossEntropy(dims: number[], axis: number, labels: number[]) {
  const classes = dims[axis] as number;
  const inner = product(dims.slice(axis + 1));
  return (x: number[]) => {
    const total = labels.reduce((sum, label, position) => {
      const [outer, rest] = [Math.floor(position / inner), position % inner];
      const at = (k: number) => x[(outer * classes + k) * inner + rest] as number;
      const z = Array.from({ length: classes }, (_, k) => Math.exp(at(k))).reduce((a, b) => a + b, 0);
      return sum + Math.log(z) - at(label);
    }, 0);
    return total / labels.length;
  };
}

describe("softmax-cross-entropy", () => {
  it.each([
    [[4, 5], 1],
    [[2, 3, 7], 2],
    [[2, 4, 3], 1],
    [[2, 3, 2, 2], 1],
  ])("of %j with its classes on axis %i", async (dims, classAxis) => {
    const classes = dims[classAxis] as number;
    const positions = dims.filter((_, i) => i !== classAxis);
    const labels = Array.from({ length: product(positions) }, (_, i) => (i * 7 + 2) % classes);
    const target = new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), positions);
    await check("softmax-cross-entropy", dims, crossEntropy(dims, classAxis, labels), target, { classAxis });
  });

  it("stays finite for logits of ±1000", async () => {
    const labels = new ort.Tensor("int64", BigInt64Array.of(1n), [1]);
    const { loss, cotangent } = await evaluate("softmax-cross-entropy", [1, 2], [1000, -1000], labels);
    expect(loss).toBe(2000);
    expect([...cotangent]).toEqual([1, -1]);
  });
});

describe("sigmoid-cross-entropy", () => {
  const dims = [3, 2, 4];
  const t = pseudoRandom(23, product(dims)).map((value) => Math.fround((value + 1) / 2));
  const target = f32(t, dims);

  it("sums over everything but the batch and averages over the batch", () =>
    check(
      "sigmoid-cross-entropy",
      dims,
      (x) => x.reduce((sum, value, i) => sum + Math.log1p(Math.exp(value)) - value * (t[i] as number), 0) / 3,
      target,
    ));

  it("stays finite and exact for logits of ±100", async () => {
    const { loss } = await evaluate("sigmoid-cross-entropy", [1, 2], [100, -100], f32([0, 1], [1, 2]));
    expect(loss).toBe(200);
    const right = await evaluate("sigmoid-cross-entropy", [1, 2], [100, -100], f32([1, 0], [1, 2]));
    expect(right.loss).toBe(0);
  });
});

describe("mean-squared-error", () => {
  it("averages over all elements", () => {
    const dims = [3, 5];
    const t = pseudoRandom(29, 15);
    const f = (x: number[]) => x.reduce((sum, value, i) => sum + (value - (t[i] as number)) ** 2, 0) / 15;
    return check("mean-squared-error", dims, f, f32(t, dims));
  });
});
