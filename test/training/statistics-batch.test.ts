/** Statistics on a batch of their own: which examples, with which draws, and to the bit when resumed. */
import * as ort from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import type { Batch } from "../../src/data/source.js";
import type { ParameterSpec } from "../../src/optimizers/optimizer.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { stepSeed } from "../../src/training/engine.js";
import { parseRunOptions, type RunOptions } from "../../src/training/options.js";
import { runTraining } from "../../src/training/run.js";
import { openData } from "../../src/training/run-data.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { StatisticsBatches } from "../../src/training/statistics-batches.js";
import { Stepper } from "../../src/training/stepper.js";
import { relativeError, runModel } from "../support/run.js";
import { loadGolden } from "../support/shared.js";
import { clusters, differingTensors, handMadeProgram, samplingOptimizer, temporaryFolder } from "./support.js";

const folder = temporaryFolder();
const INPUTS = 5;
const program = handMadeProgram(INPUTS, 4, 3);
const { parameters } = program.manifest;
const data = clusters(100, INPUTS, 3);
const options = (extra: Partial<RunOptions> = {}) =>
  parseRunOptions({ batchSize: 20, statisticsBatch: 30, steps: 9, seed: 2, threads: 1, ...extra });

/** The examples of the k-th update, as the data gives them. */
async function examplesOf(size: number, epoch: number, index: number) {
  const { statistics } = await openData(program, options(), { data });
  const [batch] = (statistics?.(size).batches(epoch, index) ?? []) as Iterable<Batch>;
  const x = new Float32Array(size * INPUTS);
  const labels = new BigInt64Array(size);
  batch?.fill(
    new Map<string, Float32Array | BigInt64Array>([
      ["x", x],
      ["labels", labels],
    ]),
  );
  return { x, labels };
}

/** What the program gives for examples before any step. */
async function outputsOf({ x, labels }: { x: Float32Array; labels: BigInt64Array }, seed: bigint) {
  return runModel(program.model, {
    x: new ort.Tensor("float32", x, [labels.length, INPUTS]),
    labels: new ort.Tensor("int64", labels, [labels.length]),
    seed: new ort.Tensor("int64", BigInt64Array.of(seed), []),
  });
}

/** The part of a step that draws for the statistics' own batch. */
const OWN_PART = 0x5747;

describe("the first statistics", () => {
  const optimizer = (specs: readonly ParameterSpec[]) => samplingOptimizer(specs);

  test("are those of other examples, with a draw of their own", async () => {
    const { state } = await runTraining({ program, data, optimizer, options: options({ steps: 1 }) });
    const examples = await examplesOf(30, 0, 0);
    const outputs = await outputsOf(examples, stepSeed(2, 1, OWN_PART));
    for (const { name } of parameters) {
      const kept = Float64Array.from(state.optimizer.get(`${name}/mean`)?.data as Float32Array, (value) => value / 0.2);
      expect(relativeError(kept, outputs[`${name}_sampled_grad`]?.data as Float32Array), name).toBeLessThan(1e-5);
    }
    // Thirty examples, none twice, in an order that is not the gradient's.
    const rows = (x: Float32Array) =>
      Array.from({ length: x.length / INPUTS }, (_, i) => x.slice(i * INPUTS, (i + 1) * INPUTS).join());
    expect(new Set(rows(examples.x)).size).toBe(30);
    const { source } = await openData(program, options(), { data });
    const [first] = source.batches(0, 0) as Iterable<Batch>;
    const x = new Float32Array(20 * INPUTS);
    first?.fill(new Map([["x", x]]));
    expect(rows(x)).not.toEqual(rows(examples.x).slice(0, 20));
  });

  test("of Shampoo are the Gram matrices of that batch's true gradient, whatever the gradient's batches", async () => {
    const make = (specs: readonly ParameterSpec[]) =>
      createOptimizer({ name: "shampoo", beta2: 0.9, startStep: 5 }, specs);
    const { x, labels } = await examplesOf(30, 0, 0);
    const gradient = (await outputsOf({ x, labels }, 0n)).B_grad?.data as Float32Array;
    const gram = Array.from({ length: 16 }, (_, at) => {
      const [i, j] = [Math.floor(at / 4), at % 4];
      return (
        0.1 * [0, 1, 2].reduce((sum, k) => sum + (gradient[i * 3 + k] as number) * (gradient[j * 3 + k] as number), 0)
      );
    });
    for (const accumulation of [1, 2]) {
      const setup = { program, data, optimizer: make, options: options({ steps: 1, accumulation }) };
      const { state } = await runTraining(setup);
      expect(relativeError(state.optimizer.get("B/statistics0")?.data as Float32Array, gram)).toBeLessThan(1e-5);
    }
  });
});

