/** How many steps a run of the engine takes: evaluations, checkpoints and the end fall between runs. */
import type { BatchInput } from "../data/source.js";
import { bytesPerElement, elementCount } from "../onnx/tensor.js";
import type { DeviceKind } from "../runtime/devices.js";

/**
 * Steps of the run that begins after `step` steps: as many as the engine takes, up to the next multiple of each
 * interval (0 for none) and to the end.
 */
export function chunkLength(
  step: number,
  limits: { readonly stepsPerRun: number; readonly totalSteps: number; readonly intervals: readonly number[] },
): number {
  const { stepsPerRun, totalSteps, intervals } = limits;
  const untilNext = intervals.filter((every) => every > 0).map((every) => every - (step % every));
  return Math.min(stepsPerRun, totalSteps - step, ...untilNext);
}

/** A run of more steps gains little more, and Ctrl-C waits for its end. */
const MOST_STEPS = 64;
/** Memory that the batches of a run may take, on each side of the bus. */
const BATCH_BYTES = 256 * 2 ** 20;

/**
 * The default of `stepsPerRun`: 1 where the state need not cross a bus (CPU, and WebGPU, whose state stays in its
 * buffers); with CUDA as many steps, a power of two up to 64, as have their batches in 256 MiB and in an eighth of the
 * free memory.
 */
export function defaultStepsPerRun(
  kind: DeviceKind,
  inputs: readonly BatchInput[],
  batchSize: number,
  freeBytes: number,
): number {
  if (kind !== "cuda") return 1;
  const bytes = inputs.reduce(
    (sum, { type, dims }) => sum + batchSize * elementCount(dims) * (bytesPerElement(type) ?? 0),
    0,
  );
  const fitting = Math.min(BATCH_BYTES, freeBytes / 8) / Math.max(1, bytes);
  return 2 ** Math.floor(Math.log2(Math.min(MOST_STEPS, Math.max(1, fitting))));
}
