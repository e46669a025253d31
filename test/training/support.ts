/** A hand-made training program, data, and folders for the tests of training. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { columnOf, type Dataset, makeDataset } from "../../src/data/dataset.js";
import { Random } from "../../src/data/random.js";
import { counterRandom } from "../../src/families/random.js";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { DataType } from "../../src/onnx/proto.js";
import type { Manifest, TrainingProgram } from "../../src/rewrite/manifest.js";
import { writeManifest } from "../../src/rewrite/manifest.js";
import { modelOf } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";

export const FASHION_MNIST = join(GRAPHS, "data/fashion-mnist");

/** A folder that the test file deletes at its end. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "fishy-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function gaussians(count: number, scale: number, seed: bigint): Float32Array {
  const random = new Random(seed);
  const uniform = () => (random.uint32() + 0.5) / 2 ** 32;
  return Float32Array.from(
    { length: count },
    () => scale * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

/**
 * tanh(x·A + a)·B + b with softmax cross-entropy, its gradients written by hand. `sampled_grad` is the gradient times a
 * random mask drawn from the program's seed, and `mean` a running statistic (0.9·mean + 0.1·mean of x).
 */
export function handMadeProgram(inputs: number, hidden: number, classes: number): TrainingProgram {
  const b = new GraphBuilder(emptyGraph("hand_made"));
  const x = b.input("x", { elemType: DataType.FLOAT, shape: ["batch", inputs] });
  const labels = b.input("labels", { elemType: DataType.INT64, shape: ["batch"] });
  const seed = b.input("seed", { elemType: DataType.INT64, shape: [] });
  const parameter = (name: string, dims: number[], scale: number, stream: bigint) => {
    const count = dims.reduce((product, dim) => product * dim, 1);
    b.initializer(name, DataType.FLOAT, dims, gaussians(count, scale, stream));
    b.graph.input.push({
      name,
      type: { tensorType: { elemType: 1, shape: { dim: dims.map((dimValue) => ({ dimValue })) } } },
    });
    return name;
  };
  const A = parameter("A", [inputs, hidden], 1 / Math.sqrt(inputs), 1n);
  const a = parameter("a", [hidden], 0, 2n);
  const B = parameter("B", [hidden, classes], 1 / Math.sqrt(hidden), 3n);
  const bias = parameter("b", [classes], 0, 4n);
  const mean = parameter("mean", [inputs], 0, 5n);

  const h = b.op("Tanh", [b.gemm(x, A, { c: a })]);
  const logits = b.node("Gemm", [h, B, bias], { outputs: ["logits"] })[0] as string;
  b.output("logits", { elemType: DataType.FLOAT, shape: ["batch", classes] });
  const oneHot = b.op("OneHot", [labels, b.i64([classes]), b.f32([0, 1])]);
  const logProbabilities = b.op("LogSoftmax", [logits], { axis: 1 });
  const size = b.squeeze(b.cast(b.op("Shape", [x], { start: 0, end: 1 }), DataType.FLOAT), [0]);
  b.alias(b.neg(b.div(b.reduceSum(b.mul(logProbabilities, oneHot), undefined, false), size)), "loss");
  b.output("loss", { elemType: DataType.FLOAT, shape: [] });

  const dLogits = b.div(b.sub(b.exp(logProbabilities), oneHot), size);
  const dHidden = b.mul(b.gemm(dLogits, B, { transB: true }), b.sub(b.f32(1), b.mul(h, h)));
  const gradients: [string, string, number[]][] = [
    [A, b.gemm(x, dHidden, { transA: true }), [inputs, hidden]],
    [a, b.reduceSum(dHidden, [0], false), [hidden]],
    [B, b.gemm(h, dLogits, { transA: true }), [hidden, classes]],
    [bias, b.reduceSum(dLogits, [0], false), [classes]],
  ];
  const random = counterRandom(seed, 0);
  const parameters = gradients.map(([name, gradient, dims]) => {
    b.alias(gradient, `${name}_grad`);
    b.output(`${name}_grad`, { elemType: DataType.FLOAT, shape: dims });
    b.alias(b.mul(gradient, random.uniform(b, b.shape(gradient))), `${name}_sampled_grad`);
    b.output(`${name}_sampled_grad`, { elemType: DataType.FLOAT, shape: dims });
    return { name, dims, gradient: `${name}_grad`, sampledGradient: `${name}_sampled_grad`, section: 0 };
  });
  const batchMean = b.reduce("ReduceMean", x, [0], false);
  b.alias(b.add(b.mul(mean, b.f32(0.9)), b.mul(batchMean, b.f32(0.1))), "mean_next");
  b.output("mean_next", { elemType: DataType.FLOAT, shape: [inputs] });

  const manifest: Manifest = {
    version: 1,
    loss: { name: "softmax-cross-entropy", output: "logits", target: "labels", classAxis: 1, classes },
    inputs: ["x"],
    outputs: ["logits"],
    seed: "seed",
    lossOutput: "loss",
    parameters,
    frozen: [],
    runningStatistics: [{ name: "mean", next: "mean_next" }],
    score: "paper",
    draw: "exact",
    boundaries: [],
    sections: [],
  };
  const model = modelOf(b.graph);
  writeManifest(model, manifest);
  return { model, manifest };
}

/** Points around class centres, so that there is something to learn. */
export function clusters(examples: number, inputs: number, classes: number): Dataset {
  const centres = gaussians(classes * inputs, 1, 11n);
  const noise = gaussians(examples * inputs, 0.5, 12n);
  const labels = BigInt64Array.from({ length: examples }, (_, i) => BigInt((i * 7) % classes));
  const x = noise.map((value, i) => {
    const label = Number(labels[Math.floor(i / inputs)]);
    return value + (centres[label * inputs + (i % inputs)] as number);
  });
  return makeDataset("clusters", [
    columnOf("x", DataType.FLOAT, [examples, inputs], x),
    columnOf("labels", DataType.INT64, [examples], labels),
  ]);
}
