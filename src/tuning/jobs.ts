/** How many trials run side by side. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { UsageError } from "../errors.js";
import type { TrainOptions } from "../training/train.js";

/** Memory of a training process beside its model and data: Node, ONNX Runtime and its kernels. */
const BASE_BYTES = 300e6;
/** Parameters, gradients, optimizer state and their copies, for each byte of the model's file. */
const BYTES_PER_MODEL_BYTE = 20;
/** Data as it was read and as floats, for each byte of its files. */
const BYTES_PER_DATA_BYTE = 5;
/** Larger data is streamed. */
const STREAMED_BYTES = 512 * 2 ** 20;

export interface Machine {
  readonly cores: number;
  readonly freeBytes: number;
}

export interface Share {
  /** Trials at the same time. */
  readonly jobs: number;
  /** ONNX Runtime's threads in each. */
  readonly threads: number;
}

/**
 * Shares the machine among the trials: as many at once as cores, fewer where an estimate of their memory would pass
 * three quarters of what is free. One thread for each trial trains more of them in an hour than all threads for one.
 * @param given the number of trials at once, in place of that default.
 * @throws UsageError for a number that is not a whole one above 0.
 */
export function shareMachine(
  given: number | undefined,
  sample: Pick<TrainOptions, "model" | "data" | "heldOut">,
  trials: number,
  machine: Machine = { cores: availableParallelism(), freeBytes: process.availableMemory() },
): Share {
  const jobs = given ?? Math.min(trials, machine.cores, fitting(sample, machine.freeBytes));
  if (!Number.isInteger(jobs) || jobs < 1) throw new UsageError(`jobs must be a whole number above 0; got ${jobs}.`);
  return { jobs, threads: Math.max(1, Math.floor(machine.cores / jobs)) };
}

function fitting({ model, data, heldOut }: Pick<TrainOptions, "model" | "data" | "heldOut">, freeBytes: number) {
  const paths = [data, heldOut].flat().filter((path) => typeof path === "string");
  const dataBytes = bytesOf(paths.map((path) => path.replace(/^[\w.-]+=/, "")));
  const modelBytes = typeof model === "string" ? bytesOf([model]) : 0;
  const bytes =
    BASE_BYTES + BYTES_PER_MODEL_BYTE * modelBytes + BYTES_PER_DATA_BYTE * Math.min(dataBytes, STREAMED_BYTES);
  return Math.max(1, Math.floor((0.75 * freeBytes) / bytes));
}

/** Bytes of files and of the files in folders; what is missing counts nothing. */
function bytesOf(paths: readonly string[]): number {
  return paths.reduce((sum, path) => {
    if (!existsSync(path)) return sum;
    const status = statSync(path);
    if (!status.isDirectory()) return sum + status.size;
    const files = readdirSync(path)
      .map((name) => join(path, name))
      .filter(existsSync)
      .map((file) => statSync(file));
    return sum + files.reduce((total, file) => total + (file.isFile() ? file.size : 0), 0);
  }, 0);
}
