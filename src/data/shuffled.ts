/** Batches of a dataset in memory, shuffled anew in every epoch. */
import { UsageError } from "../errors.js";
import type { BoundDataset } from "./bind.js";
import { permutation } from "./random.js";
import type { Batch, BatchInput, BatchSource } from "./source.js";

export interface ShuffleOptions {
  readonly batchSize: number;
  readonly seed: number;
  /** Keep the order of the rows. */
  readonly shuffle?: boolean;
  /** What becomes of the examples that are left at the end of an epoch; `pad` fills the batch up with the epoch's first ones. */
  readonly lastBatch?: "drop" | "pad" | undefined;
}

/**
 * How many batches an epoch has.
 * @throws UsageError when there are fewer rows than one batch takes.
 */
export function batchesIn(examples: number, dataset: string, { batchSize, lastBatch }: ShuffleOptions): number {
  const batches = lastBatch === "pad" ? Math.ceil(examples / batchSize) : Math.floor(examples / batchSize);
  if (batches === 0) {
    throw new UsageError(
      `The batch size is ${batchSize}, and ${dataset} has ${examples} examples to train on. Take a smaller batch.`,
    );
  }
  return batches;
}

/**
 * Batches of `batchSize` of the given rows. The order depends on (seed, epoch) alone.
 * @throws UsageError when there are fewer rows than one batch takes.
 */
export function shuffledBatches(bound: BoundDataset, rows: Uint32Array, options: ShuffleOptions): BatchSource {
  const { batchSize, seed, shuffle = true } = options;
  const batchesPerEpoch = batchesIn(rows.length, bound.dataset.name, options);
  return {
    inputs: bound.inputs as readonly BatchInput[],
    batchSize,
    batchesPerEpoch,
    *batches(epoch, skip) {
      const order = shuffle ? permutation(rows.length, seed, epoch).map((i) => rows[i] as number) : rows;
      const key = { seed, epoch };
      for (let i = skip; i < batchesPerEpoch; i++) {
        const own = order.subarray(i * batchSize, (i + 1) * batchSize);
        const whole = own.length === batchSize ? own : filledUp(own, order, batchSize);
        yield bound.batch(whole, key);
      }
    },
  };
}

/** A batch's rows, and the first of the epoch after them. */
function filledUp(own: Uint32Array, order: Uint32Array, batchSize: number): Uint32Array {
  return Uint32Array.from({ length: batchSize }, (_, i) =>
    i < own.length ? (own[i] as number) : (order[(i - own.length) % order.length] as number),
  );
}

/** All rows in order, in batches of at most `batchSize`: for evaluation. */
export function* orderedBatches(bound: BoundDataset, rows: Uint32Array, batchSize: number): Generator<Batch> {
  for (let start = 0; start < rows.length; start += batchSize)
    yield bound.batch(rows.subarray(start, start + batchSize));
}
