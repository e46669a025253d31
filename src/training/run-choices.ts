/** What a run's options choose before its first step. */
import type { BatchSource } from "../data/source.js";
import { UsageError } from "../errors.js";
import type { Optimizer } from "../optimizers/optimizer.js";
import { type Device, parseDevice } from "../runtime/devices.js";
import { chooseDevice } from "../runtime/probe.js";
import { DEFAULT_EPOCHS, type ResolvedRunOptions } from "./options.js";
import type { RunSetup } from "./run.js";
import type { RunData } from "./run-data.js";
import { StatisticsBatches } from "./statistics-batches.js";

/** Where statistics are kept and roots refreshed; undefined for where steps run. */
export async function secondDevice({ preconditionerDevice }: ResolvedRunOptions): Promise<Device | undefined> {
  return preconditionerDevice === undefined
    ? undefined
    : (await chooseDevice(parseDevice(preconditionerDevice))).device;
}

/** The options that decide the numbers of a run. */
export function decidingOptions(
  { options, data }: RunSetup,
  run: { optimizer: Optimizer; device: Device; second: Device | undefined; batchSize: number; totalSteps: number },
) {
  const { optimizer, device, second, batchSize, totalSteps } = run;
  const { seed, shuffle, heldOut, splitSeed, inputs, scale, normalize, augment, imageSize } = options;
  const { sequenceLength, lastBatch, stream } = options;
  return {
    optimizer: options.optimizer ?? optimizer.name,
    ...{ totalSteps, batchSize, seed, shuffle, splitSeed, inputs, scale, normalize, augment, imageSize },
    ...{ sequenceLength, lastBatch, stream },
    ...(!data && { data: options.data, heldOut }),
    ...(options.accumulation > 1 && { accumulation: options.accumulation }),
    ...(options.statisticsBatch !== undefined && { statisticsBatch: options.statisticsBatch }),
    // Devices round differently.
    ...(device.kind !== "cpu" && { device: device.kind }),
    ...(options.precision !== "float32" && { precision: options.precision }),
    ...(second && second.kind !== device.kind && { preconditionerDevice: second.kind }),
  };
}

/**
 * The length of a run in steps.
 * @throws UsageError for epochs of a data stream.
 */
export function stepsOf(options: ResolvedRunOptions, source: BatchSource): number {
  if (options.steps !== undefined) return options.steps;
  if (source.batchesPerEpoch === undefined) {
    throw new UsageError(
      "The length of a data stream is not known beforehand. Give the number of steps instead of epochs.",
    );
  }
  const batches = (options.epochs ?? DEFAULT_EPOCHS) * source.batchesPerEpoch;
  return Math.max(1, Math.round(batches / options.accumulation));
}

/**
 * Batches for the statistics, where they are not the gradient's.
 * @throws UsageError for an optimizer without statistics, and for a data stream.
 */
export function statisticsBatches(
  { statisticsBatch }: ResolvedRunOptions,
  { source, statistics }: RunData,
  optimizer: Optimizer,
): StatisticsBatches | undefined {
  if (statisticsBatch === undefined) return undefined;
  if (!optimizer.emitStatistics) {
    throw new UsageError(`${optimizer.name} has no statistics to take on a batch of their own (statisticsBatch).`);
  }
  if (!statistics) {
    throw new UsageError(
      "Statistics on a batch of their own (statisticsBatch) need a dataset; the batches of a data stream come once and in one size.",
    );
  }
  return new StatisticsBatches(
    statistics(statisticsBatch === "separate" ? source.batchSize : statisticsBatch),
    optimizer,
  );
}
