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
}

/**
 * Batches of `batchSize` of the given rows; what is left at the end of an epoch is dropped. The order depends on
 * (seed, epoch) alone.
 * @throws UsageError when there are fewer rows than one batch takes.
 */
export function shuffledBatches(bound: BoundDataset, rows: Uint32Array, options: ShuffleOptions): BatchSource {
  const { batchSize, seed, shuffle = true } = options;
  const batchesPerEpoch = Math.floor(rows.length / batchSize);
  if (batchesPerEpoch === 0) {
    throw new UsageError(
      `The batch size is ${batchSize}, and ${bound.dataset.name} has ${rows.length} examples to train on. Take a smaller batch.`,
    );
  }
  return {
    inputs: bound.inputs as readonly BatchInput[],
    batchSize,
    batchesPerEpoch,
    *batches(epoch, skip) {
      const order = shuffle ? permutation(rows.length, seed, epoch).map((i) => rows[i] as number) : rows;
      for (let i = skip; i < batchesPerEpoch; i++)
        yield bound.batch(order.subarray(i * batchSize, (i + 1) * batchSize));
    },
  };
}

/** All rows in order, in batches of at most `batchSize`: for evaluation. */
export function* orderedBatches(bound: BoundDataset, rows: Uint32Array, batchSize: number): Generator<Batch> {
  for (let start = 0; start < rows.length; start += batchSize)
    yield bound.batch(rows.subarray(start, start + batchSize));
}
