/** Running averages of the parameters: kept, evaluated, followed and exported, against the mean of the steps' own checkpoints. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { decodeSafetensors } from "../../src/data/safetensors.js";
import { decodeModel } from "../../src/onnx/codec.js";
import { dataOf } from "../../src/onnx/tensor.js";
import { checkpointPath, loadCheckpoint } from "../../src/training/checkpoint.js";
import { evaluate } from "../../src/training/evaluate.js";
import { exportModel } from "../../src/training/export.js";
import { exportSafetensors } from "../../src/training/export-parameters.js";
import { readMetrics } from "../../src/training/metrics.js";
import { parseRunOptions } from "../../src/training/options.js";
import { runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { type TrainOptions, train } from "../../src/training/train.js";
import { fishy } from "../support/cli.js";
import { relativeError } from "../support/run.js";
import { loadGolden } from "../support/shared.js";
import { clusters, differingTensors, temporaryFolder } from "./support.js";

const folder = temporaryFolder();
const outDir = join(folder, "run");
const DECAY = 0.8;
const STEPS = 12;
const data = clusters(160, 20, 5);
const heldOut = clusters(40, 20, 5);

function options(extra: Partial<TrainOptions> = {}): TrainOptions {
  return {
    model: { proto: loadGolden("mlp_tanh").model },
    rewrite: { loss: "softmax-cross-entropy" },
    ...{ data, heldOut, batchSize: 20, steps: STEPS, seed: 3, threads: 1, evaluateEvery: 3 },
    // A learning rate at which single steps go to and fro.
    optimizer: {
      ...{ name: "sgd", learningRate: 1.5, averageDecay: DECAY },
      groups: [{ parameters: "0.bias", frozen: true }],
    },
    averaged: true,
    ...extra,
  };
}

/** The average after `steps` steps, in float64: a plain mean until it is as slow as the decay. */
function averageOf(name: string, steps: number): number[] {
  let average: number[] = [];
  for (let step = 1; step <= steps; step++) {
    const { state } = loadCheckpoint(checkpointPath(outDir, step));
    const value = Array.from(state.model.get(name)?.data as Float32Array);
    const decay = Math.min(DECAY, (step - 1) / step);
    average = value.map((x, i) => decay * (average[i] ?? 0) + (1 - decay) * x);
  }
  return average;
}

function weightsOf(path: string): Map<string, Float32Array> {
  const { graph } = decodeModel(readFileSync(path));
  return new Map(graph.initializer.map((tensor) => [tensor.name ?? "", dataOf(tensor) as Float32Array]));
}

let result: Awaited<ReturnType<typeof train>>;
beforeAll(async () => {
  result = await train(options({ outDir, isolate: false, checkpointEvery: 1, keepCheckpoints: 50, keepBest: true }));
});

describe("a run that evaluates averages", () => {
  test("exports the averages of the best step, and what is frozen as it was", async () => {
    const best = result.best?.step as number;
    const exported = weightsOf(result.modelFile as string);
    const source = loadGolden("mlp_tanh").model.graph.initializer;
    for (const name of ["0.weight", "2.weight", "4.weight", "4.bias"]) {
      expect(relativeError(exported.get(name) as Float32Array, averageOf(name, best)), name).toBeLessThan(1e-6);
    }
    const frozen = source.find((tensor) => tensor.name === "0.bias");
    expect(exported.get("0.bias")).toEqual(dataOf(frozen as NonNullable<typeof frozen>));
    for (const averaged of [undefined, true]) {
      const path = join(folder, `averaged-${averaged}.onnx`);
      await exportModel(outDir, path, averaged === undefined ? {} : { averaged });
      expect(weightsOf(path)).toEqual(exported);
    }
    const plain = join(folder, "plain.onnx");
    await exportModel(outDir, plain, { averaged: false });
    const { state } = loadCheckpoint(checkpointPath(outDir, best));
    expect(weightsOf(plain).get("4.weight")).toEqual(state.model.get("4.weight")?.data);
    expect(weightsOf(plain).get("4.weight")).not.toEqual(exported.get("4.weight"));
  });

  test("follows the loss of the averages: each record is that of an exported average", async () => {
    const records = readMetrics(join(outDir, "metrics.jsonl")).filter((record) => record.held_out_loss !== undefined);
    expect(records.map(({ step }) => step)).toEqual([3, 6, 9, 12]);
    const own: number[] = [];
    for (const { step, held_out_loss } of records) {
      const checkpoint = checkpointPath(outDir, step);
      const averaged = await evaluate({ model: outDir, data: heldOut, checkpoint, averaged: true });
      const plain = await evaluate({ model: outDir, data: heldOut, checkpoint, averaged: false });
      expect(averaged.loss).toBeCloseTo(held_out_loss as number, 5);
      expect(plain.loss).not.toBeCloseTo(averaged.loss, 3);
      own.push(averaged.loss);
    }
    const best = records[own.indexOf(Math.min(...own))];
    expect(result.best).toEqual({ metric: "loss", step: best?.step, value: best?.held_out_loss });
  });

  test("goes on with the same averages", async () => {
    const directory = new RunDirectory(outDir);
    const resumed = await runTraining({
      program: await directory.readProgram(),
      options: parseRunOptions(directory.readOptions().run),
      ...{ data, heldOut },
      from: checkpointPath(outDir, 5),
    });
    expect(differingTensors(resumed.state, result.state as typeof resumed.state)).toEqual([]);
    expect(resumed.heldOut?.loss).toBe(result.heldOut?.loss);
  });

  test("as safetensors too, and by the command line", async () => {
    const file = join(folder, "averaged.safetensors");
    await exportSafetensors(outDir, file, { averaged: true });
    const { tensors } = decodeSafetensors(readFileSync(file));
    const best = result.best?.step as number;
    for (const name of ["0.weight", "2.weight", "4.weight", "4.bias"]) {
      expect(relativeError(tensors.get(name)?.data as Float32Array, averageOf(name, best)), name).toBeLessThan(1e-6);
    }
    const path = join(folder, "cli.onnx");
    expect((await fishy("export", outDir, "-o", path, "--no-averaged")).code).toBe(0);
    expect(weightsOf(path)).toEqual(weightsOf(join(folder, "plain.onnx")));
  });
});

test("refused without averages", async () => {
  const none = { name: "sgd", learningRate: 0.1 } as const;
  await expect(train(options({ optimizer: none }))).rejects.toThrow(
    "sgd keeps no averages of the parameters to evaluate (averaged). Set its averageDecay",
  );
  const plain = join(folder, "without");
  await train(options({ optimizer: none, averaged: false, outDir: plain, isolate: false }));
  await expect(exportModel(plain, join(folder, "no.onnx"), { averaged: true })).rejects.toThrow(
    "holds no averages of the parameters",
  );
  const result = await fishy("eval", plain, "--averaged");
  expect(result.stderr).toMatch(/holds no averages of the parameters.*Leave out --averaged/);
  expect(result.code).toBe(1);
});
