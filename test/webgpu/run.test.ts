/** A whole run on WebGPU: evaluations, checkpoints and the result see the state that is on the device. */
import { expect, it } from "vitest";
import { parseRunOptions, type RunOptions } from "../../src/training/options.js";
import { runTraining } from "../../src/training/run.js";
import { clusters, handMadeProgram } from "../training/support.js";
import { hasWebGpu, WITHOUT } from "./driver.js";

// The device is probed by a process of its own, which has to read the sources as they are.
process.env.NODE_OPTIONS = `--import ${new URL("../support/register-typescript.mjs", import.meta.url).href}`;

const INPUTS = 6;
const CLASSES = 4;
const options: RunOptions = {
  optimizer: { name: "adam", learningRate: 0.02 },
  steps: 7,
  batchSize: 16,
  heldOut: 0.3,
  seed: 4,
  evaluateEvery: 3,
};

it.skipIf(!hasWebGpu)(`a run on WebGPU is that on the CPU${WITHOUT}`, async () => {
  const run = async (device: string) => {
    const evaluations: number[] = [];
    const result = await runTraining(
      {
        program: handMadeProgram(INPUTS, 8, CLASSES),
        data: clusters(70, INPUTS, CLASSES),
        options: parseRunOptions({ ...options, device }),
      },
      {
        onStep(record) {
          if (record.held_out_loss !== undefined) evaluations.push(record.held_out_loss);
        },
      },
    );
    return { result, evaluations };
  };
  const cpu = await run("cpu");
  const gpu = await run("webgpu");
  expect(gpu.evaluations).toHaveLength(3);
  const near = (actual: readonly number[], expected: readonly number[]) => {
    expect(actual).toHaveLength(expected.length);
    for (const [i, value] of expected.entries()) expect(Math.abs((actual[i] as number) - value)).toBeLessThan(1e-5);
  };
  near(gpu.evaluations, cpu.evaluations);
  near(gpu.result.losses, cpu.result.losses);
  for (const [name, { data }] of cpu.result.state.model) {
    near(Array.from(gpu.result.state.model.get(name)?.data as Float32Array), Array.from(data as Float32Array));
  }
});
