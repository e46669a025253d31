/** ONNX's own form of a training step: read, run, trained from, and written. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { combinedGraph, readTrainingInfo } from "../../src/artifacts/training-info.js";
import { withTrainingInfo } from "../../src/artifacts/training-info-writer.js";
import { expandTrainingOperators } from "../../src/artifacts/training-operators.js";
import { encodeSafetensors } from "../../src/data/safetensors.js";
import { attributesFrom, float } from "../../src/onnx/attributes.js";
import { problemsOf } from "../../src/onnx/check.js";
import { encodeModel, withFields } from "../../src/onnx/codec.js";
import { mapTensors } from "../../src/onnx/map-tensors.js";
import { loadModel } from "../../src/onnx/model-file.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { tensorFromNumbers } from "../../src/onnx/tensor.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { openSource } from "../../src/training/source.js";
import { fishy } from "../support/cli.js";
import { f32, modelOf, newBuilder, relativeError, runModel } from "../support/run.js";
import { temporaryFolder } from "../support/temporary.js";

const W = [0.5, -1, 2, 0.25, 1.5, -0.75];
const X = [1, 2, 0.5, -1, 0, 1, 3, -2];
const T = [1, 0, -1, 0.5, 2, 1, 0, 0, -0.5, 1, 1, -2];

/** y = x·w, and mean((y − t)²) as the loss. */
function source(): ModelProto {
  const b = newBuilder();
  b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 2] });
  b.input("t", { elemType: DataType.FLOAT, shape: ["batch", 3] });
  b.graph.initializer.push(tensorFromNumbers("w", DataType.FLOAT, [2, 3], W));
  b.node("MatMul", ["x", "w"], { outputs: ["y"] });
  const difference = b.sub("y", "t");
  b.node("ReduceMean", [b.mul(difference, difference)], { outputs: ["loss"], attributes: { keepdims: 0 } });
  b.output("y", { elemType: DataType.FLOAT, shape: ["batch", 3] });
  return modelOf(b.graph);
}

const STEP = { loss: "loss", trainable: ["w"], outputs: ["y"] };
const FEEDS = { x: f32(X, [4, 2]), t: f32(T, [4, 3]) };

/** The loss and its gradient in float64. */
function reference(w: readonly number[]): { loss: number; gradient: number[] } {
  let loss = 0;
  const gradient = [0, 0, 0, 0, 0, 0];
  for (let n = 0; n < 4; n++) {
    for (let j = 0; j < 3; j++) {
      const [x0, x1] = [X[2 * n] as number, X[2 * n + 1] as number];
      const difference = x0 * (w[j] as number) + x1 * (w[3 + j] as number) - (T[3 * n + j] as number);
      loss += difference ** 2 / 12;
      gradient[j] = (gradient[j] as number) + (2 * difference * x0) / 12;
      gradient[3 + j] = (gradient[3 + j] as number) + (2 * difference * x1) / 12;
    }
  }
  return { loss, gradient };
}

