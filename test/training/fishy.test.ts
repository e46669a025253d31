/** The whole: PyTorch exports, the rewriter, and every optimizer, trained together. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { columnOf, makeDataset } from "../../src/data/dataset.js";
import { loadDataset } from "../../src/data/load.js";
import { DataType } from "../../src/onnx/proto.js";
import type { OptimizerOptions } from "../../src/optimizers/registry.js";
import { parseRunOptions } from "../../src/training/options.js";
import { runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { type TrainOptions, train } from "../../src/training/train.js";
import { loadGolden } from "../support/shared.js";
import { differingTensors, FASHION_MNIST, temporaryFolder } from "./support.js";

const folder = temporaryFolder();

/** Fashion-MNIST in 8 × 8 pixels (means of 3 × 3, two pixels of margin cut off), for the small autoencoder. */
async function smallPictures() {
  const pixels = (await loadDataset(FASHION_MNIST)).columns.get("images")?.data as Uint8Array;
  const count = 1000;
  const small = new Float32Array(count * 64);
  for (let n = 0; n < count; n++) {
    for (let i = 0; i < 24; i++) {
      for (let j = 0; j < 24; j++) {
        const at = n * 64 + Math.floor(i / 3) * 8 + Math.floor(j / 3);
        small[at] = (small[at] as number) + (pixels[n * 784 + (i + 2) * 28 + j + 2] as number) / (9 * 255);
      }
    }
  }
  return makeDataset("pictures", [columnOf("pixels", DataType.FLOAT, [count, 8, 8], small)]);
}

const data = await smallPictures();
const second = { rootInterval: 3, startStep: 4, blockSize: 32 } as const;
const optimizers: OptimizerOptions[] = [
  { name: "sgd", learningRate: 0.01, momentum: 0.9 },
  { name: "adamw", learningRate: 3e-3 },
  { name: "soap", learningRate: 1e-2, basisInterval: 3, blockSize: 32 },
  { name: "shampoo", learningRate: 3e-3, ...second },
  { name: "fim-shampoo", learningRate: 3e-3, ...second },
  { name: "fishy", learningRate: 3e-3, ...second },
];

function optionsOf(optimizer: OptimizerOptions, extra: Partial<TrainOptions> = {}): TrainOptions {
  return {
    model: { proto: loadGolden("autoencoder_tanh").model },
    rewrite: { loss: "sigmoid-cross-entropy" },
    data,
    inputs: { target: "pixels" },
    heldOut: 200,
    optimizer,
    batchSize: 100,
    steps: 20,
    seed: 1,
    threads: 1,
    ...extra,
  };
}

describe.each(optimizers)("$name trains a PyTorch export on pictures", (optimizer) => {
  test("with the same bits each time, on one thread and on two", async () => {
    const first = await train(optionsOf(optimizer));
    const again = await train(optionsOf(optimizer));
    const twoThreads = await train(optionsOf(optimizer, { threads: 2 }));
    const losses = first.losses as number[];
    expect(losses.every(Number.isFinite)).toBe(true);
    expect(first.heldOut?.loss).toBeLessThan(0.9 * (losses[0] as number));
    expect(again.losses).toEqual(losses);
    type State = NonNullable<typeof first.state>;
    expect(differingTensors(again.state as State, first.state as State)).toEqual([]);
    expect(differingTensors(twoThreads.state as State, first.state as State)).toEqual([]);
  });
});

test("Fishy's samples depend on the seed, Shampoo's path on the data's order alone", async () => {
  const fixed = { shuffle: false } as const;
  const run = (name: "fishy" | "shampoo", seed: number) =>
    train(optionsOf({ name, learningRate: 3e-3, ...second }, { ...fixed, seed }));
  expect((await run("fishy", 1)).losses).not.toEqual((await run("fishy", 2)).losses);
  expect((await run("shampoo", 1)).losses).toEqual((await run("shampoo", 2)).losses);
});

test("Fishy resumed from each checkpoint ends with the same bits", async () => {
  const outDir = join(folder, "fishy");
  const whole = await train(
    optionsOf({ name: "fishy", learningRate: 3e-3, ...second }, { outDir, checkpointEvery: 1, keepCheckpoints: 50 }),
  );
  const directory = new RunDirectory(outDir);
  const program = await directory.readProgram();
  const options = parseRunOptions(directory.readOptions().run);
  // Before and after the start step and refreshes of the roots.
  for (const step of [3, 4, 6, 7, 15]) {
    const from = join(outDir, `checkpoint-${step}`);
    const resumed = await runTraining({ program, options, data, directory, from });
    expect(differingTensors(resumed.state, whole.state as typeof resumed.state)).toEqual([]);
  }
});
