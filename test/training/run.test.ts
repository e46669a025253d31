import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { makeDataset } from "../../src/data/dataset.js";
import { DataType } from "../../src/onnx/proto.js";
import type { Optimizer, ParameterSpec } from "../../src/optimizers/optimizer.js";
import { listCheckpoints, loadCheckpoint } from "../../src/training/checkpoint.js";
import { readMetrics } from "../../src/training/metrics.js";
import { parseRunOptions, type RunOptions } from "../../src/training/options.js";
import { type RunHooks, type RunSetup, runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { clusters, differingTensors, handMadeProgram, samplingOptimizer, temporaryFolder } from "./support.js";

const INPUTS = 6;
const CLASSES = 4;
const folder = temporaryFolder();
const program = handMadeProgram(INPUTS, 8, CLASSES);
const data = clusters(70, INPUTS, CLASSES);
const adam = { name: "adam", learningRate: 0.02 } as const;

async function directoryOf(name: string, options: RunOptions): Promise<RunDirectory> {
  const directory = new RunDirectory(join(folder, name));
  await directory.create({ fishy: "test", model: null, rewrite: {}, run: options }, program, undefined);
  return directory;
}

async function run(name: string, options: RunOptions, extra: Partial<RunSetup> = {}, hooks: RunHooks = {}) {
  const directory = extra.directory ?? (await directoryOf(name, options));
  const result = await runTraining({ program, data, ...extra, options: parseRunOptions(options), directory }, hooks);
  return { directory, result };
}

describe("a run", () => {
  const options: RunOptions = {
    optimizer: adam,
    epochs: 3,
    batchSize: 16,
    heldOut: 0.3,
    seed: 4,
    evaluateEvery: 2,
    checkpointEvery: 3,
  };

  test("writes a line for each step, checkpoints, result and model", async () => {
    const { directory, result } = await run("whole", options);
    // 49 of 70 examples are trained on: 3 batches of 16 in an epoch.
    expect(result).toMatchObject({ steps: 9, outcome: "completed" });
    const records = readMetrics(directory.metricsFile);
    expect(records.map((record) => record.step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(records.map((record) => record.loss)).toEqual(result.losses);
    expect(records.filter((record) => record.held_out_loss !== undefined).map((record) => record.step)).toEqual([
      2, 4, 6, 8, 9,
    ]);
    expect(records[8]).toMatchObject({
      epoch: 3,
      examples: 144,
      learning_rate: 0.02,
      held_out_loss: result.heldOut?.loss,
      held_out_accuracy: result.heldOut?.accuracy,
    });
    expect(result.heldOut?.examples).toBe(21);
    expect(result.train?.examples).toBe(49);
    const names = listCheckpoints(directory.path).map((path) => path.slice(directory.path.length + 1));
    expect(names).toEqual(["checkpoint-3", "checkpoint-6", "checkpoint-9"]);
    expect(
      differingTensors(loadCheckpoint(names[2] ? join(directory.path, names[2]) : "").state, result.state),
    ).toEqual([]);
    expect(directory.readResult()).toMatchObject({ steps: 9, heldOut: result.heldOut });
    expect(readdirSync(directory.path).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("in a folder that holds a run is refused", async () => {
    await expect(directoryOf("whole", options)).rejects.toThrow(/already holds a run.*--resume/);
  });

  test("learns: the loss falls below a third", async () => {
    const { result } = await run("learns", { optimizer: adam, steps: 120, batchSize: 16 });
    expect(result.train?.loss).toBeLessThan((result.losses[0] as number) / 3);
    expect(result.train?.accuracy).toBe(1);
  });

  test("stops between steps when told to, saves, and says so", async () => {
    let steps = 0;
    const { directory, result } = await run(
      "stopped",
      { ...options, heldOut: 0 },
      {},
      {
        onStep: () => {
          steps++;
        },
        shouldStop: () => steps === 4,
      },
    );
    expect(result).toMatchObject({ steps: 4, outcome: "interrupted" });
    expect(result.train).toBeUndefined();
    expect(listCheckpoints(directory.path).at(-1)).toMatch(/checkpoint-4$/);
    expect(readMetrics(directory.metricsFile)).toHaveLength(4);
  });
});

describe("a resumed run", () => {
  const options: RunOptions = { steps: 14, batchSize: 16, seed: 9, keepCheckpoints: 20, checkpointEvery: 1 };

  test("ends with the bits of the run that never stopped, whatever the step", async () => {
    const { directory, result } = await run("straight", options, { optimizer: samplingOptimizer });
    const records = readMetrics(directory.metricsFile);
    for (const step of [1, 4, 8, 13]) {
      // As a killed run leaves it: checkpoints up to `step`, and lines beyond the checkpoint.
      const from = join(directory.path, `checkpoint-${step}`);
      const again = await run("", options, { optimizer: samplingOptimizer, directory, from });
      expect(differingTensors(again.result.state, result.state)).toEqual([]);
      const rewritten = readMetrics(directory.metricsFile);
      expect(rewritten.map((record) => record.loss)).toEqual(records.map((record) => record.loss));
      expect(again.result.losses).toHaveLength(14 - step);
    }
  });

  test("pauses evaluated and saved, and goes on with the bits of the run that never paused", async () => {
    const whole = { ...options, heldOut: 16, checkpointEvery: 0 };
    const straight = await run("unpaused", whole, { optimizer: samplingOptimizer });
    const first = await run("paused", whole, { optimizer: samplingOptimizer, pauseAt: 5 });
    expect(first.result).toMatchObject({ steps: 5, outcome: "paused" });
    expect(first.result.losses).toEqual(straight.result.losses.slice(0, 5));
    const { directory } = first;
    const checkpoints = () => listCheckpoints(directory.path).map((path) => path.slice(directory.path.length + 1));
    expect(checkpoints()).toEqual(["checkpoint-5"]);
    expect(directory.readResult()).toMatchObject({ outcome: "paused", heldOut: { examples: 16 } });
    const from = join(directory.path, "checkpoint-5");
    // A pause that is over already trains nothing.
    const again = await run("", whole, { optimizer: samplingOptimizer, directory, from, pauseAt: 3 });
    expect(again.result).toMatchObject({ steps: 5, outcome: "paused", heldOut: first.result.heldOut, losses: [] });
    const rest = await run("", whole, { optimizer: samplingOptimizer, directory, from });
    expect(rest.result).toMatchObject({ steps: 14, outcome: "completed", heldOut: straight.result.heldOut });
    expect(differingTensors(rest.result.state, straight.result.state)).toEqual([]);
    const losses = (path: RunDirectory) =>
      readMetrics(path.metricsFile).map(({ loss, held_out_loss }) => [loss, held_out_loss]);
    expect(losses(directory)).toEqual(losses(straight.directory));
  });

  test("refuses another optimizer, seed or batch size", async () => {
    const from = join(folder, "straight", "checkpoint-4");
    const directory = new RunDirectory(join(folder, "straight"));
    const resume = (changes: RunOptions) =>
      run("", { ...options, ...changes }, { optimizer: samplingOptimizer, directory, from });
    await expect(resume({ seed: 8 })).rejects.toThrow(/They differ in seed: 9, now 8\. /);
    await expect(resume({ batchSize: 8, steps: 20 })).rejects.toThrow(
      /They differ in batchSize: 16, now 8; totalSteps: 14, now 20\. .*--accept-changes/,
    );
    await expect(run("", { ...options, optimizer: adam }, { directory, from })).rejects.toThrow(
      /optimizer: sampling, now not set; optimizer\.learningRate: not set, now 0\.02; optimizer\.name: not set, now adam/,
    );
    // A refusal leaves the run as it was.
    expect(listCheckpoints(directory.path).length).toBeGreaterThan(10);
    expect(readMetrics(directory.metricsFile)).toHaveLength(14);
  });

  test("goes on with other options when told to, from that step, and keeps them", async () => {
    const changed = { ...options, seed: 8, steps: 16 };
    const directory = new RunDirectory(join(folder, "straight"));
    const from = join(directory.path, "checkpoint-4");
    const extra = { optimizer: samplingOptimizer, directory, acceptChanges: true };
    const { result } = await run("", changed, { ...extra, from });
    expect(result).toMatchObject({ steps: 16, outcome: "completed" });
    expect(directory.readOptions().run).toMatchObject({ seed: 8, steps: 16 });
    expect(readMetrics(directory.metricsFile)).toHaveLength(16);
    // The checkpoints beyond step 4 are those of the new options.
    const again = await run("", changed, {
      ...extra,
      acceptChanges: false,
      from: join(directory.path, "checkpoint-14"),
    });
    expect(differingTensors(again.result.state, result.state)).toEqual([]);
  });
});

describe("a loss that is not finite", () => {
  const advice =
    /The loss is (NaN|Infinity) at step \d+ \(.*at the step before\), with the learning rate .*Try a smaller learning rate/;

  test("stops with advice; the state before that step is saved", async () => {
    // Weights of 1e38 overflow in the next forward pass.
    const options: RunOptions = {
      optimizer: { name: "sgd", learningRate: 3e38 },
      steps: 50,
      batchSize: 16,
      checkpointEvery: 1,
    };
    const directory = await directoryOf("diverged", options);
    await expect(run("", options, { directory })).rejects.toThrow(
      new RegExp(`${advice.source}.*The state before that step is in .*checkpoint-1\\.`),
    );
    const records = readMetrics(directory.metricsFile);
    expect(records.map((record) => record.step)).toEqual([1]);
    const { state, position } = loadCheckpoint(listCheckpoints(directory.path).at(-1) as string);
    expect(position.step).toBe(1);
    expect(Math.abs(state.model.get("B")?.data[0] as number)).toBeGreaterThan(1e35);
    expect(existsSync(directory.resultFile)).toBe(false);
  });

  test("with broken parameters saves nothing over the whole checkpoints", async () => {
    const options: RunOptions = { steps: 50, batchSize: 16, checkpointEvery: 2 };
    const directory = await directoryOf("broken", options);
    const optimizer = (parameters: readonly ParameterSpec[]): Optimizer => ({
      ...samplingOptimizer(parameters),
      // NaN from the update of the fourth step on.
      emitUpdate: (b, values) => ({
        parameters: new Map([
          ["b", b.add(values.parameter("b"), b.log(b.sub(b.f32(3.5), values.hyperparameter("step"))))],
        ]),
        state: new Map(),
      }),
    });
    await expect(run("", options, { directory, optimizer })).rejects.toThrow(
      /After step 4 'b' is not finite, so the state was not saved\. Checkpoints of earlier steps are whole\. Try a smaller/,
    );
    expect(listCheckpoints(directory.path).map((path) => path.slice(-2))).toEqual(["-2"]);
    expect(readMetrics(directory.metricsFile)).toHaveLength(4);
  });
});

describe("an evaluation", () => {
  test("over uneven batches is the mean over examples, and counts hits", async () => {
    // 70 examples in batches of 16 leave a last one of 6.
    const { result } = await run("evaluated", { optimizer: adam, steps: 5, batchSize: 16 });
    const [A, a, B, b] = ["A", "a", "B", "b"].map((name) => result.state.model.get(name)?.data as Float32Array) as [
      Float32Array,
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const x = data.columns.get("x")?.data as Float32Array;
    const labels = data.columns.get("labels")?.data as BigInt64Array;
    let loss = 0;
    let hits = 0;
    for (let n = 0; n < 70; n++) {
      const h = Array.from(a, (bias, j) => {
        let sum = bias;
        for (let i = 0; i < INPUTS; i++) sum += (x[n * INPUTS + i] as number) * (A[i * 8 + j] as number);
        return Math.tanh(sum);
      });
      const logits = Array.from(b, (bias, k) =>
        h.reduce((sum, value, j) => sum + value * (B[j * CLASSES + k] as number), bias),
      );
      const label = Number(labels[n]);
      loss += (Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)) - (logits[label] as number)) / 70;
      if (logits.indexOf(Math.max(...logits)) === label) hits++;
    }
    expect(result.train?.examples).toBe(70);
    expect(result.train?.accuracy).toBe(hits / 70);
    expect(Math.abs((result.train?.loss as number) - loss)).toBeLessThan(1e-6 * loss);
  });
});

describe("data that does not fit the program", () => {
  const withColumns = (x: Float32Array, dims: number[], labels: BigInt64Array) =>
    makeDataset("bad", [
      { name: "x", type: DataType.FLOAT, dims, data: x },
      { name: "labels", type: DataType.INT64, dims: [], data: labels },
    ]);
  const attempt = (dataset: ReturnType<typeof withColumns>, options: RunOptions = {}) =>
    runTraining({
      program,
      data: dataset,
      options: parseRunOptions({ optimizer: adam, steps: 1, batchSize: 2, ...options }),
    });

  test.each([
    [
      "shape",
      withColumns(new Float32Array(14), [7], new BigInt64Array(2)),
      /'x' of bad.*shape \[7\]; the model takes \[6\]/,
    ],
    ["label", withColumns(new Float32Array(12), [6], BigInt64Array.of(1n, 4n)), /label 4 in row 1.*4 classes/],
    [
      "NaN",
      withColumns(new Float32Array(12).fill(Number.NaN, 7), [6], new BigInt64Array(2)),
      /'x' of bad holds NaN in row 1/,
    ],
  ])("%s", async (_, dataset, message) => {
    await expect(attempt(dataset)).rejects.toThrow(message);
  });

  test("batch sizes and lengths", async () => {
    const two = withColumns(new Float32Array(12), [6], new BigInt64Array(2));
    await expect(attempt(two, { batchSize: 3 })).rejects.toThrow(/batch size is 3, and bad has 2 examples/);
    await expect(attempt(two, { heldOut: 2 })).rejects.toThrow(/leaves none to train on/);
    expect(() => parseRunOptions({ optimizer: adam, steps: 1, epochs: 1 })).toThrow(
      /Both steps \(1\) and epochs \(1\)/,
    );
    expect(() => parseRunOptions({ optimizer: adam, batchSize: 0 })).toThrow(
      /'batchSize' of train must be an integer of at least 1; got 0/,
    );
  });
});

describe("streams", () => {
  test("train from code, epoch after epoch", async () => {
    const x = data.columns.get("x")?.data as Float32Array;
    const labels = data.columns.get("labels")?.data as BigInt64Array;
    const opened: number[] = [];
    async function* stream(epoch: number) {
      opened.push(epoch);
      for (let i = 0; i < 3; i++) {
        yield {
          x: { type: DataType.FLOAT, dims: [10, INPUTS], data: x.slice(i * 10 * INPUTS, (i + 1) * 10 * INPUTS) },
          labels: { type: DataType.INT64, dims: [10], data: labels.slice(i * 10, (i + 1) * 10) },
        };
      }
    }
    const { result } = await run("stream", { optimizer: adam, steps: 7 }, { data: stream, heldOut: data });
    expect(result.steps).toBe(7);
    expect(result.heldOut?.examples).toBe(70);
    // The first opening learns the shapes.
    expect(opened).toEqual([0, 0, 1, 2]);
    await expect(run("endless", { optimizer: adam, epochs: 2 }, { data: stream })).rejects.toThrow(
      /Give the number of steps/,
    );
  });
});

test("options are written down as they were, infinity included", async () => {
  const options = parseRunOptions({ optimizer: { ...adam, beta1: Number.POSITIVE_INFINITY }, steps: 3 });
  const directory = await directoryOf("options", options);
  expect(directory.readOptions().run).toEqual(options);
  expect(JSON.parse(readFileSync(directory.optionsFile, "utf8")).run.steps).toBe(3);
});
