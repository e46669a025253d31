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
import type { TensorData } from "../../src/onnx/tensor.js";
import type { Optimizer, ParameterSpec } from "../../src/optimizers/optimizer.js";
import type { Manifest, TrainingProgram } from "../../src/rewrite/manifest.js";
import { writeManifest } from "../../src/rewrite/manifest.js";
import type { TrainingState } from "../../src/training/state.js";
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

/**
 * An optimizer whose numbers can be told beforehand: statistics count up, the root is 10·statistics + step, the
 * parameter `b` goes down by the root. Statistics run at even steps, roots at multiples of four. Statistics add the mean
 * of the statistics gradient times zero, so that its gradient is read.
 */
export function countingOptimizer(
  parameters: readonly ParameterSpec[],
  statisticsSource: "gradient" | "sampled" = "gradient",
): Optimizer {
  const scalar = (name: string) => ({ name, type: DataType.FLOAT, dims: [1], init: () => new Float32Array(1) });
  return {
    name: "counting",
    parameters,
    state: [scalar("statistics"), scalar("root")],
    statisticsSource,
    blocks: new Map([["roots", ["first", "second"]]]),
    hyperparameters: (step) => ({ step, learning_rate: 1 / step }),
    schedule: (step) => ({ statistics: step % 2 === 0, roots: step % 4 === 0 }),
    emitStatistics(b, values) {
      const gradient = b.reduceSum(values.statisticsGradient((parameters[0] as ParameterSpec).name), undefined, false);
      const next = b.add(values.state("statistics"), b.add(b.f32([1]), b.mul(gradient, b.f32(0))));
      return { parameters: new Map(), state: new Map([["statistics", next]]) };
    },
    emitRoots(b, values) {
      const root = b.add(b.mul(values.state("statistics"), b.f32(10)), values.hyperparameter("step"));
      return {
        parameters: new Map(),
        state: new Map([["root", root]]),
        metrics: new Map([["root", b.squeeze(root, [0])]]),
        blockMetrics: new Map([["roots", b.concat([root, b.add(root, b.f32(1))], 0)]]),
      };
    },
    emitUpdate: (b, values) => ({
      parameters: new Map([["b", b.sub(values.parameter("b"), values.state("root"))]]),
      state: new Map(),
    }),
  };
}

/**
 * Gradient descent along the mean of past sampled gradients: what it does depends on the seeds of all steps, and its
 * state matters, so that a resumed run that forgets anything differs.
 */
export function samplingOptimizer(parameters: readonly ParameterSpec[]): Optimizer {
  return {
    name: "sampling",
    parameters,
    state: parameters.map(({ name, dims }) => ({
      name: `${name}/mean`,
      type: DataType.FLOAT,
      dims,
      init: () => new Float32Array(dims.reduce((product, dim) => product * dim, 1)),
    })),
    statisticsSource: "sampled",
    hyperparameters: (step) => ({ step, learning_rate: 0.5 / Math.sqrt(step) }),
    schedule: (step) => ({ statistics: step % 2 === 1, roots: false }),
    emitStatistics(b, values) {
      const mean = (name: string) => {
        const old = b.mul(values.state(`${name}/mean`), b.f32(0.8));
        return b.add(old, b.mul(values.statisticsGradient(name), b.f32(0.2)));
      };
      return { parameters: new Map(), state: new Map(parameters.map(({ name }) => [`${name}/mean`, mean(name)])) };
    },
    emitUpdate: (b, values) => ({
      parameters: new Map(
        parameters.map(({ name }) => {
          const step = b.mul(values.state(`${name}/mean`), values.hyperparameter("learning_rate"));
          return [name, b.sub(values.parameter(name), step)];
        }),
      ),
      state: new Map(),
    }),
  };
}

/** Names of the tensors that are not equal bit for bit. */
export function differingTensors(a: TrainingState, b: TrainingState): string[] {
  return (["model", "optimizer"] as const).flatMap((part) =>
    [...new Set([...a[part].keys(), ...b[part].keys()])].filter((name) => {
      const [x, y] = [a[part].get(name)?.data, b[part].get(name)?.data];
      if (!x || !y) return true;
      const bytes = (data: TensorData) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
      return !bytes(x).equals(bytes(y));
    }),
  );
}
