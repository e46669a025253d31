/** `fishy train MODEL --data … --optimizer …`: trains a source model or a training program. */
import { basename, dirname, extname, join, resolve } from "node:path";
import { Command, Option } from "commander";
import { UsageError } from "../errors.js";
import { OPTIMIZER_NAMES, type OptimizerOptions, parseOptimizerOptions } from "../optimizers/registry.js";
import { Dashboard } from "../report/dashboard.js";
import type { RewriteOptions } from "../rewrite/rewrite.js";
import { DEVICE_SYNTAX } from "../runtime/devices.js";
import { METRICS, type Metric } from "../training/best.js";
import { isCheckpoint } from "../training/checkpoint.js";
import type { RunOptions } from "../training/options.js";
import { PRECISIONS, type Precision } from "../training/precision.js";
import { Progress } from "../training/progress.js";
import { latestRun, RunDirectory } from "../training/run-directory.js";
import { artifactOptimizer, isLoadedArtifacts, openSource } from "../training/source.js";
import { type FollowOptions, resume, type TrainOptions, type TrainResult, train } from "../training/train.js";
import { parseAssignments, readConfig, type TrainConfig } from "./config.js";
import { addDataOptions, DATA_FORMATS, type DataFlags, dataOptionsOf } from "./data-options.js";
import { addModelOptions, type ModelFlags, parseInteger, parseNumber, rewriteOptionsOf } from "./model-options.js";
import { addSourceOptions, type SourceFlags, sourceOptionsOf } from "./source-options.js";
import { formatResult, summaryOf } from "./train-result.js";

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
/** The run, or the search, was stopped by Ctrl-C and saved. */
export const EXIT_INTERRUPTED = 130;

export function trainCommand(): Command {
  const command = new Command("train")
    .description("train a model, or a training program made by fishy rewrite")
    .argument(
      "[model]",
      "an ONNX model, a folder of ONNX Runtime's training artifacts, or a training program; or given by --config",
    )
    .option("--config <file>", "options from a JSON or YAML file; flags win")
    .option("--data <paths...>", DATA_FORMATS)
    .addOption(
      new Option("--optimizer <name>", "how to train; default that of training artifacts").choices([
        ...OPTIMIZER_NAMES,
      ]),
    )
    .option("--lr <rate>", "learning rate", parseNumber)
    .option("--weight-decay <rate>", "weight decay", parseNumber)
    .option("-O, --option <assignments...>", "any other option of the optimizer: NAME=VALUE, nested with dots")
    .option("--batch-size <n>", "examples in a batch; default 128", parseInteger)
    .option("--accumulate <n>", "batches whose gradients a step takes together; default 1", parseInteger)
    .option(
      "--statistics-batch <n>",
      "take the statistics on a batch of their own, of n examples; separate: as many as a batch",
      (text) => (text === "separate" ? text : parseInteger(text)),
    )
    .option("--epochs <n>", "passes over the data; default 10", parseNumber)
    .option("--steps <n>", "steps, instead of epochs", parseInteger)
    .option("--seed <n>", "seeds the order of the data and the sampling; default 0", parseInteger)
    .option("--out <dir>", "folder of the run; default runs/MODEL-OPTIMIZER-TIME")
    .option("--held-out <what...>", "a fraction, a number of examples, or files: evaluated, not trained on")
    .option("--no-shuffle", "keep the order of the data")
    .option("--crop <pixels>", "augment images: shift them by up to as many pixels", parseInteger)
    .option("--flip", "augment images: mirror half of them")
    .addOption(
      new Option("--last-batch <how>", "examples left at an epoch's end: drop, or pad with its first ones").choices([
        "drop",
        "pad",
      ]),
    )
    .option(
      "--prefetch <n>",
      "batches made ahead by a thread of their own; default 2 for streamed and augmented data",
      parseInteger,
    )
    .option("--evaluate-every <n>", "steps between evaluations of what is held out; default one epoch", parseInteger)
    .addOption(
      new Option("--metric <name>", "what tells which evaluation is the best; default loss").choices([...METRICS]),
    )
    .option("--patience <n>", "stop after as many evaluations without a better one", parseInteger)
    .option("--min-delta <x>", "by how much an evaluation must be better; default 0", parseNumber)
    .option("--averaged", "evaluate and export the averages of the parameters (-O averageDecay=0.999)")
    .option("--keep-best", "keep the checkpoint of the best evaluation, and write its model")
    .option("--checkpoint-every <n>", "steps between checkpoints; default only at the end", parseInteger)
    .option("--tensorboard", "write TensorBoard's event files into the run's folder")
    .option("--device <name>", `where steps run: ${DEVICE_SYNTAX}; default cpu`)
    .option(
      "--steps-per-run <n>",
      "steps that run without a return to this process; default 1 on the CPU, up to 64 with CUDA",
      parseInteger,
    )
    .option("--preconditioner-device <name>", "a second device for statistics and roots: cpu, cuda or cuda:N")
    .addOption(
      new Option(
        "--precision <type>",
        "matrix products and convolutions of the forward and backward passes; default float32",
      ).choices([...PRECISIONS]),
    )
    .option("--threads <n>", "threads of ONNX Runtime; default one for each core", parseInteger)
    .option(
      "--resume [dir]",
      "go on with a run, or from a checkpoint, bit for bit as if it had never stopped; latest (default) is the newest in runs/",
    )
    .option("--accept-changes", "go on although options differ from those of the checkpoint")
    .option("--pause-at <step>", "end after this step, evaluated and saved; --resume goes on from there", parseInteger)
    .option(
      "--dashboard [port]",
      "the report of the run while it goes on, at 127.0.0.1; default any free port",
      parseInteger,
    )
    .option("-q, --quiet", "no progress")
    .option("-v, --verbose", "progress with the optimizer's diagnostics")
    .option("--json", "print the result as one line of JSON");
  return addSourceOptions(addModelOptions(addDataOptions(command))).action(
    async (model: string | undefined, flags: TrainFlags) => {
      const { directory, start } = flags.resume ? resumedRun(model, flags) : await newRun(model, flags);
      const dashboard = await startDashboard(directory, flags);
      const progress = flags.quiet ? undefined : new Progress({ verbose: flags.verbose ?? false });
      const { pauseAt } = flags;
      let result: TrainResult;
      try {
        result = await start({
          handleSignals: true,
          ...(pauseAt !== undefined && { pauseAt }),
          ...progress?.hooks,
          onPlan(plan) {
            if (dashboard) dashboard.totalSteps = plan.totalSteps;
            progress?.hooks.onPlan(plan);
          },
        });
      } finally {
        progress?.finish();
        await dashboard?.close();
      }
      process.stdout.write(`${flags.json ? JSON.stringify(summaryOf(result)) : formatResult(result)}\n`);
      if (result.outcome === "interrupted") process.exitCode = EXIT_INTERRUPTED;
    },
  );
}

