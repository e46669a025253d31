/** Evaluation against forward passes and metrics written out in float64. */
import { describe, expect, test } from "vitest";
import { BoundDataset } from "../../src/data/bind.js";
import { columnOf, makeDataset } from "../../src/data/dataset.js";
import { orderedBatches } from "../../src/data/shuffled.js";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { dataFromNumbers, dataOf } from "../../src/onnx/tensor.js";
import { evaluationModel } from "../../src/rewrite/evaluation.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { Evaluator } from "../../src/training/evaluator.js";
import { train } from "../../src/training/train.js";
import { pseudoRandom } from "../support/mlp.js";
import { modelOf } from "../support/run.js";
import { gaussians } from "./support.js";

const [EXAMPLES, INPUTS, HIDDEN, CLASSES] = [30, 5, 6, 7];
const EPSILON = 1e-5;

/** x·W → batch normalisation in training mode → dropout of a half → ·V, with running statistics far from the batch's. */
function regularised(): ModelProto {
  const b = new GraphBuilder(emptyGraph("regularised"));
  b.input("x", { elemType: DataType.FLOAT, shape: ["batch", INPUTS] });
  const weight = (name: string, dims: number[], seed: bigint, shift = 0) => {
    const count = dims.reduce((product, dim) => product * dim, 1);
    b.initializer(
      name,
      DataType.FLOAT,
      dims,
      gaussians(count, 0.5, seed).map((value) => value + shift),
    );
  };
  weight("W", [INPUTS, HIDDEN], 1n);
  weight("scale", [HIDDEN], 2n, 1);
  weight("shift", [HIDDEN], 3n);
  weight("mean", [HIDDEN], 4n, 2);
  b.initializer(
    "variance",
    DataType.FLOAT,
    [HIDDEN],
    Float32Array.from({ length: HIDDEN }, (_, i) => 0.5 + i),
  );
  weight("V", [HIDDEN, CLASSES], 5n);
  const [y] = b.node("BatchNormalization", [b.matMul("x", "W"), "scale", "shift", "mean", "variance"], {
    outputs: ["y", "mean_out", "variance_out"],
    attributes: { training_mode: 1 },
  });
  const dropped = b.op("Dropout", [y as string, b.f32(0.5), b.constant(DataType.BOOL, 1)]);
  b.node("MatMul", [dropped, "V"], { outputs: ["logits"] });
  b.output("logits", { elemType: DataType.FLOAT, shape: ["batch", CLASSES] });
  return modelOf(b.graph);
}

type Values = ReadonlyMap<string, ArrayLike<number>>;

/** The logits of one example in inference. */
function inferenceLogits(values: Values, x: ArrayLike<number>, n: number): number[] {
  const at = (name: string, i: number) => values.get(name)?.[i] as number;
  const hidden = Array.from({ length: HIDDEN }, (_, k) => {
    let sum = 0;
    for (let j = 0; j < INPUTS; j++) sum += (x[n * INPUTS + j] as number) * at("W", j * HIDDEN + k);
    return (at("scale", k) * (sum - at("mean", k))) / Math.sqrt(at("variance", k) + EPSILON) + at("shift", k);
  });
  return Array.from({ length: CLASSES }, (_, c) => hidden.reduce((sum, h, k) => sum + h * at("V", k * CLASSES + c), 0));
}

/** Mean cross-entropy, accuracy and top-5 accuracy of rows of logits. */
function judge(logits: readonly number[][], labels: readonly number[]) {
  let [loss, right, top] = [0, 0, 0];
  for (const [n, row] of logits.entries()) {
    const label = labels[n] as number;
    const own = row[label] as number;
    loss += Math.log(row.reduce((sum, value) => sum + Math.exp(value - own), 0));
    const above = row.filter((value) => value > own).length;
    right += above === 0 ? 1 : 0;
    top += above < 5 ? 1 : 0;
  }
  return { loss: loss / logits.length, accuracy: right / logits.length, top5: top / logits.length };
}

const x = Float32Array.from(pseudoRandom(5, EXAMPLES * INPUTS));
const labels = Array.from({ length: EXAMPLES }, (_, i) => (i * i + 3) % CLASSES);
const data = makeDataset("examples", [
  columnOf("x", DataType.FLOAT, [EXAMPLES, INPUTS], x),
  columnOf("labels", DataType.INT64, [EXAMPLES], BigInt64Array.from(labels, BigInt)),
]);

