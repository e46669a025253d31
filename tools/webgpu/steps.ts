/** The comparison of steps.mjs. */
import { createOptimizer, type OptimizerName } from "../../src/optimizers/registry.js";
import { BoundStepper } from "../../src/training/bound-stepper.js";
import { Stepper } from "../../src/training/stepper.js";
import { goldenBatch } from "../../test/webgpu/golden-batch.js";
import { webGpuDriver } from "./driver.js";

const STEPS = 20;

Object.assign(process.env, webGpuDriver().environment);
const [model, name, ...ridges] = process.argv.slice(2);
if (!model || !name) throw new Error("usage: node tools/webgpu/steps.mjs MODEL OPTIMIZER [EPSILON…]");
console.log("| ridge | residual | most retries | largest difference |\n| --- | --- | --- | --- |");
for (const epsilon of ridges.length > 0 ? ridges.map(Number) : [1e-4]) {
  const { residual, retries, difference } = await compare(model, name as OptimizerName, epsilon);
  const [shownResidual, shownDifference] = [residual, difference].map((value) => value.toExponential(1));
  console.log(`| ${epsilon.toExponential()} | ${shownResidual} | ${retries} | ${shownDifference} |`);
}

async function compare(folder: string, optimizerName: OptimizerName, epsilon: number) {
  const { program, inputs, batchSize, batch } = await goldenBatch(folder);
  const roots = { epsilon, startStep: 3, rootInterval: 5 };
  const make = () =>
    createOptimizer(
      { name: optimizerName, ...(/^adam|^sgd/.test(optimizerName) ? {} : roots) },
      program.manifest.parameters,
    );
  const options = { program, inputs, batchSize, seed: 1 };
  const cpu = await Stepper.create({ ...options, optimizer: make() });
  const gpu = await BoundStepper.create({ ...options, optimizer: make(), strict: true });
  let [residual, retries] = [0, 0];
  for (let step = 1; step <= STEPS; step++) {
    cpu.fill(0, batch);
    gpu.fill(0, batch);
    await cpu.run(step);
    const [{ metrics }] = await gpu.run(step);
    residual = Math.max(residual, metrics["roots/residual"] ?? 0);
    retries = Math.max(retries, metrics["roots/retries"] ?? 0);
  }
  await gpu.synchronise();
  let difference = 0;
  for (const [parameter, { current }] of cpu.state.model) {
    const other = gpu.state.model.get(parameter)?.current.data as Float32Array;
    for (const [i, value] of (current.data as Float32Array).entries()) {
      difference = Math.max(difference, Math.abs(value - (other[i] as number)));
    }
  }
  await gpu.release();
  await cpu.release();
  return { residual, retries, difference };
}