/** A run that is ready to start, and its folder. */
interface ReadyRun {
  readonly directory: string;
  start(follow: FollowOptions): Promise<TrainResult>;
}

async function newRun(model: string | undefined, flags: TrainFlags): Promise<ReadyRun> {
  const options = await trainOptionsOf(flags.config ? readConfig(flags.config) : {}, model, flags);
  return { directory: options.outDir, start: (follow) => train({ ...options, ...follow }) };
}

async function startDashboard(directory: string, { dashboard: port }: TrainFlags): Promise<Dashboard | undefined> {
  if (port === undefined) return undefined;
  const dashboard = await Dashboard.start({ directory, ...(port !== true && { port }) });
  process.stderr.write(`Dashboard: ${dashboard.url}\n`);
  return dashboard;
}

/** What may be given again beside `--resume`: anything that the run was started with. */
function resumedRun(model: string | undefined, flags: TrainFlags): ReadyRun {
  const config: TrainConfig = flags.config ? readConfig(flags.config) : {};
  const { model: configModel, out, rewrite, optimizer, data, ...run } = config;
  const where =
    flags.resume === true || flags.resume === "latest" ? (flags.out ?? latestRun(RUNS)) : (flags.resume as string);
  const checkpoint = isCheckpoint(where) ? { checkpoint: where } : {};
  const directory = isCheckpoint(where) ? dirname(where) : where;
  const stored = new RunDirectory(directory).readOptions();
  const given = model ?? configModel;
  if (given !== undefined && (stored.model === null || resolve(given) !== resolve(stored.model))) {
    throw new UsageError(`The run ${directory} trains ${stored.model ?? "a model from memory"}, not ${given}.`);
  }
  const program = { ...(rewrite && rewriteOptionsOf(rewrite as ModelFlags)), ...rewriteOptionsOf(flags) };
  const differing = Object.entries(program).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(stored.rewrite[name as keyof RewriteOptions]),
  );
  if (differing.length > 0) {
    throw new UsageError(
      `The run ${directory} has a training program already, which other options would change: ${differing.map(([name]) => name).join(", ")}. Start a new run.`,
    );
  }
  const changesOptimizer = [optimizer, flags.optimizer, flags.lr, flags.weightDecay, flags.option].some(Boolean);
  const own = optimizer ?? (stored.run.optimizer as TrainConfig["optimizer"]);
  const paths = flags.data ?? data;
  const changes = {
    ...run,
    ...runFlags(flags),
    ...(paths !== undefined && { data: paths }),
    ...(changesOptimizer && { optimizer: parseOptimizerOptions(optimizerOf(own, flags)) }),
  } as Partial<RunOptions>;
  const orders = { ...checkpoint, changes, acceptChanges: flags.acceptChanges ?? false };
  return { directory, start: (follow) => resume(directory, { ...follow, ...orders }) };
}

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
  return {
    ...run,
    ...runFlags(flags),
    model: artifacts ?? (path as string),
    data: paths as string[],
    optimizer: optimizerOptions,
    rewrite: { ...(rewrite && rewriteOptionsOf(rewrite as ModelFlags)), ...rewriteOptionsOf(flags) } as RewriteOptions,
    outDir: flags.out ?? out ?? defaultFolder(shown, optimizerOptions.name),
  };
}

function optimizerOf(config: TrainConfig["optimizer"], flags: TrainFlags): OptimizerOptions {
  const base = typeof config === "string" ? { name: config } : config;
  const name = flags.optimizer ?? base?.name;
  if (name === undefined) {
    throw new UsageError(
      `No optimizer is given: --optimizer ${OPTIMIZER_NAMES.join("|")}, or 'optimizer' in --config.`,
    );
  }
  return {
    // Options in the file are for the optimizer that the file names.
    ...(base?.name === name && base),
    ...parseAssignments(flags.option ?? []),
    ...(flags.lr !== undefined && { learningRate: flags.lr }),
    ...(flags.weightDecay !== undefined && { weightDecay: flags.weightDecay }),
    name,
  } as OptimizerOptions;
}

function runFlags(flags: TrainFlags): Partial<TrainOptions> {
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