describe("held-out evaluation of a model with dropout and batch normalisation", () => {
  const options = {
    rewrite: { loss: "softmax-cross-entropy" },
    data,
    heldOut: data,
    optimizer: { name: "adam", learningRate: 0.01 },
    batchSize: 10,
    steps: 6,
    evaluateEvery: 2,
  } as const;

  test("is that of inference with the trained parameters and running statistics", async () => {
    const model = regularised();
    const result = await train({ ...options, model: { proto: model } });
    const values = new Map([...(result.state?.model ?? [])].map(([name, { data }]) => [name, data as Float32Array]));
    // Running statistics moved from where they began.
    const initial = dataOf(model.graph.initializer.find(({ name }) => name === "mean") as never);
    expect([...(values.get("mean") as Float32Array)]).not.toEqual([...(initial as Float32Array)]);
    const logits = labels.map((_, n) => inferenceLogits(values, x, n));
    const expected = judge(logits, labels);
    expect(result.heldOut?.loss).toBeCloseTo(expected.loss, 5);
    expect(result.heldOut).toMatchObject({ accuracy: expected.accuracy, top5: expected.top5, examples: EXAMPLES });
    expect(result.heldOut?.caveat).toBeUndefined();
    expect(result.heldOut?.perplexity).toBeUndefined();
    // All examples are held out and trained on, so that both evaluations judge the same.
    expect(result.train?.loss).toBeCloseTo(expected.loss, 5);
  });

  test("says that it is not, where only the program is known", async () => {
    const program = await rewrite(regularised(), options.rewrite);
    const result = await train({ ...options, rewrite: {}, model: program });
    expect(result.heldOut?.caveat).toMatch(/dropout or batch statistics.*not those of inference/);
    const plain = new GraphBuilder(emptyGraph("plain"));
    plain.input("x", { elemType: DataType.FLOAT, shape: ["batch", INPUTS] });
    plain.initializer("W", DataType.FLOAT, [INPUTS, CLASSES], gaussians(INPUTS * CLASSES, 1, 9n));
    plain.node("MatMul", ["x", "W"], { outputs: ["logits"] });
    plain.output("logits", { elemType: DataType.FLOAT, shape: ["batch", CLASSES] });
    const whole = await train({ ...options, rewrite: {}, model: await rewrite(modelOf(plain.graph), options.rewrite) });
    expect(whole.heldOut?.caveat).toBeUndefined();
    const W = whole.state?.model.get("W")?.data as Float32Array;
    const logits = labels.map((_, n) =>
      Array.from({ length: CLASSES }, (_, c) =>
        Array.from({ length: INPUTS }, (_, j) => (x[n * INPUTS + j] as number) * (W[j * CLASSES + c] as number)).reduce(
          (sum, value) => sum + value,
        ),
      ),
    );
    const expected = judge(logits, labels);
    expect(whole.heldOut?.loss).toBeCloseTo(expected.loss, 5);
    expect(whole.heldOut).toMatchObject({ accuracy: expected.accuracy, top5: expected.top5 });
  });
});

/** Evaluates a model on columns, in batches of `batchSize`. */
async function evaluate(
  model: ModelProto,
  options: Parameters<typeof evaluationModel>[1],
  columns: Record<string, { type: DataType; dims: number[]; values: readonly number[] }>,
  batchSize: number,
) {
  const evaluation = await evaluationModel(model, options);
  const dataset = makeDataset(
    "columns",
    Object.entries(columns).map(([name, { type, dims, values }]) =>
      columnOf(name, type, dims, dataFromNumbers(type, values)),
    ),
  );
  const wanted = Object.entries(columns).map(([name, { type, dims }]) => ({
    name,
    type,
    shape: ["batch", ...dims.slice(1)],
    isTarget: false,
  }));
  const bound = BoundDataset.bind(dataset, wanted);
  const rows = Uint32Array.from({ length: dataset.length }, (_, i) => i);
  const evaluator = await Evaluator.of(evaluation, {}, bound.inputs);
  try {
    return await evaluator.evaluate(orderedBatches(bound, rows, batchSize));
  } finally {
    await evaluator.release();
  }
}

