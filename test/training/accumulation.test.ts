/** Gradient accumulation: several batches are one, for every form of loss, with their own samples, to the bit when resumed. */
import * as ort from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import type { NamedTensor } from "../../src/data/safetensors.js";
import type { Batch } from "../../src/data/source.js";
import { attributesFrom } from "../../src/onnx/attributes.js";
import { GraphBuilder } from "../../src/onnx/builder.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { elementCount, newData, type TensorData } from "../../src/onnx/tensor.js";
import type { Optimizer, ParameterSpec } from "../../src/optimizers/optimizer.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import type { TrainingProgram } from "../../src/rewrite/manifest.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { AccumulatingStepper } from "../../src/training/accumulating-stepper.js";
import { checkAccumulation } from "../../src/training/accumulation.js";
import { stepSeed } from "../../src/training/engine.js";
import { parseRunOptions, type RunOptions } from "../../src/training/options.js";
import { type RunHooks, runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { Stepper } from "../../src/training/stepper.js";
import { goldenLoss } from "../support/golden-run.js";
import { relativeError, runModel } from "../support/run.js";
import { type Golden, loadGolden } from "../support/shared.js";
import { clusters, differingTensors, handMadeProgram, samplingOptimizer, temporaryFolder } from "./support.js";

type Columns = ReadonlyMap<string, NamedTensor>;

/** What a golden file was made with, by input of the program. */
function columnsOf({ golden }: Golden, { manifest }: TrainingProgram): Map<string, NamedTensor> {
  const columns = new Map<string, NamedTensor>();
  for (const [name, tensor] of golden.tensors) if (name.startsWith("input/")) columns.set(name.slice(6), tensor);
  const { target } = manifest.loss;
  const values = golden.tensors.get("target");
  if (target && values) columns.set(target, values);
  return columns;
}

const rowsIn = (columns: Columns) => [...columns.values()][0]?.dims[0] as number;
const inputsOf = (columns: Columns) =>
  [...columns].map(([name, { type, dims }]) => {
    return { name, type: type === DataType.DOUBLE ? DataType.FLOAT : type, dims: dims.slice(1) };
  });

function batchOf(columns: Columns, start: number, size: number): Batch {
  return {
    size,
    fill(into) {
      for (const [name, { data, dims }] of columns) {
        const row = elementCount(dims.slice(1));
        const array = into.get(name);
        for (let i = 0; i < size * row; i++)
          (array as Float64Array)[i] = (data as Float64Array)[start * row + i] as number;
      }
    },
  };
}

/** A step of gradient descent over all rows in `parts` batches: the gradient is what the parameters lost. */
async function stepIn(program: TrainingProgram, columns: Columns, parts: number, optimizer?: Optimizer) {
  const size = rowsIn(columns) / parts;
  const options = {
    program,
    optimizer: optimizer ?? createOptimizer({ name: "sgd", learningRate: 1 }, program.manifest.parameters),
    ...{ inputs: inputsOf(columns), batchSize: size, seed: 4, threads: 1 },
  };
  const stepper =
    parts === 1 ? await Stepper.create(options) : await AccumulatingStepper.create({ ...options, batches: parts });
  const before = new Map(
    [...stepper.state.tensors().model].map(([name, { data }]) => [name, Float64Array.from(data as Float32Array)]),
  );
  for (let part = 0; part < parts - 1; part++) {
    stepper.fill(0, batchOf(columns, part * size, size));
    await (stepper as AccumulatingStepper).accumulation.add(1, part);
  }
  stepper.fill(0, batchOf(columns, (parts - 1) * size, size));
  const [{ loss }] = await stepper.run(1);
  const after = stepper.state.tensors();
  const gradients = new Map(
    [...before].map(([name, old]) => {
      const now = after.model.get(name)?.data as Float32Array;
      return [name, old.map((value, i) => value - (now[i] as number))];
    }),
  );
  await stepper.release();
  return { loss, gradients, state: after };
}

describe("several batches have the gradient of one", () => {
  test.each([
    ["autoencoder_tanh", 3],
    ["mlp_tanh", 4],
    ["mlp_loss_in_graph", 2],
    ["regression_mse_in_graph", 4],
    ["cnn", 5],
    ["transformer_encoder", 3],
  ])("%s in %i parts, PyTorch's own", async (name, parts) => {
    const golden = loadGolden(name);
    const program = await rewrite(golden.model, { loss: goldenLoss(golden), sections: { kind: "none" } });
    const { loss, gradients } = await stepIn(program, columnsOf(golden, program), parts);
    const numbers = (tensor: string) => golden.golden.tensors.get(tensor)?.data as Float64Array;
    expect(Math.abs(loss / (numbers("loss")[0] as number) - 1)).toBeLessThan(1e-5);
    for (const { name: parameter } of program.manifest.parameters) {
      const reference = numbers(`grad/${parameter}`);
      // What a parameter lost is its gradient up to the rounding of the parameter.
      const norm = Math.hypot(...reference);
      const rounding = 1e-7 * Math.sqrt(reference.length);
      const error = relativeError(gradients.get(parameter) as Float64Array, reference) * norm;
      expect(error, parameter).toBeLessThan(1e-4 * norm + rounding);
    }
  });

  /** The in-graph loss of the golden model, changed. */
  function changed(change: (b: GraphBuilder, node: ModelProto["graph"]["node"][number]) => void): Golden {
    const golden = loadGolden("mlp_loss_in_graph");
    const node = golden.model.graph.node.find(({ opType }) => opType === "SoftmaxCrossEntropyLoss");
    if (!node) throw new Error("no loss");
    // PyTorch writes −100, which no label is.
    node.attribute = [];
    change(new GraphBuilder(golden.model.graph), node);
    return golden;
  }
  const withLabels = (columns: Map<string, NamedTensor>, values: readonly number[]) =>
    new Map([
      ...columns,
      ["labels", { type: DataType.INT64, dims: [8], data: BigInt64Array.from(values, BigInt) }] as const,
    ]);

  test.each<[string, readonly number[], (b: GraphBuilder, node: ModelProto["graph"]["node"][number]) => void]>([
    [
      "ignored labels, all of them in one batch",
      [1, -100, -100, -100, -100, -100, 2, 0],
      (_, node) => node.attribute.push(...attributesFrom({ ignore_index: -100 })),
    ],
    [
      "weights of classes and an ignored one",
      [1, 0, 2, 2, 1, 1, 2, 0],
      (b, node) => {
        const classes = 4;
        const weights = Float32Array.from({ length: classes }, (_, k) => 0.25 + k);
        node.input[2] = b.initializer("class_weights", DataType.FLOAT, [classes], weights);
        node.attribute.push(...attributesFrom({ ignore_index: 1 }));
      },
    ],
    [
      "a sum",
      [1, 0, 2, 2, 1, 1, 2, 0],
      (_, node) => {
        node.attribute.push(...attributesFrom({ reduction: "sum" }));
      },
    ],
    [
      "a mean that is weighted, and a penalty on the weights",
      [1, -1, 2, 2, -1, -1, 2, 0],
      (b, node) => {
        node.attribute.push(...attributesFrom({ ignore_index: -1 }));
        const [output] = node.output as [string];
        node.output[0] = "cross_entropy";
        const weight = b.graph.initializer.find(({ dims }) => dims.length === 2)?.name as string;
        const penalty = b.mul(b.f32(0.01), b.reduceSum(b.mul(weight, weight), undefined, false));
        b.node("Add", ["cross_entropy", penalty], { outputs: [output] });
      },
    ],
  ])("a loss in the graph: %s", async (_, labels, change) => {
    const golden = changed(change);
    const program = await rewrite(golden.model, {
      loss: "in-graph",
      sections: { kind: "none" },
      freeze: golden.model.graph.initializer.some(({ name }) => name === "class_weights") ? ["class_weights"] : [],
    });
    const columns = withLabels(columnsOf(golden, program), labels);
    const whole = await stepIn(program, columns, 1);
    for (const parts of [2, 4]) {
      const split = await stepIn(program, columns, parts);
      expect(Math.abs(split.loss / whole.loss - 1)).toBeLessThan(1e-6);
      for (const [name, gradient] of split.gradients) {
        expect(relativeError(gradient, whole.gradients.get(name) as Float64Array), name).toBeLessThan(2e-5);
      }
    }
  });

  test("refused for a mean over a mask that the graph itself writes, and for expected statistics", async () => {
    const golden = changed((b, node) => {
      // Σ mask·loss / Σ mask: what the parts weigh is not known.
      node.attribute = attributesFrom({ reduction: "none" });
      const [output] = node.output as [string];
      node.output[0] = "each";
      const mask = b.cast(b.greater("labels", b.i64(0)), DataType.FLOAT);
      const sum = b.reduceSum(b.mul("each", mask), undefined, false);
      b.node("Div", [sum, b.reduceSum(mask, undefined, false)], { outputs: [output] });
    });
    const { manifest } = await rewrite(golden.model, { loss: "in-graph", sections: { kind: "none" } });
    expect(manifest.loss.reduction).toBeUndefined();
    const sgd = createOptimizer({ name: "sgd" }, manifest.parameters);
    expect(() => checkAccumulation(manifest, sgd, false)).toThrow(/neither a mean nor a sum/);

    const expected = await rewrite(loadGolden("mlp_tanh").model, { loss: "softmax-cross-entropy", draw: "expected" });
    const fishy = createOptimizer({ name: "fishy" }, expected.manifest.parameters);
    expect(() => checkAccumulation(expected.manifest, fishy, false)).toThrow(/statistics-batch separate/);
    expect(() => checkAccumulation(expected.manifest, fishy, true)).not.toThrow();
  });
});

test("what a loss in the graph sums up by", async () => {
  const logits = "/m/m.2/Gemm_output_0";
  const reductionOf = async (build: (b: GraphBuilder, each: string) => string) => {
    const { model } = loadGolden("mlp_loss_in_graph");
    const node = model.graph.node.find(({ opType }) => opType === "SoftmaxCrossEntropyLoss");
    if (!node) throw new Error("no loss");
    const [output] = node.output as [string];
    node.attribute = attributesFrom({ reduction: "none" });
    node.output[0] = "each";
    const b = new GraphBuilder(model.graph);
    b.node("Identity", [build(b, "each")], { outputs: [output] });
    return (await rewrite(model, { loss: "in-graph", sections: { kind: "none" } })).manifest.loss.reduction;
  };
  const mean = (b: GraphBuilder, x: string, axes?: number[]) => b.reduce("ReduceMean", x, axes, false);
  const sum = (b: GraphBuilder, x: string, axes?: number[]) => b.reduceSum(x, axes, false);
  const count = (b: GraphBuilder, x: string) => b.cast(b.op("Size", [x]), DataType.FLOAT);
  const square = (b: GraphBuilder) => b.mul(logits, logits);
  expect(await reductionOf((b, each) => mean(b, each))).toBe("mean");
  expect(await reductionOf((b, each) => sum(b, each))).toBe("sum");
  expect(await reductionOf((b, each) => b.mul(sum(b, each), b.f32(0.125)))).toBe("sum");
  expect(await reductionOf((b, each) => b.div(sum(b, each), count(b, each)))).toBe("mean");
  expect(await reductionOf((b, each) => b.add(mean(b, each), mean(b, square(b))))).toBe("mean");
  expect(await reductionOf((b, each) => b.add(mean(b, each), mean(b, sum(b, square(b), [1]))))).toBe("mean");
  // A sum over the batch under a mean over the classes is a sum.
  expect(await reductionOf((b) => mean(b, sum(b, square(b), [0])))).toBe("sum");
  expect(await reductionOf((b) => mean(b, mean(b, square(b), [0])))).toBe("mean");
  // A sum and a mean, the mean of what a mask leaves, a ratio to the batch's own mean, a penalty beside a sum.
  const penalty = (b: GraphBuilder) => sum(b, b.mul("m.0.weight", "m.0.weight"));
  expect(await reductionOf((b, each) => b.add(sum(b, each), mean(b, square(b))))).toBeUndefined();
  expect(
    await reductionOf((b, each) => mean(b, b.op("Compress", [each, b.greater("labels", b.i64(0))]))),
  ).toBeUndefined();
  expect(await reductionOf((b, each) => mean(b, b.div(each, mean(b, each))))).toBeUndefined();
  expect(await reductionOf((b, each) => b.add(sum(b, each), penalty(b)))).toBeUndefined();
  expect(await reductionOf((b, each) => b.add(mean(b, each), penalty(b)))).toBe("mean");
});

test("sampled gradients are the mean of the batches' own draws", async () => {
  const golden = loadGolden("mlp_tanh");
  const program = await rewrite(golden.model, { loss: "softmax-cross-entropy" });
  const columns = columnsOf(golden, program);
  const parameters = program.manifest.parameters;
  const { state } = await stepIn(program, columns, 4, samplingOptimizer(parameters));
  const sums = new Map(parameters.map(({ name, dims }) => [name, new Float64Array(elementCount(dims))]));
  for (let part = 0; part < 4; part++) {
    const arrays = new Map(
      inputsOf(columns).map(({ name, type, dims }) => [name, newData(type, 2 * elementCount(dims))]),
    );
    batchOf(columns, 2 * part, 2).fill(arrays);
    const feeds: Record<string, ort.Tensor> = {
      seed: new ort.Tensor("int64", BigInt64Array.of(stepSeed(4, 1, part)), []),
    };
    for (const { name, type, dims } of inputsOf(columns)) {
      const kind = type === DataType.INT64 ? "int64" : "float32";
      feeds[name] = new ort.Tensor(kind, arrays.get(name) as Float32Array, [2, ...dims]);
    }
    const results = await runModel(program.model, feeds);
    for (const { name, sampledGradient } of parameters) {
      const sum = sums.get(name) as Float64Array;
      const own = results[sampledGradient as string]?.data as Float32Array;
      for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (own[i] as number) / 4;
    }
  }
  for (const { name } of parameters) {
    // The optimizer keeps 0.2 of the first gradient.
    const kept = Float64Array.from(state.optimizer.get(`${name}/mean`)?.data as Float32Array, (value) => value / 0.2);
    expect(relativeError(kept, sums.get(name) as Float64Array), name).toBeLessThan(1e-5);
  }
});

describe("a run with accumulation", () => {
  const folder = temporaryFolder();
  const data = clusters(100, 5, 3);
  const program = handMadeProgram(5, 4, 3);
  const optimizer = (parameters: readonly ParameterSpec[]) => samplingOptimizer(parameters);
  // Five batches an epoch: the third step reaches over into the second.
  const options = (extra: Partial<RunOptions> = {}) =>
    parseRunOptions({ batchSize: 20, accumulation: 2, steps: 9, seed: 2, threads: 1, ...extra });

  test("goes on with the same bits from every step, running statistics included", async () => {
    const whole = new RunDirectory(`${folder}/whole`);
    await whole.create({ fishy: "0", model: null, rewrite: {}, run: options() }, program, undefined);
    const setup = { program, data, optimizer, options: options({ checkpointEvery: 1, keepCheckpoints: 20 }) };
    const result = await runTraining({ ...setup, directory: whole });
    expect(result.steps).toBe(9);
    for (const step of [1, 2, 3, 4, 8]) {
      const resumed = await runTraining({ ...setup, from: `${folder}/whole/checkpoint-${step}` });
      expect(differingTensors(resumed.state, result.state), `from step ${step}`).toEqual([]);
    }
  });

  test("counts steps, and stops between them", async () => {
    const records: { step: number; examples: number; epoch?: number }[] = [];
    let asked = 0;
    const hooks: RunHooks = {
      onStep: ({ step, examples, epoch }) => records.push({ step, examples, ...(epoch !== undefined && { epoch }) }),
      shouldStop: () => ++asked > 3,
    };
    const stopped = await runTraining({ program, data, optimizer, options: options() }, hooks);
    expect(stopped.outcome).toBe("interrupted");
    expect(records).toEqual([
      { step: 1, examples: 40, epoch: 0.4 },
      { step: 2, examples: 80, epoch: 0.8 },
      { step: 3, examples: 120, epoch: 1.2 },
    ]);
    const short = await runTraining({ program, data, optimizer, options: options({ steps: 3 }) });
    expect(differingTensors(stopped.state, short.state)).toEqual([]);
  });

  test("takes as many epochs as it is told, and schedules count its steps", async () => {
    const rates: number[] = [];
    const { steps: _, ...rest } = options();
    const setup = {
      ...{ program, data },
      options: parseRunOptions({
        ...rest,
        epochs: 4,
        optimizer: { name: "sgd", learningRate: 1e-3, schedule: { kind: "linear", warmup: { epochs: 2 } } },
      }),
    };
    const result = await runTraining(setup, { onStep: ({ learning_rate }) => rates.push(learning_rate as number) });
    expect(result.steps).toBe(10);
    expect(rates.map((rate) => Math.round(rate * 1e7) / 1e7)).toEqual([
      0.0002, 0.0004, 0.0006, 0.0008, 0.001, 0.001, 0.0008, 0.0006, 0.0004, 0.0002,
    ]);
  });

  test("leaves the state as it was before a step whose loss is not a number, in whichever of its batches", async () => {
    for (const part of [0, 1]) {
      const columns = new Float32Array(clusters(8, 5, 3).columns.get("x")?.data as Float32Array);
      columns[part * 20] = Number.NaN;
      const labels = clusters(8, 5, 3).columns.get("labels")?.data as BigInt64Array;
      const values: Columns = new Map<string, NamedTensor>([
        ["x", { type: DataType.FLOAT, dims: [8, 5], data: columns }],
        ["labels", { type: DataType.INT64, dims: [8], data: Array.from(labels, Number) as unknown as TensorData }],
      ]);
      const batch = (start: number): Batch => ({
        size: 4,
        fill(into) {
          (into.get("x") as Float32Array).set(columns.subarray(start * 5, start * 5 + 20));
          (into.get("labels") as BigInt64Array).set(labels.subarray(start, start + 4));
        },
      });
      const stepper = await AccumulatingStepper.create({
        ...{ program, optimizer: optimizer(program.manifest.parameters), inputs: inputsOf(values), batchSize: 4 },
        ...{ seed: 1, threads: 1, batches: 2 },
      });
      const copy = () =>
        [...stepper.state.tensors().model, ...stepper.state.tensors().optimizer].map(([name, { data }]) => [
          name,
          ...Array.from(data as Float32Array),
        ]);
      const before = copy();
      stepper.fill(0, batch(0));
      await stepper.accumulation.add(1, 0);
      stepper.fill(0, batch(4));
      const [{ loss }] = await stepper.run(1);
      expect(loss).toBeNaN();
      expect(copy()).toEqual(before);
      await stepper.release();
    }
  });
});
