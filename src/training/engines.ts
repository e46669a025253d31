/** The engine that a device wants. */
import { freemem } from "node:os";
import { UsageError } from "../errors.js";
import { defaultStepsPerRun } from "./chunks.js";
import { deviceOf, type Engine, type EngineOptions } from "./engine.js";
import { LoopedStepper } from "./looped-stepper.js";
import { Stepper } from "./stepper.js";

/**
 * @param options `stepsPerRun`: default what `defaultStepsPerRun` finds.
 * @throws UsageError when the device cannot run so many steps at once.
 */
export async function createEngine(
  options: EngineOptions & { readonly stepsPerRun?: number | undefined; readonly totalSteps: number },
): Promise<Engine> {
  const { kind } = deviceOf(options);
  const { inputs, batchSize, totalSteps } = options;
  const wanted = options.stepsPerRun ?? defaultStepsPerRun(kind, inputs, batchSize, freemem());
  const stepsPerRun = Math.max(1, Math.min(wanted, totalSteps));
  if (stepsPerRun === 1) return Stepper.create(options);
  if (kind === "webgpu") {
    throw new UsageError(
      `WebGPU has no loops, so a run takes one step (stepsPerRun is ${stepsPerRun}). Parameters and state stay on the device all the same.`,
    );
  }
  return LoopedStepper.create({ ...options, stepsPerRun });
}
