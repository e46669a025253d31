/** What a report shows of runs: read from their folders, thinned, and compared. */
import { basename, dirname, resolve } from "node:path";
import { FishyError } from "../errors.js";
import type { Outcome } from "../training/loop.js";
import { readMetrics, type StepRecord } from "../training/metrics.js";
import { RunDirectory, type StoredOptions } from "../training/run-directory.js";
import { type Abscissae, abscissae, type Curve, curveOf, ordinates } from "./curves.js";
import { type SectionDiagnostics, type SectionOf, sectionDiagnostics } from "./sections.js";

/** A run's folder, and what to call the run. */
export type RunReference = string | NamedRun;

/** A run's folder, and what to call the run. */
export interface NamedRun {
  readonly directory: string;
  readonly name?: string;
  /** The section of each parameter (`readSections`); block metrics are shown only with it. */
  readonly sections?: SectionOf | undefined;
}

/** What a report shows of a run. */
export interface ReportRun {
  readonly name: string;
  readonly optimizer: string;
  readonly summary: {
    readonly steps: number;
    /** How it ended; null while it goes on, or when it was killed. */
    readonly outcome: Outcome | null;
    readonly trainLoss: number | null;
    readonly heldOutLoss: number | null;
    readonly heldOutAccuracy: number | null;
    /** The last values of the other metrics, by their names on the page. */
    readonly heldOutMetrics: Readonly<Record<string, number>>;
    readonly seconds: number;
    readonly secondsPerStep: number | null;
  };
  readonly train: Abscissae & { readonly loss: readonly number[]; readonly rate: readonly number[] };
  readonly heldOut: Abscissae & {
    readonly loss: readonly number[];
    readonly accuracy: readonly number[];
    readonly metrics: Readonly<Record<string, readonly number[]>>;
  };
  readonly diagnostics: Readonly<Record<string, Curve>>;
  readonly sectionDiagnostics: SectionDiagnostics;
}

/** An option of the runs, side by side. */
export interface ReportOption {
  readonly name: string;
  /** One for each run; null where the run has no such option. */
  readonly values: readonly (string | null)[];
  readonly differs: boolean;
}

/** What a report shows. */
export interface ReportData {
  readonly runs: readonly ReportRun[];
  readonly options: readonly ReportOption[];
}

/** What evaluations measure beside loss and accuracy: the page's name by the records' field. */
const METRIC_NAMES = {
  held_out_top5: "Top-5 accuracy",
  held_out_perplexity: "Perplexity",
  held_out_reconstruction_error: "Squared error per element",
} as const;

/**
 * Reads runs for a report.
 * @throws FishyError when a folder holds no run or a run has no steps yet.
 */
export function collectRuns(references: readonly RunReference[]): ReportData {
  if (references.length === 0) throw new FishyError("A report needs at least one run.");
  const located = references.map(
    (reference): NamedRun => (typeof reference === "string" ? { directory: reference } : reference),
  );
  const names = uniqueNames(located);
  const stored = located.map(({ directory }) => new RunDirectory(directory).readOptions());
  return {
    runs: located.map((run, i) => collectRun(run, names[i] as string, stored[i] as StoredOptions)),
    options: compareOptions(stored),
  };
}

/** Given names, else the folders' names, with as much of the path as tells them apart. */
function uniqueNames(runs: readonly NamedRun[]): string[] {
  const folders = runs.map(({ directory }) => resolve(directory));
  const short = runs.map(({ name }, i) => name ?? basename(folders[i] as string));
  return short.map((name, i) => {
    const same = short.filter((other) => other === name).length > 1;
    if (!same) return name;
    const folder = folders[i] as string;
    const longer = `${basename(dirname(folder))}/${basename(folder)}`;
    return runs[i]?.name === undefined && folders.filter((other) => other.endsWith(longer)).length === 1
      ? longer
      : `${name} (${i + 1})`;
  });
}

function collectRun({ directory, sections }: NamedRun, name: string, stored: StoredOptions): ReportRun {
  const run = new RunDirectory(directory);
  const records = readMetrics(run.metricsFile);
  const last = records.at(-1);
  if (!last) throw new FishyError(`The run ${directory} has no steps yet.`);
  const result = run.readResult();
  const evaluated = records.filter((record) => record.held_out_loss !== undefined);
  const lastEvaluated = evaluated.at(-1);
  const metrics = (Object.keys(METRIC_NAMES) as (keyof typeof METRIC_NAMES)[]).filter(
    (field) => lastEvaluated?.[field] !== undefined,
  );
  const optimizer = stored.run.optimizer as { name?: string } | undefined;
  return {
    name,
    optimizer: optimizer?.name ?? "–",
    summary: {
      steps: last.step,
      outcome: result?.outcome ?? null,
      trainLoss: result?.train?.loss ?? null,
      heldOutLoss: result?.heldOut?.loss ?? lastEvaluated?.held_out_loss ?? null,
      heldOutAccuracy: result?.heldOut?.accuracy ?? lastEvaluated?.held_out_accuracy ?? null,
      heldOutMetrics: Object.fromEntries(
        metrics.map((field) => [METRIC_NAMES[field], lastEvaluated?.[field] as number]),
      ),
      seconds: last.seconds,
      secondsPerStep: last.seconds / last.step,
    },
    train: {
      ...abscissae(records),
      loss: ordinates(records, (record) => record.loss),
      rate: ordinates(records, (record) => record.learning_rate),
    },
    heldOut: {
      ...abscissae(evaluated),
      loss: ordinates(evaluated, (record) => record.held_out_loss as number),
      accuracy:
        lastEvaluated?.held_out_accuracy === undefined
          ? []
          : ordinates(evaluated, (record) => record.held_out_accuracy as number),
      metrics: Object.fromEntries(
        metrics.map((field) => [METRIC_NAMES[field], ordinates(evaluated, (record) => record[field] as number)]),
      ),
    },
    diagnostics: collectDiagnostics(records),
    sectionDiagnostics: sections ? sectionDiagnostics(records, run.readBlocks(), sections) : {},
  };
}

function collectDiagnostics(records: readonly StepRecord[]): ReportRun["diagnostics"] {
  const names = new Set(records.flatMap((record) => Object.keys(record.diagnostics ?? {})));
  return Object.fromEntries([...names].map((name) => [name, curveOf(records, (record) => record.diagnostics?.[name])]));
}

/** Options of all runs side by side, nested names joined with dots. */
function compareOptions(stored: readonly StoredOptions[]): ReportOption[] {
  const flat = stored.map(({ model, rewrite, run }) => flatten({ model, rewrite, ...run }));
  const names = [...new Set(flat.flatMap((options) => [...options.keys()]))];
  return names.map((name) => {
    const values = flat.map((options) => options.get(name) ?? null);
    return { name, values, differs: new Set(values).size > 1 };
  });
}

function flatten(value: unknown, prefix = ""): Map<string, string> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const text = Array.isArray(value) ? value.map(entryText).join(", ") : String(value);
    return new Map(value === undefined || value === null ? [] : [[prefix, text]]);
  }
  return new Map(
    Object.entries(value).flatMap(([key, inner]) => [...flatten(inner, prefix ? `${prefix}.${key}` : key)]),
  );
}

/** An entry of a list; a boundary of a plan is an object. */
function entryText(entry: unknown): string {
  return typeof entry === "object" && entry !== null ? JSON.stringify(entry) : String(entry);
}