describe("a written training step", () => {
  it.each([
    ["momentum", { alpha: float(0.9), beta: float(1), mode: "standard", norm_coefficient: float(0) }],
    ["adam", { alpha: float(0.9), beta: float(0.999), epsilon: float(1e-8) }],
    ["adagrad", { epsilon: float(1e-10), decay_factor: float(0) }],
  ] as const)("%s: runs, and its first step is the formula's", async (algorithm, attributes) => {
    const model = withTrainingInfo(source(), STEP, { algorithm, learningRate: 0.1, attributes });
    expect(problemsOf(model)).toEqual([]);
    expect(model.graph.output.map((output) => output.name)).toEqual(["y"]);
    expect(model.graph.input.map((input) => input.name)).toEqual(["x"]);
    const [info] = model.trainingInfo;
    const keys = info?.updateBinding.map(({ key }) => key);
    expect(keys?.[0]).toBe("w");
    expect(keys?.at(-1)).toBe("step");
    // The inference build ignores training_info.
    const y = await runModel(model, { x: FEEDS.x });
    expect(y.y?.dims).toEqual([4, 3]);

    const expanded = await expandTrainingOperators(
      withFields(model, { graph: combinedGraph(model), trainingInfo: [] }),
    );
    const result = await runModel(expanded, FEEDS);
    const { loss, gradient } = reference(W);
    expect(result.loss?.data[0]).toBeCloseTo(loss, 5);
    // The first step of Adam and Adagrad is R in each direction: T = 0 takes R as it is, so Adam's is R·0.1/√0.001.
    const step = gradient.map((g) => {
      if (algorithm === "momentum") return 0.1 * g;
      return algorithm === "adagrad" ? 0.1 * Math.sign(g) : (0.1 * 0.1 * g) / (Math.sqrt(0.001) * Math.abs(g));
    });
    const expected = W.map((w, i) => w - (step[i] as number));
    expect(relativeError(result.w_next?.data as Float32Array, expected)).toBeLessThan(1e-5);
    expect(result.step_next?.data[0]).toBe(1n);
  });

  it("reads back as it was written", () => {
    const adam = { alpha: float(0.8), beta: float(0.99), epsilon: float(1e-6), norm_coefficient_post: float(0.001) };
    const read = readTrainingInfo(
      withTrainingInfo(source(), STEP, { algorithm: "adam", learningRate: 0.1, attributes: adam }),
    );
    expect(read).toMatchObject({ loss: "loss", trainable: ["w"], outputs: ["y"], notes: [] });
    expect(read.optimizer).toEqual({
      name: "adamw",
      mode: 1,
      beta1: 0.8,
      beta2: 0.99,
      epsilon: 1e-6,
      weightDecay: 0.01,
      biasCorrection: true,
      learningRate: expect.closeTo(0.1, 6),
    });
    expect(read.proto.graph.node.map((node) => node.opType)).toEqual(["MatMul", "Sub", "Mul", "ReduceMean"]);
    const nesterov = { alpha: float(0.9), beta: float(0.5), mode: "nesterov", norm_coefficient: float(0.01) };
    const momentum = readTrainingInfo(
      withTrainingInfo(source(), STEP, { algorithm: "momentum", learningRate: 0.1, attributes: nesterov }),
    );
    expect(momentum.optimizer).toMatchObject({
      name: "sgd",
      momentum: 0.9,
      dampening: 0.5,
      nesterov: true,
      weightDecay: 0.01,
    });
    const adagrad = readTrainingInfo(withTrainingInfo(source(), STEP, { algorithm: "adagrad", learningRate: 0.1 }));
    expect(adagrad.optimizer).toBeUndefined();
    expect(adagrad.notes[0]).toContain("Adagrad is none of fishy's optimizers");
  });
});

describe("a Gradient in the graph itself", () => {
  it("is written out when the model is opened, and trained through: the second derivative is that of differences", async () => {
    const b = newBuilder();
    const type = { elemType: DataType.FLOAT, shape: ["batch", 3] };
    b.input("x", type);
    const w = b.initializer("w", DataType.FLOAT, [3], Float32Array.of(0.5, -1, 2));
    const squares = b.op("Mul", [b.mul("x", w), b.mul("x", w)]);
    b.alias(b.reduceSum(squares, undefined, false), "energy");
    b.graph.node.push({
      ...{ opType: "Gradient", domain: "ai.onnx.preview.training", name: "force", input: ["x"], output: ["d"] },
      attribute: attributesFrom({ xs: ["x"], y: "energy" }),
    });
    b.output("d", type);
    const model = modelOf(b.graph);
    model.opsetImport.push({ domain: "ai.onnx.preview.training", version: 1 });
    const path = join(temporaryFolder(), "force.onnx");
    writeFileSync(path, encodeModel(model));

    const { proto } = await openSource(path);
    const x = f32([1, 2, 3, -1, 0.5, 2], [2, 3]);
    const { d } = await runModel(proto, { x });
    // 2w²x.
    expect(relativeError(d?.data as Float32Array, [0.5, 4, 24, -0.5, 1, 16])).toBeLessThan(1e-6);

    const program = await rewrite(proto, { loss: "mean-squared-error", sections: { kind: "none" } });
    const target = f32([1, 1, 1, 2, 2, 2], [2, 3]);
    const seed = new ort.Tensor("int64", BigInt64Array.of(1n), []);
    const { w_grad } = await runModel(program.model, { x, target, seed });
    const lossAt = async (values: number[]) => {
      const moved = mapTensors(program.model, (tensor) =>
        tensor.name === "w" ? tensorFromNumbers("w", DataType.FLOAT, [3], values) : tensor,
      );
      return Number((await runModel(moved, { x, target, seed })).loss?.data[0]);
    };
    for (const i of [0, 1, 2]) {
      const moved = (step: number) => [0.5, -1, 2].map((value, k) => value + (k === i ? step : 0));
      const slope = ((await lossAt(moved(1e-2))) - (await lossAt(moved(-1e-2)))) / 2e-2;
      expect((w_grad?.data[i] as number) / slope).toBeCloseTo(1, 2);
    }
  });
});