test("expected statistics are those of their own batch, over several batches a step as well", async () => {
  const { model } = loadGolden("mlp_tanh");
  const expected = await rewrite(model, { loss: "softmax-cross-entropy", draw: "expected", score: "centred" });
  const examples = clusters(96, 20, 5);
  const optimizer = { name: "fishy", beta2: 0.9, startStep: 9 } as const;
  const run = (extra: Partial<RunOptions>) => {
    const own = parseRunOptions({ batchSize: 16, steps: 1, seed: 2, threads: 1, optimizer, ...extra });
    return runTraining({ program: expected, data: examples, options: own });
  };
  const [one, several] = await Promise.all([
    run({ statisticsBatch: 24 }),
    run({ statisticsBatch: 24, accumulation: 3 }),
  ]);
  // The same examples as a gradient's batch.
  const setup = parseRunOptions({ batchSize: 16, seed: 2, optimizer });
  const { statistics, source } = await openData(expected, setup, { data: examples });
  const [batch] = (statistics?.(24).batches(0, 0) ?? []) as Iterable<Batch>;
  const stepper = await Stepper.create({
    ...{ program: expected, inputs: source.inputs, batchSize: 24, seed: 0, threads: 1 },
    optimizer: createOptimizer(optimizer, expected.manifest.parameters),
  });
  await stepper.step(1, batch as Batch);
  const direct = stepper.state.tensors().optimizer;
  await stepper.release();
  for (const name of ["0.weight/statistics0", "0.weight/statistics1", "4.weight/statistics0", "4.weight/statistics1"]) {
    const reference = direct.get(name)?.data as Float32Array;
    expect(Math.hypot(...reference)).toBeGreaterThan(1e-6);
    for (const { state } of [one, several]) {
      expect(relativeError(state.optimizer.get(name)?.data as Float32Array, reference), name).toBeLessThan(1e-6);
    }
  }
});

test.each([1, 2])("a run goes on with the same bits from every step, %i batches a step", async (accumulation) => {
  const run = new RunDirectory(`${folder}/run-${accumulation}`);
  // Three batches of 30 in an epoch, an update every other step: eleven steps are two epochs of the statistics.
  const own = options({ accumulation, steps: 11, checkpointEvery: 1, keepCheckpoints: 20 });
  await run.create({ fishy: "0", model: null, rewrite: {}, run: own }, program, undefined);
  const setup = { program, data, optimizer: samplingOptimizer, options: own };
  const whole = await runTraining({ ...setup, directory: run });
  for (const step of [1, 2, 5, 6, 7, 10]) {
    const resumed = await runTraining({ ...setup, from: `${folder}/run-${accumulation}/checkpoint-${step}` });
    expect(differingTensors(resumed.state, whole.state), `from step ${step}`).toEqual([]);
  }
  // Another batch of statistics is another run.
  const other = runTraining({
    ...setup,
    options: { ...own, statisticsBatch: 20 },
    from: `${folder}/run-${accumulation}/checkpoint-5`,
  });
  await expect(other).rejects.toThrow(/statisticsBatch: 30, now 20/);
});

test("the k-th update takes the k-th batch, epoch after epoch", async () => {
  const taken: [number, number][] = [];
  const source = {
    ...{ inputs: [], batchSize: 1, batchesPerEpoch: 3 },
    *batches(epoch: number, skip: number) {
      for (let i = skip; i < 3; i++) yield { size: 1, fill: () => taken.push([epoch, i]) };
    },
  };
  const schedule = (step: number) => ({ statistics: step % 2 === 1, roots: false });
  const batches = new StatisticsBatches(source, { schedule });
  for (const step of [1, 3, 5, 7, 9, 5]) await batches.fill(step, new Map());
  expect(taken).toEqual([
    [0, 0],
    [0, 1],
    [0, 2],
    [1, 0],
    [1, 1],
    [0, 2],
  ]);
});

test("refused without statistics, of a stream, and larger than the data", async () => {
  const adam = { program, data, options: options({ optimizer: { name: "adam" } }) };
  await expect(runTraining(adam)).rejects.toThrow("adam has no statistics to take on a batch of their own");
  const large = { program, data, optimizer: samplingOptimizer, options: options({ statisticsBatch: 101 }) };
  await expect(runTraining(large)).rejects.toThrow("The batch size is 101, and clusters has 100 examples");
  expect(() => options({ statisticsBatch: 0 })).toThrow(
    "Option 'statisticsBatch' of train must be separate, or a number of examples of at least 1; got 0.",
  );
});
