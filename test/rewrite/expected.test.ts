/** `draw: expected` against the mean of many exact draws, through the optimizer's own statistics. */
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { float } from "../../src/onnx/attributes.js";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { elementCount, tensorFromNumbers } from "../../src/onnx/tensor.js";
import { createOptimizer, type OptimizerOptions } from "../../src/optimizers/registry.js";
import { type RewriteOptions, rewrite } from "../../src/rewrite/rewrite.js";
import { buildStepGraph } from "../../src/training/step-graph.js";
import { pseudoRandom } from "../support/mlp.js";
import { modelOf } from "../support/run.js";

const BATCH = 3;

interface Net {
  readonly model: ModelProto;
  readonly input: number[];
}

/** Dense layers with biases: x → activation → … → logits. */
function dense(sizes: number[], activations: string[]): Net {
  const b = new GraphBuilder(emptyGraph("dense"));
  b.input("x", { elemType: DataType.FLOAT, shape: ["batch", sizes[0] as number] });
  let h = "x";
  for (let layer = 1; layer < sizes.length; layer++) {
    const [inputs, outputs] = [sizes[layer - 1] as number, sizes[layer] as number];
    const transposed = layer % 2 === 1;
    const dims = transposed ? [outputs, inputs] : [inputs, outputs];
    weight(b, `fc${layer}.weight`, dims, layer);
    weight(b, `fc${layer}.bias`, [outputs], 10 + layer);
    const last = layer === sizes.length - 1;
    const [a] = transposed
      ? b.node("Gemm", [h, `fc${layer}.weight`, `fc${layer}.bias`], {
          attributes: { transB: 1 },
          outputs: [`a${layer}`],
        })
      : b.node("Add", [b.matMul(h, `fc${layer}.weight`), `fc${layer}.bias`], { outputs: [`a${layer}`] });
    h = last ? (a as string) : b.op(activations[layer - 1] as string, [a as string]);
  }
  b.output(h, { elemType: DataType.FLOAT, shape: ["batch", sizes[sizes.length - 1] as number] });
  return { model: modelOf(b.graph), input: [sizes[0] as number] };
}

function weight(b: GraphBuilder, name: string, dims: number[], seed: number): void {
  b.graph.initializer.push(
    tensorFromNumbers(b.reserve(name), DataType.FLOAT, dims, pseudoRandom(seed, elementCount(dims))),
  );
}

/** A padded, strided convolution with leaky ReLU, then a dense classifier. */
function convolutional(): Net {
  const b = new GraphBuilder(emptyGraph("cnn"));
  b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 2, 5, 4] });
  weight(b, "conv.weight", [3, 2, 3, 2], 1);
  weight(b, "conv.bias", [3], 2);
  weight(b, "fc.weight", [4, 18], 3);
  const a = b.op("Conv", ["x", "conv.weight", "conv.bias"], { pads: [1, 0, 1, 1], strides: [2, 2] });
  const h = b.op("LeakyRelu", [a], { alpha: float(0.1) });
  const flat = b.op("Flatten", [h]);
  const y = b.gemm(flat, "fc.weight", { transB: true });
  b.output(y, { elemType: DataType.FLOAT, shape: ["batch", 4] });
  return { model: modelOf(b.graph), input: [2, 5, 4] };
}

