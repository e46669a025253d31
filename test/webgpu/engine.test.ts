/** Training on WebGPU gives the parameters of the CPU. */
import { describe, expect, it } from "vitest";
import { createOptimizer, type OptimizerOptions } from "../../src/optimizers/registry.js";
import { BoundStepper } from "../../src/training/bound-stepper.js";
import { Stepper } from "../../src/training/stepper.js";
import { hasWebGpu, WITHOUT } from "./driver.js";
import { goldenBatch } from "./golden-batch.js";

const STEPS = 20;
/** Relative to λ_max: roots of float32 on the device, of float64 on the CPU. */
const epsilon = 1e-4;
/** The roots are refreshed four times, and the first steps are the graft's. */
const schedule = { startStep: 3, rootInterval: 5 };

interface Case {
  readonly model: string;
  readonly optimizer: OptimizerOptions;
}

const CASES: readonly Case[] = [
  { model: "autoencoder_tanh", optimizer: { name: "adam" } },
  { model: "autoencoder_tanh", optimizer: { name: "shampoo", epsilon, ...schedule } },
  { model: "cnn", optimizer: { name: "fishy", epsilon, ...schedule } },
  // The gradient of the keys' bias is zero but for rounding, which a small graftEpsilon would magnify.
  { model: "transformer_encoder", optimizer: { name: "fishy", epsilon, ...schedule, graftEpsilon: 1e-4 } },
];

describe.skipIf(!hasWebGpu)(`training on WebGPU${WITHOUT}`, () => {
  it.each(CASES)(
    "$model, $optimizer.name: 20 steps, parameters within 1e-4 of the CPU's",
    async ({ model, optimizer }) => {
      const { program, inputs, batchSize, batch } = await goldenBatch(model);
      const options = { program, inputs, batchSize, seed: 1 };
      const make = () => createOptimizer(optimizer, program.manifest.parameters);
      const cpu = await Stepper.create({ ...options, optimizer: make() });
      // Strict: a node on the CPU is an error.
      const gpu = await BoundStepper.create({ ...options, optimizer: make(), strict: true });
      for (let step = 1; step <= STEPS; step++) {
        cpu.fill(0, batch);
        gpu.fill(0, batch);
        const [expected] = await cpu.run(step);
        const [outcome] = await gpu.run(step);
        expect(Math.abs(outcome.loss - expected.loss), `loss of step ${step}`).toBeLessThan(1e-4);
        if ("roots/failed" in outcome.metrics) expect(outcome.metrics["roots/failed"]).toBe(0);
      }
      await gpu.synchronise();
      for (const [name, { current }] of cpu.state.model) {
        const other = gpu.state.model.get(name)?.current.data as Float32Array;
        expect(largestDifference(current.data as Float32Array, other), name).toBeLessThan(1e-4);
      }
      await gpu.release();
      await cpu.release();
    },
    240_000,
  );

  it("a step whose loss is not finite changes nothing", async () => {
    const { program, inputs, batchSize, batch } = await goldenBatch("regression_mse_in_graph");
    const optimizer = createOptimizer({ name: "adam" }, program.manifest.parameters);
    const gpu = await BoundStepper.create({ program, inputs, batchSize, seed: 1, optimizer });
    gpu.fill(0, batch);
    await gpu.run(1);
    await gpu.synchronise();
    const before = new Map(
      [...gpu.state.model].map(([name, { current }]) => [name, Array.from(current.data as Float32Array)]),
    );
    gpu.fill(0, {
      ...batch,
      fill(data) {
        batch.fill(data);
        for (const values of data.values()) (values as Float32Array).fill(Number.NaN);
      },
    });
    const [outcome] = await gpu.run(2);
    expect(outcome.loss).toBeNaN();
    await gpu.synchronise();
    for (const [name, { current }] of gpu.state.model) {
      expect(Array.from(current.data as Float32Array), name).toEqual(before.get(name));
    }
    await gpu.release();
  });

  it("labels beyond int32 are refused by name", async () => {
    const { program, inputs, batchSize, batch } = await goldenBatch("mlp_tanh");
    const optimizer = createOptimizer({ name: "adam" }, program.manifest.parameters);
    const gpu = await BoundStepper.create({ program, inputs, batchSize, seed: 1, optimizer });
    const wide = () =>
      gpu.fill(0, {
        ...batch,
        fill(data) {
          batch.fill(data);
          (data.get("labels") as BigInt64Array)[0] = 2n ** 31n;
        },
      });
    expect(wide).toThrow(/Input 'labels' holds 2147483648, which int32 does not/);
    await gpu.release();
  });
});

function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce(
    (most, value, i) => Math.max(most, Math.abs(value - (b[i] as number))),
    a.length === b.length ? 0 : Infinity,
  );
}
