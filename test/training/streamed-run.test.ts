/** Runs on images in Parquet files, read a part at a time by a thread of their own. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { listCheckpoints } from "../../src/training/checkpoint.js";
import { readMetrics } from "../../src/training/metrics.js";
import { parseRunOptions, type RunOptions } from "../../src/training/options.js";
import { runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { differingTensors, handMadeProgram, temporaryFolder } from "./support.js";

process.env.NODE_OPTIONS = `--import ${new URL("../support/register-typescript.mjs", import.meta.url).href}`;
const folder = temporaryFolder();
const HUB = join(import.meta.dirname, "../fixtures/data/formats/hub");
const program = handMadeProgram(3 * 8 * 6, 5, 3);

const options: RunOptions = {
  optimizer: { name: "adam", learningRate: 0.01 },
  data: [HUB],
  stream: true,
  heldOut: 2,
  steps: 11,
  batchSize: 2,
  lastBatch: "pad",
  normalize: { mean: [0.5], std: [0.25] },
  augment: { crop: 1, flip: true },
  checkpointEvery: 1,
  keepCheckpoints: 20,
};

async function run(name: string, extra: RunOptions, from?: string) {
  const directory = new RunDirectory(join(folder, name));
  const all = { ...options, ...extra };
  if (!from) await directory.create({ fishy: "test", model: null, rewrite: {}, run: all }, program, undefined);
  return { directory, result: await runTraining({ program, options: parseRunOptions(all), directory, from }) };
}

describe("a run on streamed, augmented images", () => {
  test("has the same bits with and without a thread that makes its batches, and from every checkpoint", async () => {
    const { directory, result } = await run("ahead", {});
    // 5 of 7 examples, padded: 3 batches in an epoch.
    expect(readMetrics(directory.metricsFile).at(2)?.epoch).toBe(1);
    expect(result.heldOut?.examples).toBe(2);
    expect(result.train?.examples).toBe(5);
    const direct = await run("direct", { prefetch: 0 });
    expect(differingTensors(direct.result.state, result.state)).toEqual([]);
    expect(direct.result.heldOut).toEqual(result.heldOut);
    for (const step of [4, 6]) {
      const from = listCheckpoints(directory.path).find((path) => path.endsWith(`checkpoint-${step}`));
      const resumed = await run("ahead", {}, from);
      expect(differingTensors(resumed.result.state, result.state)).toEqual([]);
    }
    // Read into memory, the rows come in another order.
    const whole = await run("memory", { stream: false });
    expect(differingTensors(whole.result.state, result.state)).not.toEqual([]);
    const plain = await run("plain", { augment: { crop: 0, flip: false } });
    expect(differingTensors(plain.result.state, result.state)).not.toEqual([]);
  });
});
