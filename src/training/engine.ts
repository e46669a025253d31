/** What runs training steps. Engines differ in where the state lives between runs and in how many steps a run takes. */
import { hashWords } from "../data/random.js";
import type { Batch, BatchInput } from "../data/source.js";
import type { Optimizer } from "../optimizers/optimizer.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { CPU, type Device } from "../runtime/devices.js";
import type { Tensor } from "../runtime/ort.js";
import type { StateBuffers } from "./state.js";

export interface EngineOptions {
  readonly program: TrainingProgram;
  readonly optimizer: Optimizer;
  /** Data inputs as batches fill them. */
  readonly inputs: readonly BatchInput[];
  readonly batchSize: number;
  /** Seeds sampling and dropout. */
  readonly seed: number;
  /** Where steps run; default the CPU. */
  readonly device?: Device;
  readonly threads?: number;
  /** Folder of the program's external data. */
  readonly directory?: string | undefined;
}

export interface StepOutcome {
  readonly loss: number;
  /** The optimizer's diagnostics of this step. */
  readonly metrics: Readonly<Record<string, number>>;
  /** The same, with a value for each block that the optimizer lists. */
  readonly blockMetrics: Readonly<Record<string, readonly number[]>>;
}

/** Steps count from 1. */
export interface Engine {
  /** Most steps of one run. Between the steps of a run nothing can be evaluated, saved or stopped. */
  readonly stepsPerRun: number;
  /** The state as it is between runs; that of the last `synchronise` where there is one. */
  readonly state: StateBuffers;
  /** Takes the batch of a step of the next run; `slot` counts from 0. */
  fill(slot: number, batch: Batch): void;
  /** Where a step takes several batches together. */
  readonly accumulation?: Accumulation;
  /** Builds and loads what a run needs ahead of its time, so that its own time is that of its work. */
  prepare(first: number, count: number): Promise<void>;
  /**
   * Runs `count` steps on the batches that were filled.
   * @returns their outcomes. A step whose loss is not finite is not taken, nor is any after it: its outcome is the last
   * one, and the state is as it was before it.
   */
  run(first: number, count: number): Promise<readonly StepOutcome[]>;
  /** Brings the state from the device, where it stays there between runs. `state` may be written before the first run only. */
  synchronise?(): Promise<void>;
  /** What a forward pass is fed beside data: parameters, running statistics, frozen weights in external files. */
  carriedTensor(name: string): Tensor | undefined;
  release(): Promise<void>;
}

export interface Accumulation {
  /** Batches of a step. All but the last, which `run` takes, are added to the step as they come. */
  readonly batches: number;
  /** Adds the batch that was filled to a step. @param part counts from 0. */
  add(step: number, part: number): Promise<void>;
}

/** Marks the seeds of steps off from those of the data's order. */
const STEP_STREAM = 0x57e9;

/**
 * The value of the program's `seed` input at a step: it depends on (seed, step, part) alone, so that a resumed run draws
 * the same samples.
 * @param part which of the step's batches; 0 for its only one.
 */
export function stepSeed(seed: number, step: number, part = 0): bigint {
  return BigInt.asIntN(64, hashWords(STEP_STREAM, seed, step, ...(part === 0 ? [] : [part])));
}

export function checkBatch(batch: Batch, { batchSize }: Pick<EngineOptions, "batchSize">): void {
  if (batch.size !== batchSize) throw new Error(`a batch of ${batch.size} for steps of ${batchSize}`);
}

export function deviceOf({ device }: Pick<EngineOptions, "device">): Device {
  return device ?? CPU;
}
