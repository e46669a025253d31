/** `fishy train MODEL --data … --optimizer …`: trains a source model or a training program. */
import { dirname, resolve } from "node:path";
import { Command, Option } from "commander";
import { UsageError } from "../errors.js";
import { OPTIMIZER_NAMES, parseOptimizerOptions } from "../optimizers/registry.js";
import { Dashboard } from "../report/dashboard.js";
import type { RewriteOptions } from "../rewrite/rewrite.js";
import { DEVICE_SYNTAX } from "../runtime/devices.js";
import { METRICS } from "../training/best.js";
import { isCheckpoint } from "../training/checkpoint.js";
import type { RunOptions } from "../training/options.js";
import { PRECISIONS } from "../training/precision.js";
import { Progress } from "../training/progress.js";
import { latestRun, RunDirectory } from "../training/run-directory.js";
import { type FollowOptions, resume, type TrainResult, train } from "../training/train.js";
import { readConfig, type TrainConfig } from "./config.js";
import { addDataOptions, DATA_FORMATS } from "./data-options.js";
import { addModelOptions, type ModelFlags, parseInteger, parseNumber, rewriteOptionsOf } from "./model-options.js";
import { addSourceOptions } from "./source-options.js";
import { optimizerOf, RUNS, runFlags, type TrainFlags, trainOptionsOf } from "./train-options.js";
import { formatResult, summaryOf } from "./train-result.js";

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
  if (flags.out !== undefined && resolve(flags.out) !== resolve(directory)) {
    throw new UsageError(`--resume goes on in ${directory}, not in --out ${flags.out}. Leave --out out.`);
  }
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
