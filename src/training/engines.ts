/** The engine that a device wants. */
import { freemem } from "node:os";
import { UsageError } from "../errors.js";
import type { Device } from "../runtime/devices.js";
import { AccumulatingStepper } from "./accumulating-stepper.js";
import { checkAccumulation } from "./accumulation.js";
import { BoundStepper } from "./bound-stepper.js";
import { defaultStepsPerRun } from "./chunks.js";
import { deviceOf, type Engine, type EngineOptions } from "./engine.js";
import { LoopedStepper } from "./looped-stepper.js";
import { withLossScaling } from "./loss-scaling.js";
import { checkPrecision, type Precision, withPrecision } from "./precision.js";
import { SplitStepper } from "./split-stepper.js";
import type { StatisticsBatches } from "./statistics-batches.js";
import { Stepper } from "./stepper.js";

export interface EngineChoice extends EngineOptions {
  /** Default what `defaultStepsPerRun` finds. */
  readonly stepsPerRun?: number | undefined;
  readonly totalSteps: number;
  /** Where statistics are kept and roots refreshed; default where steps run. */
  readonly preconditionerDevice?: Device | undefined;
  /** Of matrix products and convolutions. Default float32. */
  readonly precision?: Precision;
  /** Batches whose gradients a step takes together. Default 1. */
  readonly accumulation?: number;
  /** Where the statistics come from, if not from the gradient's batches. */
  readonly statistics?: StatisticsBatches | undefined;
}

/** @throws UsageError for what does not go with a second device. */
function checkSecondDevice(options: EngineChoice): void {
  const { kind } = deviceOf(options);
  const { preconditionerDevice, stepsPerRun = 1, precision } = options;
  const problem =
    kind === "webgpu" || preconditionerDevice?.kind === "webgpu"
      ? "WebGPU, whose state stays in its buffers"
      : stepsPerRun > 1
        ? `steps in groups (stepsPerRun is ${stepsPerRun})`
        : precision === "float16"
          ? "precision float16, whose loss scale is kept with the gradients"
          : undefined;
  if (problem) throw new UsageError(`A second device for the preconditioner does not go with ${problem}.`);
}

/** The program and the optimizer that a precision wants. */
async function inPrecision<T extends EngineChoice>(options: T): Promise<T> {
  const { precision = "float32", program, optimizer, accumulation = 1, statistics } = options;
  if (precision === "float32") return options;
  checkPrecision(precision, deviceOf(options));
  const isScaled = precision === "float16";
  if (isScaled && (accumulation > 1 || statistics)) {
    throw new UsageError(
      "Precision float16 scales the loss of each batch by itself, so that steps cannot take several batches (accumulation) or others for their statistics. Use bfloat16 or float32.",
    );
  }
  return {
    ...options,
    program: await withPrecision(program, precision),
    ...(isScaled && { optimizer: withLossScaling(optimizer) }),
  };
}

/** @throws UsageError when the device cannot run so many steps at once, or steps cannot take so many batches. */
export async function createEngine(choice: EngineChoice): Promise<Engine> {
  const options = await inPrecision(choice);
  const { kind } = deviceOf(options);
  const { program, optimizer, inputs, batchSize, totalSteps, accumulation = 1, statistics } = options;
  if (accumulation > 1 || statistics) {
    if (options.preconditionerDevice) {
      throw new UsageError(
        "A second device for the preconditioner goes with steps of one batch (no accumulation, no statisticsBatch).",
      );
    }
    if (kind === "webgpu") {
      throw new UsageError(
        "On WebGPU a step takes one batch: no accumulation, and no batch of their own for statistics. Take larger batches, or another device.",
      );
    }
    if ((options.stepsPerRun ?? 1) > 1) {
      throw new UsageError(
        `Steps with accumulation or a batch of their own for statistics run one by one (stepsPerRun is ${options.stepsPerRun}).`,
      );
    }
    if (accumulation > 1) checkAccumulation(program.manifest, optimizer, statistics !== undefined);
    return AccumulatingStepper.create({ ...options, batches: accumulation, statistics });
  }
  const { preconditionerDevice } = options;
  if (preconditionerDevice) {
    checkSecondDevice(options);
    return SplitStepper.create({ ...options, preconditionerDevice });
  }
  const wanted = options.stepsPerRun ?? defaultStepsPerRun(kind, inputs, batchSize, freemem());
  const stepsPerRun = Math.max(1, Math.min(wanted, totalSteps));
  if (stepsPerRun === 1) return kind === "webgpu" ? BoundStepper.create(options) : Stepper.create(options);
  if (kind === "webgpu") {
    throw new UsageError(
      `WebGPU has no loops, so a run takes one step (stepsPerRun is ${stepsPerRun}). Parameters and state stay on the device all the same.`,
    );
  }
  return LoopedStepper.create({ ...options, stepsPerRun });
}
