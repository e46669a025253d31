import { expect, test } from "vitest";
import { loadDataset } from "../../src/data/load.js";
import { stepSeed } from "../../src/training/engine.js";
import { parseRunOptions } from "../../src/training/options.js";
import { runTraining } from "../../src/training/run.js";

import { differingTensors, FASHION_MNIST, handMadeProgram, samplingOptimizer } from "./support.js";

const data = await loadDataset(FASHION_MNIST);
const program = handMadeProgram(784, 256, 10);

function run(threads: number, seed: number, optimizer: "adam" | "sampling") {
  const options = parseRunOptions({
    ...(optimizer === "adam" && { optimizer: { name: "adam", learningRate: 1e-3 } }),
    steps: 20,
    batchSize: 200,
    seed,
    threads,
  });
  return runTraining({ program, options, data, optimizer: optimizer === "sampling" ? samplingOptimizer : undefined });
}

test.each(["adam", "sampling"] as const)("%s: same seed, same bits, on one thread and two", async (optimizer) => {
  const first = await run(1, 5, optimizer);
  const again = await run(1, 5, optimizer);
  const twoThreads = await run(2, 5, optimizer);
  const otherSeed = await run(1, 6, optimizer);
  expect(first.losses).toHaveLength(20);
  expect(first.losses.at(-1)).toBeLessThan(first.losses[0] as number);
  expect(again.losses).toEqual(first.losses);
  expect(differingTensors(again.state, first.state)).toEqual([]);
  expect(differingTensors(twoThreads.state, first.state)).toEqual([]);
  expect(differingTensors(otherSeed.state, first.state)).toContain("A");
});

test("fishy with large blocks: same bits on one thread and two", async () => {
  const large = handMadeProgram(784, 500, 10);
  const states = [];
  for (const threads of [1, 2]) {
    const options = parseRunOptions({
      optimizer: { name: "fishy", learningRate: 1e-3, rootInterval: 2, startStep: 1, statisticsInterval: 1 },
      ...{ steps: 4, batchSize: 100, seed: 3, threads },
    });
    states.push((await runTraining({ program: large, options, data })).state);
  }
  const [one, two] = states;
  expect(one && two && differingTensors(two, one)).toEqual([]);
});

test("seeds of steps differ from step to step and from run to run", () => {
  const seeds = new Set<bigint>();
  for (let seed = 0; seed < 10; seed++) for (let step = 1; step <= 1000; step++) seeds.add(stepSeed(seed, step));
  expect(seeds.size).toBe(10_000);
  for (const seed of seeds) expect(BigInt.asIntN(64, seed)).toBe(seed);
});
