/** The options of `fishy train`: from the command line, and from a configuration that it wins over. */
import { basename, extname, join } from "node:path";
import { UsageError } from "../errors.js";
import { OPTIMIZER_NAMES, type OptimizerOptions } from "../optimizers/registry.js";
import type { RewriteOptions } from "../rewrite/rewrite.js";
import type { Metric } from "../training/best.js";
import type { Precision } from "../training/precision.js";
import { artifactOptimizer, isLoadedArtifacts, openSource } from "../training/source.js";
import type { TrainOptions } from "../training/train.js";
import { parseAssignments, type TrainConfig } from "./config.js";
import { type DataFlags, dataOptionsOf } from "./data-options.js";
import { type ModelFlags, rewriteOptionsOf } from "./model-options.js";
import { type SourceFlags, sourceOptionsOf } from "./source-options.js";

export interface TrainFlags extends ModelFlags, SourceFlags, DataFlags {
  config?: string;
  data?: string[];
  optimizer?: string;
  lr?: number;
  weightDecay?: number;
  option?: string[];
  batchSize?: number;
  accumulate?: number;
  statisticsBatch?: number | "separate";
  epochs?: number;
  steps?: number;
  seed?: number;
  out?: string;
  heldOut?: string[];
  shuffle: boolean;
  crop?: number;
  flip?: boolean;
  lastBatch?: "drop" | "pad";
  prefetch?: number;
  evaluateEvery?: number;
  metric?: Metric;
  patience?: number;
  minDelta?: number;
  keepBest?: boolean;
  averaged?: boolean;
  tensorboard?: boolean;
  checkpointEvery?: number;
  threads?: number;
  device?: string;
  stepsPerRun?: number;
  precision?: Precision;
  preconditionerDevice?: string;
  resume?: string | true;
  acceptChanges?: boolean;
  pauseAt?: number;
  dashboard?: number | true;
  quiet?: boolean;
  verbose?: boolean;
  json?: boolean;
}

/** Where runs and searches go that are given no folder. */
export const RUNS = "runs";
/** The options of a run from a configuration and, winning over it, the command line. */
export async function trainOptionsOf(
  config: TrainConfig,
  model: string | undefined,
  flags: TrainFlags,
): Promise<TrainOptions & { readonly outDir: string }> {
  const { model: configModel, out, rewrite, optimizer, data, ...run } = config;
  const path = model ?? configModel;
  const sources = sourceOptionsOf(flags);
  const { eval: evalModel, training: trainingModel } = sources.files ?? {};
  const shown = path ?? evalModel ?? trainingModel;
  if (shown === undefined) throw new UsageError("No model is given: fishy train MODEL, or 'model' in --config.");
  const paths = flags.data ?? data;
  if (paths === undefined) throw new UsageError("No data is given: --data FILE…, or 'data' in --config.");
  const source = await openSource(path, sources);
  const artifacts = isLoadedArtifacts(source) ? source : undefined;
  const optimizerOptions = optimizerOf(optimizer ?? (artifacts && artifactOptimizer(artifacts)), flags);
  if (flags.steps !== undefined) delete run.epochs;
  if (flags.epochs !== undefined) delete run.steps;
  const { augment, ...given } = runFlags(flags);
  return {
    ...run,
    ...given,
    ...(augment && { augment: mergeOptions(run.augment, augment) }),
    model: artifacts ?? (path as string),
    data: paths as string[],
    optimizer: optimizerOptions,
    rewrite: { ...(rewrite && rewriteOptionsOf(rewrite as ModelFlags)), ...rewriteOptionsOf(flags) } as RewriteOptions,
    outDir: flags.out ?? out ?? defaultFolder(shown, optimizerOptions.name),
  };
}

/**
 * Options with others in their place, those inside of options one by one: `schedule.warmup` leaves `schedule.kind`. Of
 * another kind, they are other options altogether.
 */
function mergeOptions<T>(base: unknown, given: T): T {
  if (!isOptions(base) || !isOptions(given)) return given;
  if (given.kind !== undefined && base.kind !== undefined && given.kind !== base.kind) return given;
  const merged: Record<string, unknown> = { ...base };
  for (const [name, value] of Object.entries(given)) merged[name] = mergeOptions(base[name], value);
  return merged as T;
}

function isOptions(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws UsageError when no optimizer is named. */
export function optimizerOf(config: TrainConfig["optimizer"], flags: TrainFlags): OptimizerOptions {
  const base = typeof config === "string" ? { name: config } : config;
  const name = flags.optimizer ?? base?.name;
  if (name === undefined) {
    throw new UsageError(
      `No optimizer is given: --optimizer ${OPTIMIZER_NAMES.join("|")}, or 'optimizer' in --config.`,
    );
  }
  return {
    // Options in the file are for the optimizer that the file names.
    ...(mergeOptions(base?.name === name ? base : {}, parseAssignments(flags.option ?? [])) as object),
    ...(flags.lr !== undefined && { learningRate: flags.lr }),
    ...(flags.weightDecay !== undefined && { weightDecay: flags.weightDecay }),
    name,
  } as OptimizerOptions;
}

/** The options of a run that flags give. */
export function runFlags(flags: TrainFlags): Partial<TrainOptions> {
  const { batchSize, epochs, steps, seed, heldOut, evaluateEvery, checkpointEvery, threads, device, stepsPerRun } =
    flags;
  const { metric, patience, minDelta, keepBest, averaged, crop, flip, lastBatch, prefetch, tensorboard } = flags;
  const evaluation = { evaluateEvery, metric, patience, minDelta, keepBest, averaged };
  const given = {
    batchSize,
    accumulation: flags.accumulate,
    statisticsBatch: flags.statisticsBatch,
    epochs,
    steps,
    seed,
    ...evaluation,
    checkpointEvery,
    threads,
    device,
    stepsPerRun,
    precision: flags.precision,
    preconditionerDevice: flags.preconditionerDevice,
    lastBatch,
    prefetch,
    tensorboard,
  };
  return {
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
    ...(heldOut && { heldOut: heldOutOf(heldOut) }),
    ...dataOptionsOf(flags),
    ...(!flags.shuffle && { shuffle: false }),
    ...((crop !== undefined || flip !== undefined) && {
      augment: { ...(crop !== undefined && { crop }), ...(flip && { flip }) },
    }),
  };
}

function heldOutOf(values: readonly string[]): number | string[] {
  const [only] = values;
  const number = values.length === 1 ? Number(only) : Number.NaN;
  return Number.isFinite(number) ? number : [...values];
}

function defaultFolder(model: string, optimizer: string): string {
  const time = new Date().toISOString().slice(0, 19).replace(/[-:]/g, "").replace("T", "-");
  return join(RUNS, `${basename(model, extname(model))}-${optimizer}-${time}`);
}
