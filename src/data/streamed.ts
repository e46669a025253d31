/** Batches of a dataset that is read a part at a time: its chunks in an order of the epoch's, the rows of each permuted. */
import { FishyError } from "../errors.js";
import type { AugmentKey } from "./augment.js";
import { type BindOptions, BoundDataset, type WantedInput } from "./bind.js";
import type { ChunkedDataset } from "./chunked.js";
import { permutation } from "./random.js";
import { batchesIn, type ShuffleOptions } from "./shuffled.js";
import type { Batch, BatchInput, BatchSource } from "./source.js";

/** Marks the order of rows off from that of chunks. */
const ROW_STREAM = 0x0c4b;

/** A chunked dataset tied to a program's inputs. */
export class BoundChunks {
  /** Number of the first row of each chunk. */
  readonly offsets: readonly number[];

  private constructor(
    readonly dataset: ChunkedDataset,
    private readonly wanted: readonly WantedInput[],
    private readonly options: BindOptions,
    /** Of one row, which tells what all chunks must be like. */
    readonly model: BoundDataset,
  ) {
    let start = 0;
    this.offsets = dataset.chunks.map((rows) => {
      start += rows;
      return start - rows;
    });
  }

  /** @throws as `BoundDataset.bind` does; rows beyond the first chunk are checked when they are read. */
  static async bind(
    dataset: ChunkedDataset,
    wanted: readonly WantedInput[],
    options: BindOptions,
  ): Promise<BoundChunks> {
    const first = BoundDataset.bind(await dataset.read(0), wanted, options);
    return new BoundChunks(dataset, wanted, options, first.withoutRows());
  }

  get inputs(): readonly BatchInput[] {
    return this.model.inputs;
  }

  /** Reads a chunk. @throws FishyError when it is not like the first. */
  async chunk(index: number): Promise<BoundDataset> {
    const bound = BoundDataset.bind(await this.dataset.read(index), this.wanted, this.options);
    bound.requireSameTexts(this.model);
    for (const [i, { name, dims }] of bound.inputs.entries()) {
      const expected = this.inputs[i]?.dims ?? [];
      if (dims.join() === expected.join()) continue;
      throw new FishyError(
        `What fills '${name}' has the shape [${dims.join(", ")}] in chunk ${index} of ${this.dataset.name}, and [${expected.join(", ")}] in the first. Bring all rows to one shape.`,
      );
    }
    return bound;
  }

  /** The rows of a chunk among ascending `rows`, counted from the chunk's first. */
  rowsIn(index: number, rows: Uint32Array): Uint32Array {
    const start = this.offsets[index] as number;
    const end = start + (this.dataset.chunks[index] as number);
    return rows.subarray(lowerBound(rows, start), lowerBound(rows, end)).map((row) => row - start);
  }
}

/** The first place of ascending `rows` that is not below `value`. */
function lowerBound(rows: Uint32Array, value: number): number {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((rows[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

interface Segment {
  readonly bound: BoundDataset;
  readonly rows: Uint32Array;
  readonly offset: number;
}

function batchOf(segments: readonly Segment[], key?: AugmentKey): Batch {
  return {
    size: segments.reduce((sum, { rows }) => sum + rows.length, 0),
    fill(into) {
      let at = 0;
      for (const { bound, rows, offset } of segments) {
        bound.fill({ rows, offset, key }, into, at);
        at += rows.length;
      }
    },
  };
}

/**
 * Batches of `batchSize` of the given rows, which may reach over several chunks. The order depends on (seed, epoch)
 * alone; chunks that are skipped are not read.
 * @param rows ascending.
 */
export function streamedBatches(bound: BoundChunks, rows: Uint32Array, options: ShuffleOptions): BatchSource {
  const { batchSize, seed, shuffle = true, lastBatch } = options;
  const { chunks, name } = bound.dataset;
  return {
    inputs: bound.inputs,
    batchSize,
    batchesPerEpoch: batchesIn(rows.length, name, options),
    async *batches(epoch, skip) {
      const key = { seed, epoch };
      const order = shuffle ? permutation(chunks.length, seed, epoch) : Uint32Array.from(chunks, (_, i) => i);
      const rowsOf = (chunk: number) => {
        const own = bound.rowsIn(chunk, rows);
        if (!shuffle) return own;
        return permutation(own.length, ROW_STREAM, seed, epoch, chunk).map((i) => own[i] as number);
      };
      let left = skip * batchSize;
      let pending: Segment[] = [];
      let missing = batchSize;
      for (const chunk of order) {
        const own = rowsOf(chunk);
        if (left >= own.length) {
          left -= own.length;
          continue;
        }
        const data = await bound.chunk(chunk);
        for (let at = left; at < own.length; ) {
          const segment = { bound: data, rows: own.subarray(at, at + missing), offset: bound.offsets[chunk] as number };
          pending.push(segment);
          at += segment.rows.length;
          missing -= segment.rows.length;
          if (missing > 0) continue;
          yield batchOf(pending, key);
          [pending, missing] = [[], batchSize];
        }
        left = 0;
      }
      if (lastBatch !== "pad" || pending.length === 0) return;
      // The epoch's first examples once more.
      while (missing > 0) {
        for (const chunk of order) {
          const own = rowsOf(chunk).subarray(0, missing);
          if (own.length === 0) continue;
          pending.push({ bound: await bound.chunk(chunk), rows: own, offset: bound.offsets[chunk] as number });
          missing -= own.length;
          if (missing === 0) break;
        }
      }
      yield batchOf(pending, key);
    },
  };
}

/** All rows in order, in batches of at most `batchSize`: for evaluation. @param rows ascending. */
export async function* orderedChunkBatches(
  bound: BoundChunks,
  rows: Uint32Array,
  batchSize: number,
): AsyncGenerator<Batch> {
  let pending: Segment[] = [];
  let missing = batchSize;
  for (const chunk of bound.dataset.chunks.keys()) {
    const own = bound.rowsIn(chunk, rows);
    if (own.length === 0) continue;
    const data = await bound.chunk(chunk);
    for (let at = 0; at < own.length; ) {
      const segment = { bound: data, rows: own.subarray(at, at + missing), offset: bound.offsets[chunk] as number };
      pending.push(segment);
      at += segment.rows.length;
      missing -= segment.rows.length;
      if (missing > 0) continue;
      yield batchOf(pending);
      [pending, missing] = [[], batchSize];
    }
  }
  if (pending.length > 0) yield batchOf(pending);
}
