/** `fishy tune CONFIG`: searches the options of a run. */
import { basename, extname, join, relative } from "node:path";
import { Command } from "commander";
import { z } from "zod";
import { UsageError } from "../errors.js";
import { number, option, parseOptions } from "../optimizers/options.js";
import { writePage } from "../report/page.js";
import { METRICS } from "../training/best.js";
import { formatSeconds } from "../training/progress.js";
import { formatValue, objectiveName, renderTuning } from "../tuning/page.js";
import { parseSpace, type SearchSpace, type Value, type Values, withValues } from "../tuning/space.js";
import { Study, type TrialResult } from "../tuning/study.js";
import { type TuneOptions, type TunePlan, type TuneResult, tune } from "../tuning/tune.js";
import { parseConfig, readConfigFile } from "./config.js";
import { parseInteger } from "./model-options.js";
import { formatTable } from "./table.js";
import { EXIT_INTERRUPTED } from "./train.js";
import { RUNS, trainOptionsOf } from "./train-options.js";

/** What `tune:` in the file may hold. */
const tuneConfig = z.strictObject({
  trials: option(number({ min: 1, integer: true }), 16, "Trials to start."),
  seed: option(number({ min: 0, integer: true }), 0, "Chooses the points."),
  metric: z.enum(METRICS).default("loss").describe("What tells which trial is the best."),
  of: z.enum(["held-out", "training"]).optional().describe("On which examples; default the held-out ones."),
  algorithm: z.enum(["quasi-random", "halving"]).default("quasi-random").describe("How trials are chosen."),
  minSteps: number({ min: 1, integer: true }).optional().describe("Steps of halving's first comparison."),
  factor: option(number({ min: 2 }), 3, "One of how many goes on in halving."),
  jobs: number({ min: 1, integer: true }).optional().describe("Trials at the same time; default by cores and memory."),
});

interface TuneFlags {
  out?: string;
  trials?: number;
  jobs?: number;
  seed?: number;
  quiet?: boolean;
  json?: boolean;
}

export function tuneCommand(): Command {
  return new Command("tune")
    .description("search the options of a run: quasi-random points or successive halving, trials in parallel processes")
    .argument("<config>", "a JSON or YAML file: the options of fishy train, with 'search' and 'tune'")
    .option("--out <dir>", "folder of the search, gone on with when it holds one; default runs/tune-CONFIG")
    .option("--trials <n>", "trials to start; default 16", parseInteger)
    .option("--jobs <n>", "trials at the same time; default by cores and memory", parseInteger)
    .option("--seed <n>", "chooses the points; default 0", parseInteger)
    .option("-q, --quiet", "no progress")
    .option("--json", "print the result as one line of JSON")
    .action(async (path: string, flags: TuneFlags) => {
      const { options, search } = await tuneOptionsOf(path, flags);
      const stop = new AbortController();
      const onSignal = () => {
        // The trials end by themselves when this process is gone.
        if (stop.signal.aborted) process.exit(EXIT_INTERRUPTED);
        say(flags, "stopping after the steps that run; Ctrl-C again ends at once");
        stop.abort();
      };
      process.on("SIGINT", onSignal);
      process.on("SIGTERM", onSignal);
      try {
        const result = await tune({ ...options, ...progressOf(search, flags), signal: stop.signal });
        const page = new Study(options.outDir).pageFile;
        writePage(page, renderTuning(search, result));
        process.stdout.write(
          `${flags.json ? jsonOf(result, options.outDir, page) : textOf(search, result, options.outDir, page)}\n`,
        );
        if (result.outcome === "interrupted") process.exitCode = EXIT_INTERRUPTED;
        else if (!result.best) process.exitCode = 1;
      } finally {
        process.off("SIGINT", onSignal);
        process.off("SIGTERM", onSignal);
      }
    });
}

