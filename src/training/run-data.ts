/** The data of a run: what it trains on, what is held out, and what the final evaluation takes. */
import { BoundDataset } from "../data/bind.js";
import type { Dataset } from "../data/dataset.js";
import { loadDataset } from "../data/load.js";
import { orderedBatches, shuffledBatches } from "../data/shuffled.js";
import type { Batch, BatchSource } from "../data/source.js";
import { someRows, splitRows } from "../data/split.js";
import { type OpenStream, streamBatches } from "../data/stream.js";
import { UsageError } from "../errors.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { wantedInputs } from "./inputs.js";
import { DEFAULT_BATCH_SIZE, type ResolvedRunOptions } from "./options.js";

/** Examples of the training set that the final evaluation takes at most. */
const FINAL_TRAIN_EXAMPLES = 10_000;

/** Data in memory or from code, where the options' paths are not used. */
export type MemoryData = Dataset | OpenStream;

/** What the run trains on, and what it is judged by. */
export interface RunData {
  readonly source: BatchSource;
  readonly trainExamples: number | undefined;
  /** Training examples in order, for the final evaluation; undefined for streams. */
  readonly train: (() => Iterable<Batch>) | undefined;
  readonly heldOut: { readonly examples: number; batches(): Iterable<Batch> } | undefined;
}

/**
 * Opens the data of a run.
 * @param memory data in memory, which goes before the options' paths.
 * @throws FishyError or UsageError when the data does not fit the program.
 */
export async function openData(
  program: TrainingProgram,
  options: ResolvedRunOptions,
  memory: { readonly data?: MemoryData | undefined; readonly heldOut?: Dataset | undefined } = {},
): Promise<RunData> {
  const wanted = wantedInputs(program);
  const fixed = wanted.map(({ shape }) => shape?.[0]).find((dim): dim is number => typeof dim === "number");
  if (fixed !== undefined && options.batchSize !== undefined && options.batchSize !== fixed) {
    throw new UsageError(
      `The batch size is ${options.batchSize}, but the model is fixed to ${fixed} examples. Leave it out, or export the model with a dynamic batch axis.`,
    );
  }
  const bindOptions = { mapping: options.inputs, scale: options.scale };
  const separate = memory.heldOut ?? (Array.isArray(options.heldOut) ? loadDataset(options.heldOut) : undefined);
  const bindHeldOut = (batchSize: number, dataset: Dataset) => {
    const bound = BoundDataset.bind(dataset, wanted, bindOptions);
    const rows = Uint32Array.from({ length: evaluated(dataset.length, batchSize, fixed) }, (_, i) => i);
    return { examples: rows.length, batches: () => orderedBatches(bound, rows, batchSize) };
  };

  if (typeof memory.data === "function") {
    const source = await streamBatches(memory.data, wanted, options.scale);
    const size = options.batchSize ?? fixed ?? source.batchSize;
    if (size !== source.batchSize) {
      throw new UsageError(
        `The batch size is ${size}, but the data stream's batches have ${source.batchSize} examples.`,
      );
    }
    return {
      source,
      trainExamples: undefined,
      train: undefined,
      heldOut: separate && bindHeldOut(source.batchSize, separate),
    };
  }

  if (!memory.data && !options.data) throw new UsageError("No data is given to train on.");
  const dataset = memory.data ?? loadDataset(options.data as string[]);
  const bound = BoundDataset.bind(dataset, wanted, bindOptions);
  const split = splitRows(
    dataset.length,
    separate || Array.isArray(options.heldOut) ? 0 : options.heldOut,
    options.splitSeed,
  );
  const batchSize = options.batchSize ?? fixed ?? DEFAULT_BATCH_SIZE;
  const source = shuffledBatches(bound, split.train, { batchSize, seed: options.seed, shuffle: options.shuffle });
  const heldOutRows = split.heldOut.subarray(0, evaluated(split.heldOut.length, batchSize, fixed));
  const finalCount = Math.min(split.train.length, FINAL_TRAIN_EXAMPLES);
  const finalRows = someRows(split.train, evaluated(finalCount, batchSize, fixed));
  return {
    source,
    trainExamples: split.train.length,
    train: () => orderedBatches(bound, finalRows, batchSize),
    heldOut: separate
      ? bindHeldOut(batchSize, separate)
      : heldOutRows.length > 0
        ? { examples: heldOutRows.length, batches: () => orderedBatches(bound, heldOutRows, batchSize) }
        : undefined,
  };
}

/** How many of `examples` an evaluation can take: all, but only whole batches when the model fixes their size. */
function evaluated(examples: number, batchSize: number, fixed: number | undefined): number {
  return fixed === undefined ? examples : examples - (examples % batchSize);
}