describe("metrics", () => {
  const [sequences, positions, vocabulary] = [4, 3, 8];
  const logits = pseudoRandom(8, sequences * positions * vocabulary).map((value) => 3 * value);
  const rows = (picked: (i: number) => boolean) =>
    Array.from({ length: sequences * positions }, (_, i) => i)
      .filter(picked)
      .map((i) => logits.slice(i * vocabulary, (i + 1) * vocabulary));
  const tokens = Array.from({ length: sequences * positions }, (_, i) => (i * 5 + 1) % vocabulary);
  const column = {
    x: { type: DataType.FLOAT, dims: [sequences, positions, vocabulary], values: logits },
    labels: { type: DataType.INT64, dims: [sequences, positions], values: tokens },
  };
  const shape = ["batch", positions, vocabulary];

  function scaled(): GraphBuilder {
    const b = new GraphBuilder(emptyGraph("scaled"));
    b.input("x", { elemType: DataType.FLOAT, shape });
    b.initializer("w", DataType.FLOAT, [vocabulary], new Float32Array(vocabulary).fill(1));
    return b;
  }

  test("of sequences: perplexity, and labels counted at every position", async () => {
    const b = scaled();
    b.node("Mul", ["x", "w"], { outputs: ["output"] });
    b.output("output", { elemType: DataType.FLOAT, shape });
    const result = await evaluate(modelOf(b.graph), { loss: "softmax-cross-entropy" }, column, 3);
    const expected = judge(
      rows(() => true),
      tokens,
    );
    expect(result.loss).toBeCloseTo(expected.loss, 5);
    expect(result.perplexity).toBeCloseTo(Math.exp(expected.loss), 4);
    expect(result).toMatchObject({ accuracy: expected.accuracy, top5: expected.top5, examples: sequences });
  });

  test("of a loss in the graph that ignores a label: over the labels that count", async () => {
    const b = scaled();
    b.input("labels", { elemType: DataType.INT64, shape: ["batch", positions] });
    const flat = b.reshape(b.mul("x", "w"), [-1, vocabulary]);
    b.node("SoftmaxCrossEntropyLoss", [flat, b.reshape("labels", [-1])], {
      outputs: ["loss"],
      attributes: { ignore_index: -100 },
    });
    b.output("loss", { elemType: DataType.FLOAT, shape: [] });
    // In batches of one sequence: the last has no label that counts.
    const isIgnored = (i: number) => i % 5 === 2 || i >= (sequences - 1) * positions;
    const padded = { ...column, labels: { ...column.labels, values: tokens.map((t, i) => (isIgnored(i) ? -100 : t)) } };
    const result = await evaluate(modelOf(b.graph), {}, padded, 1);
    const kept = (i: number) => !isIgnored(i);
    const expected = judge(
      rows(kept),
      tokens.filter((_, i) => kept(i)),
    );
    expect(result.loss).toBeCloseTo(expected.loss, 5);
    expect(result.perplexity).toBeCloseTo(Math.exp(expected.loss), 4);
    expect(result).toMatchObject({ accuracy: expected.accuracy, top5: expected.top5 });
  });

  test("of values: the squared error per element, of probabilities for logits", async () => {
    const b = scaled();
    b.node("Mul", ["x", "w"], { outputs: ["output"] });
    b.output("output", { elemType: DataType.FLOAT, shape });
    const target = pseudoRandom(21, logits.length).map((value) => Math.fround((value + 1) / 2));
    const columns = { x: column.x, target: { ...column.x, values: target } };
    const mean = (f: (x: number) => number) =>
      logits.reduce((sum, value, i) => sum + (f(value) - (target[i] as number)) ** 2, 0) / logits.length;
    const sigmoid = await evaluate(modelOf(b.graph), { loss: "sigmoid-cross-entropy" }, columns, 3);
    expect(sigmoid.reconstructionError).toBeCloseTo(
      mean((value) => 1 / (1 + Math.exp(-value))),
      5,
    );
    expect(sigmoid.accuracy).toBeUndefined();
    const squared = await evaluate(modelOf(b.graph), { loss: "mean-squared-error" }, columns, 3);
    expect(squared.reconstructionError).toBeCloseTo(
      mean((value) => value),
      4,
    );
    expect(squared.loss).toBeCloseTo(squared.reconstructionError as number, 5);
  });

  test("of one yes or no for each example: the right side of zero", async () => {
    const b = new GraphBuilder(emptyGraph("binary"));
    b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 1] });
    b.initializer("w", DataType.FLOAT, [1], Float32Array.of(1));
    b.node("Mul", ["x", "w"], { outputs: ["output"] });
    b.output("output", { elemType: DataType.FLOAT, shape: ["batch", 1] });
    const result = await evaluate(
      modelOf(b.graph),
      { loss: "sigmoid-cross-entropy" },
      {
        x: { type: DataType.FLOAT, dims: [5, 1], values: [2, -1, 0.5, -3, 4] },
        target: { type: DataType.FLOAT, dims: [5, 1], values: [1, 0, 0, 0, 1] },
      },
      2,
    );
    expect(result.accuracy).toBe(4 / 5);
  });
});
