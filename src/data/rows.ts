/** A dataset tied to a program's inputs, whether it lies in memory or is read a part at a time. */
import { type BindOptions, BoundDataset, type WantedInput } from "./bind.js";
import { type ChunkedDataset, isChunked } from "./chunked.js";
import type { Dataset } from "./dataset.js";
import { permutation } from "./random.js";
import { orderedBatches, type ShuffleOptions, shuffledBatches } from "./shuffled.js";
import type { Batch, BatchInput, BatchSource } from "./source.js";
import { someRows } from "./split.js";
import { BoundChunks, orderedChunkBatches, streamedBatches } from "./streamed.js";

/** Marks the choice of chunks off from the orders of epochs. */
const SAMPLE_STREAM = 0x5a3d;

export interface BoundRows {
  readonly name: string;
  /** Number of examples. */
  readonly length: number;
  readonly inputs: readonly BatchInput[];
  /** Endless epochs of batches to train on. @param rows ascending. */
  shuffled(rows: Uint32Array, options: ShuffleOptions): BatchSource;
  /** Batches of at most `batchSize` in order, as they are. @param rows ascending. */
  ordered(rows: Uint32Array, batchSize: number): AsyncIterable<Batch> | Iterable<Batch>;
  /** At most `count` of the rows, always the same; of as few chunks as hold so many. */
  some(rows: Uint32Array, count: number): Uint32Array;
  /** @throws FishyError when texts have other indices than in `other`. */
  requireSameTexts(other: BoundRows): Promise<void>;
  /** Rows that tell what all are like. */
  model(): Promise<BoundDataset>;
}

/** @throws as `BoundDataset.bind` does. */
export async function bindRows(
  dataset: Dataset | ChunkedDataset,
  wanted: readonly WantedInput[],
  options: BindOptions = {},
): Promise<BoundRows> {
  return isChunked(dataset)
    ? chunkRows(await BoundChunks.bind(dataset, wanted, options))
    : memoryRows(BoundDataset.bind(dataset, wanted, options));
}

function memoryRows(bound: BoundDataset): BoundRows {
  return {
    name: bound.dataset.name,
    length: bound.dataset.length,
    inputs: bound.inputs,
    shuffled: (rows, options) => shuffledBatches(bound, rows, options),
    ordered: (rows, batchSize) => orderedBatches(bound, rows, batchSize),
    some: someRows,
    requireSameTexts: async (other) => bound.requireSameTexts(await other.model()),
    model: async () => bound,
  };
}

function chunkRows(bound: BoundChunks): BoundRows {
  return {
    name: bound.dataset.name,
    length: bound.dataset.length,
    inputs: bound.inputs,
    shuffled: (rows, options) => streamedBatches(bound, rows, options),
    ordered: (rows, batchSize) => orderedChunkBatches(bound, rows, batchSize),
    some(rows, count) {
      if (rows.length <= count) return rows;
      const chosen: number[] = [];
      for (const chunk of permutation(bound.dataset.chunks.length, SAMPLE_STREAM)) {
        const offset = bound.offsets[chunk] as number;
        for (const row of bound.rowsIn(chunk, rows)) chosen.push(offset + row);
        if (chosen.length >= count) break;
      }
      return Uint32Array.from(chosen.slice(0, count)).sort();
    },
    requireSameTexts: async (other) => bound.model.requireSameTexts(await other.model()),
    model: async () => bound.model,
  };
}

/** 0 … length − 1. */
export function allRows(length: number): Uint32Array {
  return Uint32Array.from({ length }, (_, i) => i);
}
