/** Statistics and roots on a second device: here a second session on the CPU, in a thread of its own. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { BoundDataset } from "../../src/data/bind.js";
import { createOptimizer, type OptimizerOptions } from "../../src/optimizers/registry.js";
import { createEngine } from "../../src/training/engines.js";
import { wantedInputs } from "../../src/training/inputs.js";
import type { StepRecord } from "../../src/training/metrics.js";
import { parseRunOptions } from "../../src/training/options.js";
import { runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { SplitStepper } from "../../src/training/split-stepper.js";
import { type TrainOptions, type TrainResult, train } from "../../src/training/train.js";
import { loadGolden } from "../support/shared.js";
import { examplesLike } from "./golden-examples.js";
import { clusters, differingTensors, handMadeProgram, temporaryFolder } from "./support.js";

process.env.NODE_OPTIONS = `--import ${new URL("../support/register-typescript.mjs", import.meta.url).href}`;

const folder = temporaryFolder();
const { model: proto, golden } = loadGolden("autoencoder_tanh");
const data = examplesLike(golden.tensors, 60, "target");
const second = { learningRate: 3e-3, rootInterval: 4, startStep: 3, blockSize: 32 } as const;
const base = {
  ...{ model: { proto }, rewrite: { loss: "sigmoid-cross-entropy" } as const, data },
  ...{ batchSize: 5, steps: 11, seed: 3, threads: 1 },
};

async function trained(options: TrainOptions) {
  const records: object[] = [];
  const onStep = ({ seconds: _, examples_per_second: __, ...record }: StepRecord) => records.push(record);
  const result = await train({ ...options, onStep });
  return { state: result.state as NonNullable<TrainResult["state"]>, records };
}

const optimizers: [string, OptimizerOptions][] = [
  // Weight decay in the gradient: the statistics read the parameters too.
  ["Shampoo", { name: "shampoo", ...second, statisticsInterval: 2, weightDecay: 0.01, weightDecayKind: "l2" }],
  ["Fishy", { name: "fishy", ...second }],
  // The cosines of sampled and true gradients: the statistics have something to tell.
  ["Fishy with diagnostics", { name: "fishy", ...second, diagnostics: true }],
];

describe("a second session for the preconditioner", () => {
  test.each(optimizers)("%s: the same bits, diagnostics too", async (_, optimizer) => {
    const one = await trained({ ...base, optimizer });
    const two = await trained({ ...base, optimizer, preconditionerDevice: "cpu" });
    expect(two.records).toEqual(one.records);
    expect(differingTensors(two.state, one.state)).toEqual([]);
  });

  test("is what a second device asks for", async () => {
    const program = handMadeProgram(5, 4, 3);
    const { inputs } = BoundDataset.bind(clusters(20, 5, 3), wantedInputs(program));
    const optimizer = createOptimizer({ name: "shampoo" }, program.manifest.parameters);
    const options = { program, optimizer, inputs, batchSize: 5, seed: 3, totalSteps: 3, threads: 1 };
    const engine = await createEngine({ ...options, preconditionerDevice: { kind: "cpu", index: 0 } });
    expect(engine).toBeInstanceOf(SplitStepper);
    await engine.release();
  });

  test("saves what the second device keeps, and goes on from it, with one device or two", async () => {
    const outDir = join(folder, "run");
    const optimizer: OptimizerOptions = { name: "fishy", ...second };
    const options = { ...base, optimizer, outDir, checkpointEvery: 1, keepCheckpoints: 20 };
    const whole = await trained({ ...options, preconditionerDevice: "cpu" });
    const directory = new RunDirectory(outDir);
    const program = await directory.readProgram();
    for (const preconditionerDevice of ["cpu", undefined]) {
      const stored = { ...directory.readOptions().run, preconditionerDevice };
      const from = join(outDir, "checkpoint-6");
      const resumed = await runTraining({ program, data, directory, from, options: parseRunOptions(stored) });
      expect(differingTensors(resumed.state, whole.state)).toEqual([]);
    }
  });

  test("is refused where it has nothing to do, or cannot", async () => {
    const refused = (options: Partial<TrainOptions>) =>
      train({ ...base, optimizer: { name: "fishy", ...second }, preconditionerDevice: "cpu", ...options });
    await expect(refused({ optimizer: { name: "adam" } })).rejects.toThrow(/adam keeps no statistics/);
    await expect(refused({ stepsPerRun: 4 })).rejects.toThrow(/does not go with steps in groups \(stepsPerRun is 4\)/);
    await expect(refused({ precision: "float16" })).rejects.toThrow(/does not go with precision float16/);
    await expect(refused({ accumulation: 2 })).rejects.toThrow(/steps of one batch/);
    const expected = { loss: "sigmoid-cross-entropy", draw: "expected" } as const;
    await expect(refused({ rewrite: expected })).rejects.toThrow(/Expected statistics/);
    await expect(refused({ preconditionerDevice: "gpu" })).rejects.toThrow(/'gpu' is no device/);
  });
});
