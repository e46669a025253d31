/** Several steps in one Loop against steps one by one: the same bits, whatever the chunks. */
import { basename, join } from "node:path";
import { describe, expect, test } from "vitest";
import { BoundDataset } from "../../src/data/bind.js";
import { shuffledBatches } from "../../src/data/shuffled.js";
import type { Batch } from "../../src/data/source.js";
import { DataType } from "../../src/onnx/proto.js";
import type { Optimizer, ParameterSpec } from "../../src/optimizers/optimizer.js";
import type { OptimizerOptions } from "../../src/optimizers/registry.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { listCheckpoints } from "../../src/training/checkpoint.js";
import { chunkLength, defaultStepsPerRun } from "../../src/training/chunks.js";
import { createEngine } from "../../src/training/engines.js";
import { wantedInputs } from "../../src/training/inputs.js";
import { LoopedStepper } from "../../src/training/looped-stepper.js";
import { readMetrics, type StepRecord } from "../../src/training/metrics.js";
import { parseRunOptions } from "../../src/training/options.js";
import { runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { type TrainOptions, type TrainResult, train } from "../../src/training/train.js";
import { loadGolden } from "../support/shared.js";
import { examplesLike } from "./golden-examples.js";
import { clusters, countingOptimizer, differingTensors, handMadeProgram, temporaryFolder } from "./support.js";

const folder = temporaryFolder();
const second = { rootInterval: 3, startStep: 4, blockSize: 32 } as const;
const optimizers: OptimizerOptions[] = [
  { name: "adamw", learningRate: 3e-3, schedule: { kind: "cosine", warmup: 3 } },
  // Steps of all four kinds.
  { name: "shampoo", learningRate: 3e-3, statisticsInterval: 2, ...second },
  { name: "fim-shampoo", learningRate: 3e-3, ...second },
  { name: "fishy", learningRate: 3e-3, diagnostics: true, ...second },
];

async function trained(options: TrainOptions): Promise<{ result: TrainResult; records: object[] }> {
  const records: object[] = [];
  const result = await train({
    ...options,
    onStep: ({ seconds: _, examples_per_second: __, ...record }: StepRecord) => records.push(record),
  });
  return { result, records };
}

function expectSameBits(run: Awaited<ReturnType<typeof trained>>, reference: Awaited<ReturnType<typeof trained>>) {
  type State = NonNullable<TrainResult["state"]>;
  expect(run.records).toEqual(reference.records);
  expect(differingTensors(run.result.state as State, reference.result.state as State)).toEqual([]);
}

// More pairs pass; these are the ones that differ in what a step holds.
const [adamw, shampoo, fim, fishy] = optimizers as [
  OptimizerOptions,
  OptimizerOptions,
  OptimizerOptions,
  OptimizerOptions,
];
const runs = [
  ["autoencoder_tanh", "sigmoid-cross-entropy", "target", [adamw, shampoo, fim, fishy]],
  ["cnn", "softmax-cross-entropy", "labels", [fishy]],
  // BatchNormalization, with running statistics.
  ["resnet_small", "softmax-cross-entropy", "labels", [adamw, fishy]],
  ["transformer_encoder", "softmax-cross-entropy", "labels", [adamw]],
] as const;

describe.each(runs)("%s", (model, loss, target, chosen) => {
  const { model: proto, golden } = loadGolden(model);
  const data = examplesLike(golden.tensors, 50, target);
  test.each(chosen)("with $name: eleven steps in runs of four", async (optimizer) => {
    const sections = { kind: optimizer === fishy ? "per-layer" : optimizer === fim ? "output" : "none" } as const;
    const program = await rewrite(proto, { loss, sections });
    const options = { model: program, data, optimizer, ...{ batchSize: 5, steps: 11, seed: 3, threads: 1 } };
    const one = await trained(options);
    expectSameBits(await trained({ ...options, stepsPerRun: 4 }), one);
    expect(one.result.losses.every(Number.isFinite)).toBe(true);
  });
});

describe("a run of fishy", () => {
  const pictures = loadGolden("autoencoder_tanh");
  const data = examplesLike(pictures.golden.tensors, 60, "target");
  const options = {
    ...{ model: { proto: pictures.model }, rewrite: { loss: "sigmoid-cross-entropy" } as const, data },
    ...{ heldOut: 10, batchSize: 5, steps: 23, seed: 3, threads: 1, optimizer: fishy },
  };

  test("is evaluated and saved between groups of steps, at the same steps", async () => {
    const often = { evaluateEvery: 6, checkpointEvery: 7, keepCheckpoints: 9 };
    const one = await trained({ ...options, ...often, outDir: join(folder, "one") });
    const looped = await trained({ ...options, ...often, outDir: join(folder, "looped"), stepsPerRun: 16 });
    expectSameBits(looped, one);
    expect(looped.records.filter((record) => "held_out_loss" in record)).toHaveLength(4);
    expect(listCheckpoints(join(folder, "looped")).map((path) => basename(path))).toEqual(
      [7, 14, 21, 23].map((step) => `checkpoint-${step}`),
    );

    // Ten steps an epoch: the checkpoint lies within one.
    for (const [from, stepsPerRun] of [
      ["one", 5],
      ["looped", 1],
    ] as const) {
      const directory = new RunDirectory(join(folder, from));
      const program = await directory.readProgram();
      const resumed = await runTraining({
        ...{ program, data, directory, from: join(folder, from, "checkpoint-14") },
        options: parseRunOptions({ ...directory.readOptions().run, stepsPerRun }),
      });
      expect(differingTensors(resumed.state, one.result.state as typeof resumed.state)).toEqual([]);
    }
  });

  test("stops between groups of steps", async () => {
    const stop = new AbortController();
    const { signal } = stop;
    const result = await train({ ...options, stepsPerRun: 8, optimizer: adamw, signal, onStep: () => stop.abort() });
    expect(result).toMatchObject({ outcome: "interrupted", steps: 8 });
  });
});

describe("the looped engine", () => {
  const program = handMadeProgram(5, 4, 3);
  const data = clusters(60, 5, 3);
  const { parameters } = program.manifest;

  async function engineOf(make: (parameters: readonly ParameterSpec[]) => Optimizer, stepsPerRun: number) {
    const bound = BoundDataset.bind(data, wantedInputs(program));
    const rows = Uint32Array.from({ length: 60 }, (_, i) => i);
    const source = shuffledBatches(bound, rows, { batchSize: 6, seed: 1 });
    const batches = [...(source.batches(0, 0) as Iterable<Batch>)];
    const { inputs } = bound;
    const optimizer = make(parameters);
    const options = { program, optimizer, inputs, batchSize: 6, seed: 3, threads: 1, totalSteps: 10 };
    return { engine: await LoopedStepper.create({ ...options, stepsPerRun }), batches };
  }

  test("gives each step the metrics of its kind, and its own seed and hyperparameters", async () => {
    const { engine, batches } = await engineOf((specs) => countingOptimizer(specs, "sampled"), 8);
    batches.slice(0, 8).forEach((batch, slot) => {
      engine.fill(slot, batch);
    });
    const outcomes = await engine.run(1, 8);
    // As countingOptimizer says: statistics at even steps, roots (10·statistics + step) at multiples of four.
    expect(outcomes.map(({ metrics }) => metrics.root)).toEqual([...Array(3), 24, ...Array(3), 48]);
    expect(outcomes[3]?.blockMetrics.roots).toEqual([24, 25]);
    expect(outcomes[4]?.blockMetrics).toEqual({});
    const { model, optimizer } = engine.state.tensors();
    expect(optimizer.get("statistics")?.data[0]).toBe(4);
    expect(optimizer.get("root")?.data[0]).toBe(48);
    expect(model.get("b")?.data[0]).toBe(-(4 * 24 + 48));
    await engine.release();
  });

  test("leaves the state as it was before a step whose loss is no number", async () => {
    /** Adds the learning rate, which is infinite at step 6: the loss of step 7 is no number. */
    const breaking = (specs: readonly ParameterSpec[]): Optimizer => ({
      ...{ name: "breaking", parameters: specs, state: [] },
      hyperparameters: (step) => ({ step, learning_rate: step === 6 ? Number.POSITIVE_INFINITY : step }),
      schedule: () => ({ statistics: false, roots: false }),
      emitUpdate: (b, values) => ({
        parameters: new Map([["b", b.add(values.parameter("b"), values.hyperparameter("learning_rate"))]]),
        state: new Map(),
      }),
    });
    const { engine, batches } = await engineOf(breaking, 4);
    const fill = (from: number, count: number) =>
      batches.slice(from, from + count).forEach((batch, slot) => {
        engine.fill(slot, batch);
      });
    fill(0, 4);
    expect(await engine.run(1, 4)).toHaveLength(4);
    expect(engine.state.tensors().model.get("b")?.data[0]).toBe(1 + 2 + 3 + 4);
    fill(4, 4);
    const outcomes = await engine.run(5, 4);
    expect(outcomes.map(({ loss }) => Number.isFinite(loss))).toEqual([true, true, false]);
    // The state after step 6, which the checkpoint of a diverged run holds.
    expect(engine.state.tensors().model.get("b")?.data[0]).toBe(Number.POSITIVE_INFINITY);
    await engine.release();
  });

  test("is what several steps a run ask for; WebGPU, which has no loops, refuses them", async () => {
    const optimizer = createOptimizer({ name: "sgd" }, parameters);
    const { inputs } = BoundDataset.bind(data, wantedInputs(program));
    const options = { program, optimizer, inputs, batchSize: 6, seed: 3, totalSteps: 3 };
    expect((await createEngine({ ...options, stepsPerRun: 9 })).stepsPerRun).toBe(3);
    expect((await createEngine(options)).stepsPerRun).toBe(1);
    const refused = createEngine({ ...options, stepsPerRun: 2, device: { kind: "webgpu", index: 0 } });
    await expect(refused).rejects.toThrow(/WebGPU has no loops.*stepsPerRun is 2/);
  });
});

describe("the number of steps in a run", () => {
  test("ends at evaluations, checkpoints and the last step", () => {
    const lengths = (stepsPerRun: number, intervals: number[]) => {
      const chunks: number[] = [];
      for (let step = 0; step < 30; step += chunks.at(-1) as number) {
        chunks.push(chunkLength(step, { stepsPerRun, totalSteps: 30, intervals }));
      }
      return chunks;
    };
    expect(lengths(16, [0, 0])).toEqual([16, 14]);
    expect(lengths(8, [10, 0])).toEqual([8, 2, 8, 2, 8, 2]);
    expect(lengths(64, [7, 10])).toEqual([7, 3, 4, 6, 1, 7, 2]);
    expect(lengths(1, [3])).toEqual(Array(30).fill(1));
  });

  test("is one on the CPU, and with CUDA a power of two that memory has room for", () => {
    const bytes = (count: number) => [{ name: "x", type: DataType.FLOAT, dims: [count / 4] }];
    expect(defaultStepsPerRun("cpu", bytes(4), 128, 2 ** 36)).toBe(1);
    expect(defaultStepsPerRun("webgpu", bytes(4), 128, 2 ** 36)).toBe(1);
    expect(defaultStepsPerRun("cuda", bytes(784 * 4), 1000, 2 ** 36)).toBe(64);
    // 128 images of 3 × 224 × 224 are 77 MB, a thousand of them more than a run may hold.
    expect(defaultStepsPerRun("cuda", bytes(3 * 224 * 224 * 4), 128, 2 ** 36)).toBe(2);
    expect(defaultStepsPerRun("cuda", bytes(3 * 224 * 224 * 4), 1000, 2 ** 36)).toBe(1);
    expect(defaultStepsPerRun("cuda", bytes(784 * 4), 1000, 2 ** 28)).toBe(8);
  });
});

test("a loss that is no number ends a run in groups of steps as it ends one of single steps", async () => {
  const { model: proto, golden } = loadGolden("autoencoder_tanh");
  const data = examplesLike(golden.tensors, 60, "target");
  const optimizer: OptimizerOptions = { name: "sgd", learningRate: 1e36 };
  const ending = async (stepsPerRun: number) => {
    const outDir = join(folder, `diverging-${stepsPerRun}`);
    const options = { model: { proto }, rewrite: { loss: "sigmoid-cross-entropy" } as const, data, optimizer, outDir };
    const message = await train({ ...options, batchSize: 5, steps: 12, threads: 1, stepsPerRun, isolate: false }).then(
      () => "trained",
      (error: Error) => error.message,
    );
    const records = readMetrics(join(outDir, "metrics.jsonl")).map(({ step, loss }) => ({ step, loss }));
    return { message: message.replaceAll(outDir, ""), records };
  };
  const single = await ending(1);
  expect(single.message).toMatch(/loss is (NaN|Infinity) at step [2-9]/);
  expect(await ending(8)).toEqual(single);
});