describe("steps that fishy does not take over", () => {
  const written = () => withTrainingInfo(source(), STEP, { algorithm: "adam", learningRate: 0.1 });

  it("without a Gradient", () => {
    const model = written();
    const algorithm = model.trainingInfo[0]?.algorithm;
    if (algorithm) algorithm.node = algorithm.node.filter((node) => node.opType !== "Gradient");
    expect(() => readTrainingInfo(model)).toThrow(/training_info has no Gradient.*ClearField/s);
  });

  it("with a Gradient at other values", () => {
    const model = written();
    const node = model.trainingInfo[0]?.algorithm?.node.find((each) => each.opType === "Gradient");
    if (node) node.input = ["elsewhere", ...node.input.slice(1)];
    expect(() => readTrainingInfo(model)).toThrow(/is taken at another value than 'w'/);
  });

  it("with a Gradient of something that does not follow", async () => {
    const b = newBuilder();
    b.input("a", { elemType: DataType.FLOAT, shape: [] });
    b.input("c", { elemType: DataType.FLOAT, shape: [] });
    b.node("Neg", ["c"], { outputs: ["y"] });
    b.graph.node.push({
      opType: "Gradient",
      domain: "ai.onnx.preview.training",
      name: "g",
      input: ["a"],
      output: ["da"],
      attribute: attributesFrom({ xs: ["a"], y: "y" }),
    });
    b.output("da", { elemType: DataType.FLOAT, shape: [] });
    const model = modelOf(b.graph);
    model.opsetImport.push({ domain: "ai.onnx.preview.training", version: 1 });
    await expect(expandTrainingOperators(model)).rejects.toThrow(/'g' \(Gradient\): 'y' does not follow from 'a'/);
  });
});

describe("from the command line", () => {
  it("a model is rewritten with training_info, and trains with what that says", async () => {
    const folder = temporaryFolder();
    const [plain, step, data] = ["plain.onnx", "step.onnx", "data.safetensors"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const model = source();
    model.graph.output.push({ name: "loss", type: { tensorType: { elemType: DataType.FLOAT, shape: { dim: [] } } } });
    writeFileSync(plain, encodeModel(model));
    const written = await fishy(
      "rewrite",
      plain,
      "-o",
      step,
      "--training-info",
      "momentum",
      "--loss",
      "in-graph",
      "--loss-output",
      "loss",
    );
    expect([written.code, written.stderr]).toEqual([0, ""]);
    const { proto } = await loadModel(step);
    expect(proto.graph.output.map((output) => output.name)).toEqual(["y"]);

    const inspected = await fishy("inspect", step);
    expect(inspected.stdout).toContain("A model with training_info");
    expect(inspected.stdout).toContain("Optimizer: sgd, momentum 0.9");
    const float32 = (values: number[], dims: number[]) => ({
      type: DataType.FLOAT,
      dims,
      data: Float32Array.from(values),
    });
    writeFileSync(
      data,
      encodeSafetensors(
        new Map([
          ["x", float32(X, [4, 2])],
          ["t", float32(T, [4, 3])],
        ]),
      ),
    );
    const run = join(folder, "run");
    const trained = await fishy(
      "train",
      step,
      "--data",
      data,
      "--steps",
      "5",
      "--batch-size",
      "4",
      "--out",
      run,
      "-q",
      "--json",
    );
    expect([trained.code, trained.stderr]).toEqual([0, ""]);
    const result = JSON.parse(trained.stdout);
    expect(result.lastLoss).toBeLessThan(reference(W).loss);
    const session = await ort.InferenceSession.create(join(run, "model.onnx"), { logSeverityLevel: 3 });
    expect(session.outputNames).toEqual(["y"]);
    await session.release();
  });
});