/** The statistics after one update from zero with weight 1/2, for each seed in turn, flattened. */
async function statistics(net: Net, options: RewriteOptions, blockSize: number, seeds: number): Promise<number[][]> {
  const program = await rewrite(net.model, { loss: "softmax-cross-entropy", ...options });
  const settings: OptimizerOptions = { name: "fishy", blockSize, beta2: 0.5, skipRankBelow: 1 };
  const optimizer = createOptimizer(settings, program.manifest.parameters);
  const shapes = new Map([
    ["x", [BATCH, ...net.input]],
    ["labels", [BATCH]],
  ]);
  const graph = buildStepGraph(program, optimizer, { parts: { statistics: true, roots: false }, shapes });
  const session = await ort.InferenceSession.create(encodeModel(graph.model), {
    logSeverityLevel: 3,
    intraOpNumThreads: 1,
  });
  const feeds: Record<string, ort.Tensor> = {
    x: new ort.Tensor("float32", Float32Array.from(pseudoRandom(99, BATCH * elementCount(net.input))), [
      BATCH,
      ...net.input,
    ]),
    labels: new ort.Tensor("int64", new BigInt64Array(BATCH), [BATCH]),
  };
  for (const tensor of program.model.graph.initializer) {
    const parameter = program.manifest.parameters.find(({ name }) => name === tensor.name);
    if (!parameter || !tensor.rawData) continue;
    const data = new Float32Array(tensor.rawData.slice().buffer);
    feeds[parameter.name] = new ort.Tensor("float32", data, [...parameter.dims]);
  }
  for (const spec of optimizer.state) {
    const input = graph.stateInputs.get(spec.name);
    const zeros = new Float32Array(elementCount(spec.dims));
    if (input) feeds[input] = new ort.Tensor("float32", zeros, [...spec.dims]);
  }
  for (const [name, input] of graph.hyperparameters) {
    const value = optimizer.hyperparameters(1)[name] as number;
    feeds[input] = new ort.Tensor("float32", Float32Array.of(value), []);
  }
  const outputs = [...graph.state].filter(([name]) => /statistics\d$/.test(name)).map(([, output]) => output);
  const results: number[][] = [];
  const wanted = new Set(session.inputNames);
  for (let seed = 0; seed < seeds; seed++) {
    const all = { ...feeds, seed: new ort.Tensor("int64", BigInt64Array.of(BigInt(seed)), []) };
    const fed = Object.fromEntries(Object.entries(all).filter(([name]) => wanted.has(name)));
    const run = await session.run(fed, outputs);
    results.push(outputs.flatMap((output) => Array.from(run[output]?.data as Float32Array)));
  }
  await session.release();
  return results;
}

/** Every entry of `expected` within 5 standard errors of the mean of `samples`. */
function expectMean(samples: number[][], expected: number[]): void {
  const n = samples.length;
  expect(samples[0]?.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) {
    const mean = samples.reduce((sum, row) => sum + (row[i] as number), 0) / n;
    const variance = samples.reduce((sum, row) => sum + ((row[i] as number) - mean) ** 2, 0) / (n - 1);
    expect(Math.abs(mean - value), `entry ${i}: ${mean} against ${value}`).toBeLessThan(
      5 * Math.sqrt(variance / n) + 2e-5 * Math.abs(value) + 1e-6,
    );
  }
}

const SEEDS = 10_000;

describe.each(["paper", "centred"] as const)("expected statistics, %s", (score) => {
  it.each([
    ["dense layers, both orientations", dense([4, 6, 5, 3], ["Tanh", "Relu"]), 64, "exact"],
    ["dense layers in blocks", dense([4, 6, 5, 3], ["Softplus", "Sigmoid"]), 3, "two-point"],
    ["a convolution in blocks", convolutional(), 4, "exact"],
  ] as const)("of %s", async (_, net, blockSize, draw) => {
    const samples = await statistics(net, { score, draw }, blockSize, SEEDS);
    const [expected] = await statistics(net, { score, draw: "expected" }, blockSize, 1);
    expectMean(samples, expected as number[]);
  });

  it("of sections of several layers, by probes: the mean of many is that of exact draws", async () => {
    const net = dense([4, 5, 4, 3], ["Tanh", "Tanh"]);
    const sections = { kind: "names", names: ["fc2"] } as const;
    const samples = await statistics(net, { score, draw: "exact", sections }, 64, SEEDS);
    const probes = await statistics(net, { score, draw: "expected", sections }, 64, SEEDS);
    const difference = samples.map((row, k) => row.map((value, i) => value - ((probes[k] as number[])[i] as number)));
    expectMean(
      difference,
      (samples[0] as number[]).map(() => 0),
    );
  });
});