async function tuneOptionsOf(path: string, flags: TuneFlags): Promise<{ options: TuneOptions; search: SearchSpace }> {
  const { search, tune: settings = {}, ...base } = readConfigFile(path);
  if (search === undefined) {
    throw new UsageError(
      `${path} searches nothing: give 'search', such as 'search: { optimizer.learningRate: { logUniform: [1e-4, 1e-1] } }'.`,
    );
  }
  const given = Object.fromEntries(
    Object.entries({ trials: flags.trials, jobs: flags.jobs, seed: flags.seed }).filter(
      ([, value]) => value !== undefined,
    ),
  );
  const what = `'tune' in ${path}`;
  if (typeof settings !== "object" || Array.isArray(settings)) {
    throw new UsageError(`${what} must be options, such as { trials: 20 }; got ${JSON.stringify(settings)}.`);
  }
  const parsed = parseOptions(tuneConfig, { ...settings, ...given }, what);
  const { trials, seed, metric, of, algorithm, minSteps, factor, jobs } = parsed;
  const halving = ["minSteps", "factor"].find((name) => settings !== null && name in settings);
  if (algorithm !== "halving" && halving !== undefined) {
    throw new UsageError(`${what}: ${halving} is for successive halving (algorithm: halving).`);
  }
  const { steps } = base as { steps?: number };
  const space = parseSpace(search, `'search' in ${path}`);
  const options: TuneOptions = {
    ...{ trials, seed, metric, search: space, base },
    ...(of && { of }),
    ...(jobs !== undefined && { jobs }),
    ...(algorithm === "halving" && {
      halving: { factor, minSteps: minSteps ?? Math.max(1, Math.ceil((steps ?? 1) / factor ** 2)) },
    }),
    outDir: flags.out ?? join(RUNS, `tune-${basename(path, extname(path))}`),
    configure: (values: Values) =>
      trainOptionsOf(parseConfig(withValues(base, values), path), undefined, { shuffle: true }),
  };
  return { options, search: space };
}

function say({ quiet }: TuneFlags, text: string): void {
  if (!quiet) process.stderr.write(`${text}\n`);
}

/** A line for each trial that ends. */
function progressOf(search: SearchSpace, flags: TuneFlags): Pick<TuneOptions, "onPlan" | "onResult"> {
  let name = "";
  return {
    onPlan(plan: TunePlan) {
      name = objectiveName(plan.objective);
      const { trials, jobs, threads, known, rungs } = plan;
      const parts = [
        `${trials} trials, ${jobs} at a time with ${threads} ${threads === 1 ? "thread" : "threads"} each`,
        rungs.length > 1 && `compared after ${rungs.join(", ")} steps`,
        `judged by the ${name}`,
        known > 0 && `${known} results are there already`,
      ];
      say(flags, parts.filter(Boolean).join(" · "));
    },
    onResult(result: TrialResult) {
      const values = Object.keys(search).map(
        (option) => `${shortName(option)} ${formatValue(result.values[option] as Value)}`,
      );
      const end = result.value === null ? `failed: ${result.error}` : `${name} ${formatValue(result.value)}`;
      const time = `${result.steps} steps in ${formatSeconds(result.seconds)}`;
      say(flags, `trial ${result.trial} · ${values.join(" · ")} · ${end} · ${time}`);
    },
  };
}

function shortName(option: string): string {
  return option.split(".").at(-1) as string;
}

function textOf(search: SearchSpace, result: TuneResult, outDir: string, page: string): string {
  const { results, best, objective, outcome } = result;
  const names = Object.keys(search);
  const header = ["trial", ...names, objectiveName(objective), "steps", "time", "outcome"];
  const rows = results.map((trial) => [
    trial.trial,
    ...names.map((option) => formatValue(trial.values[option] as Value)),
    trial.value === null ? "–" : formatValue(trial.value),
    trial.steps,
    formatSeconds(trial.seconds),
    trial.outcome,
  ]);
  return [
    formatTable(header, rows),
    "",
    ...(best ? [`Best: trial ${best.trial}, in ${join(outDir, best.directory)}`] : []),
    ...(outcome === "interrupted" ? ["Stopped; the same command goes on."] : best ? [] : ["No trial came to its end."]),
    `Results: ${relative(".", new Study(outDir).resultsFile)}`,
    `Picture: ${page}`,
  ].join("\n");
}

function jsonOf({ results, best, objective, outcome }: TuneResult, outDir: string, page: string): string {
  const located = (result: TrialResult) => ({ ...result, directory: join(outDir, result.directory) });
  const failed = results.filter((result) => result.value === null).length;
  return JSON.stringify({
    ...{ outcome, objective, trials: results.length, failed },
    ...(best && { best: located(best) }),
    ...{ directory: outDir, results: new Study(outDir).resultsFile, page },
  });
}
