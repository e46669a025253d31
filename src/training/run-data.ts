/** The data of a run: what it trains on, what is held out, and what the final evaluation takes. */
import type { BindOptions, WantedInput } from "../data/bind.js";
import { type ChunkedDataset, isChunked } from "../data/chunked.js";
import type { Dataset } from "../data/dataset.js";
import { type OpenOptions, openDataset } from "../data/load.js";
import { type PrefetchOrders, prefetched } from "../data/prefetch.js";
import { hashWords } from "../data/random.js";
import { allRows, type BoundRows, bindRows } from "../data/rows.js";
import type { ShuffleOptions } from "../data/shuffled.js";
import type { Batch, BatchSource } from "../data/source.js";
import { splitRows } from "../data/split.js";
import { type OpenStream, streamBatches } from "../data/stream.js";
import { UsageError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { wantedInputs } from "./inputs.js";
import { DEFAULT_BATCH_SIZE, type ResolvedRunOptions } from "./options.js";

/** Examples of the training set that the final evaluation takes at most. */
const FINAL_TRAIN_EXAMPLES = 10_000;
/** Marks the order of the statistics' batches off from that of the gradient's. */
const STATISTICS_STREAM = 0x57a7;
/** Batches made ahead where making them takes time. */
const DEFAULT_PREFETCH = 2;

/** Data in memory or from code, where the options' paths are not used. */
export type MemoryData = Dataset | ChunkedDataset | OpenStream;

type Batches = AsyncIterable<Batch> | Iterable<Batch>;

/** What the run trains on, and what it is judged by. */
export interface RunData {
  readonly source: BatchSource;
  readonly trainExamples: number | undefined;
  /** Training examples in order, for the final evaluation; undefined for streams. */
  readonly train: (() => Batches) | undefined;
  readonly heldOut: { readonly examples: number; batches(): Batches } | undefined;
  /**
   * The training examples in an order that has nothing to do with `source`'s, in batches of another size; absent for
   * streams.
   * @throws UsageError when the model is fixed to another size, or there are fewer examples.
   */
  statistics?(batchSize: number): BatchSource & { readonly batchesPerEpoch: number };
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
  const fixed = fixedBatchSize(wanted);
  if (fixed !== undefined && options.batchSize !== undefined && options.batchSize !== fixed) {
    throw new UsageError(
      `The batch size is ${options.batchSize}, but the model is fixed to ${fixed} examples. Leave it out, or export the model with a dynamic batch axis.`,
    );
  }
  const open = openOptions(options, wanted);
  const { augment } = options;
  const asItIs = bindOptions(options);
  const separate =
    memory.heldOut ?? (Array.isArray(options.heldOut) ? await openDataset(options.heldOut, open) : undefined);
  const bindHeldOut = async (batchSize: number, bound?: BoundRows) => {
    if (!separate) return undefined;
    const other = await bindRows(separate, wanted, asItIs);
    if (bound) await other.requireSameTexts(bound);
    const rows = allRows(evaluated(other.length, batchSize, fixed));
    return { examples: rows.length, batches: () => other.ordered(rows, batchSize) };
  };

  if (typeof memory.data === "function") {
    const source = await streamBatches(memory.data, wanted, options.scale);
    const size = options.batchSize ?? fixed ?? source.batchSize;
    if (size !== source.batchSize) {
      throw new UsageError(
        `The batch size is ${size}, but the data stream's batches have ${source.batchSize} examples.`,
      );
    }
    return { source, trainExamples: undefined, train: undefined, heldOut: await bindHeldOut(source.batchSize) };
  }

  if (!memory.data && !options.data) throw new UsageError("No data is given to train on.");
  const dataset = memory.data ?? (await openDataset(options.data as string[], open));
  const bound = await bindRows(dataset, wanted, { ...asItIs, augment });
  const { seed, shuffle, lastBatch, splitSeed } = options;
  const heldOutPart = separate || Array.isArray(options.heldOut) ? 0 : options.heldOut;
  const split = splitRows(bound.length, heldOutPart, splitSeed);
  const batchSize = options.batchSize ?? fixed ?? DEFAULT_BATCH_SIZE;
  const order = { batchSize, seed, shuffle, lastBatch };
  const source = bound.shuffled(split.train, order);
  const augments = augment !== undefined && (augment.crop > 0 || augment.flip);
  const ahead = options.prefetch ?? (!memory.data && (isChunked(dataset) || augments) ? DEFAULT_PREFETCH : 0);
  const orders = (paths: readonly string[], shuffle: ShuffleOptions): PrefetchOrders => {
    const stream = isChunked(dataset);
    return {
      paths,
      open: { ...open, stream },
      wanted,
      bind: { ...asItIs, augment },
      shuffle,
      heldOut: heldOutPart,
      splitSeed,
    };
  };
  const aheadOf = (batches: BatchSource, its: typeof order) =>
    ahead > 0 && !memory.data ? prefetched(batches, orders(options.data as string[], its), ahead) : batches;
  const heldOutRows = split.heldOut.subarray(0, evaluated(split.heldOut.length, batchSize, fixed));
  const finalCount = Math.min(split.train.length, FINAL_TRAIN_EXAMPLES);
  const finalRows = bound.some(split.train, evaluated(finalCount, batchSize, fixed));
  return {
    source: aheadOf(source, order),
    statistics(size) {
      if (fixed !== undefined && size !== fixed) {
        throw new UsageError(
          `The statistics' batch has ${size} examples, but the model is fixed to ${fixed}. Use separate, or export the model with a dynamic batch axis.`,
        );
      }
      const own = { ...order, batchSize: size, seed: statisticsSeed(seed), shuffle: true };
      const batches = bound.shuffled(split.train, own);
      return { ...aheadOf(batches, own), batchesPerEpoch: batches.batchesPerEpoch as number };
    },
    trainExamples: split.train.length,
    train: () => bound.ordered(finalRows, batchSize),
    heldOut:
      (await bindHeldOut(batchSize, bound)) ??
      (heldOutRows.length > 0
        ? { examples: heldOutRows.length, batches: () => bound.ordered(heldOutRows, batchSize) }
        : undefined),
  };
}

/** The seed of the order in which the statistics' own batches come. */
function statisticsSeed(seed: number): number {
  return Number(BigInt.asUintN(32, hashWords(STATISTICS_STREAM, seed)));
}

/** The batch size that the model is exported for, if it is. */
export function fixedBatchSize(wanted: readonly WantedInput[]): number | undefined {
  return wanted.map(({ shape }) => shape?.[0]).find((dim): dim is number => typeof dim === "number");
}

/** The options of a run that concern how data is read and bound. */
interface DataOptions extends OpenOptions, Omit<BindOptions, "mapping"> {
  readonly inputs?: BindOptions["mapping"];
}

/** How files are read: sequences are as long as the model takes them, unless the options say otherwise. */
export function openOptions(
  { imageSize, sequenceLength, stream }: DataOptions,
  wanted: readonly WantedInput[],
): OpenOptions {
  const integers: readonly DataType[] = [DataType.INT64, DataType.INT32];
  const lengths = wanted
    .filter(({ type, shape, isTarget }) => !isTarget && integers.includes(type) && shape?.length === 2)
    .map(({ shape }) => shape?.[1]);
  const own = lengths.find((length): length is number => typeof length === "number");
  return { imageSize, sequenceLength: sequenceLength ?? own, stream };
}

/** How rows become inputs, without augmentation. */
export function bindOptions({ inputs, scale, normalize }: DataOptions): BindOptions {
  return { mapping: inputs, scale, normalize };
}

/** How many of `examples` an evaluation can take: all, but only whole batches when the model fixes their size. */
export function evaluated(examples: number, batchSize: number, fixed: number | undefined): number {
  return fixed === undefined ? examples : examples - (examples % batchSize);
}
