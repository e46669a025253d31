/** A search over options: trials in processes of their own, recorded as they end, resumable at any point. */
import { join } from "node:path";
import { messageOf, UsageError } from "../errors.js";
import type { Metric } from "../training/best.js";
import { readMetrics } from "../training/metrics.js";
import { RunDirectory } from "../training/run-directory.js";
import { checkTrainOptions, resume, type TrainOptions, type TrainResult, train } from "../training/train.js";
import { haltonPoint } from "./halton.js";
import { type Job, nextJob, rungsOf } from "./halving.js";
import { type Share, shareMachine } from "./jobs.js";
import { costOf, type Objective, objectiveOf, rank, worthOf } from "./objective.js";
import { corners, parseSpace, type SearchSpace, type Values, valuesAt } from "./space.js";
import { Study, type StudyOptions, type TrialResult } from "./study.js";

/** What to search, how trials are judged, and where they go. */
export interface TuneOptions {
  /** What is searched, by names that `configure` understands. */
  readonly search: SearchSpace;
  /** The run of a trial. It gets the run's folder, and threads where it names none. */
  configure(values: Values): TrainOptions | Promise<TrainOptions>;
  /** The folder of the search; one that holds a search already is gone on with. */
  readonly outDir: string;
  /** Trials to start. Default 16. */
  readonly trials?: number;
  /** Chooses the points. Default 0. */
  readonly seed?: number;
  /** What tells which trial is the best. Default the loss. */
  readonly metric?: Metric;
  /** On which examples. Default those held out; without any, those of training. */
  readonly of?: Objective["of"];
  /** Successive halving: trials are compared at fractions of their steps, and the best part of them goes on. */
  readonly halving?: HalvingOptions;
  /** Trials at the same time. Default by cores and memory. */
  readonly jobs?: number;
  /** The options that all trials share, as written down: a search with others is not gone on with. */
  readonly base?: unknown;
  /** Aborted: the trials that run are saved, and the search returns. */
  readonly signal?: AbortSignal;
  /** Before the first trial. */
  onPlan?(plan: TunePlan): void;
  /** When a trial begins, or goes on to the next rung. */
  onStart?(job: Job, values: Values): void;
  /** When a trial has reached a rung or failed. */
  onResult?(result: TrialResult): void;
}

/** Where halving compares trials. */
export interface HalvingOptions {
  /** Steps of the first comparison. */
  readonly minSteps: number;
  /** One of how many goes on. Default 3. */
  readonly factor?: number;
}

/** How a search is going to run. */
export interface TunePlan extends Share {
  readonly trials: number;
  /** Results that the folder holds already. */
  readonly known: number;
  readonly rungs: StudyOptions["rungs"];
  readonly objective: Objective;
}

/** What a search ended with. */
export interface TuneResult {
  readonly outcome: "completed" | "interrupted";
  readonly objective: Objective;
  readonly rungs: StudyOptions["rungs"];
  /** The furthest result of each trial, the best first. */
  readonly results: readonly TrialResult[];
  /** Absent when no trial reached the last rung. */
  readonly best?: TrialResult;
}

const DEFAULT_TRIALS = 16;
const DEFAULT_FACTOR = 3;
/** As many first trials that all fail before their first step say that it is no matter of their values. */
const MOST_EARLY_FAILURES = 3;

/**
 * Searches.
 * @throws UsageError for a space or options that are wrong, before anything runs; FishyError when the first three
 * trials fail before their first step, which is no matter of their values, and when the folder is in use.
 */
export async function tune(options: TuneOptions): Promise<TuneResult> {
  const { trials = DEFAULT_TRIALS, seed = 0, outDir } = options;
  if (!Number.isInteger(trials) || trials < 1) {
    throw new UsageError(`trials must be a whole number of at least 1; got ${trials}.`);
  }
  const search = parseSpace(options.search, "search");
  const samples: TrainOptions[] = [];
  for (const values of corners(search)) samples.push(await options.configure(values));
  for (const sample of samples) checkTrainOptions(sample);
  const [sample] = samples as [TrainOptions];
  const objective = objectiveOf(options, sample);
  const factor = options.halving?.factor ?? DEFAULT_FACTOR;
  const rungs = rungsFor(options.halving, samples, factor);
  const share = shareMachine(options.jobs, sample, trials);

  const study = new Study(outDir);
  const known = await study.open({ search, seed, objective, rungs, factor, base: options.base ?? null });
  try {
    options.onPlan?.({ trials, ...share, known: known.length, rungs, objective });
    const scheduler = new Scheduler({ options, study, search, seed, objective, rungs, factor, trials, share }, known);
    await scheduler.run();
    const results = rank(scheduler.results, objective);
    const best = results.find((result) => result.rung === rungs.length - 1 && result.value !== null);
    const outcome = options.signal?.aborted ? "interrupted" : "completed";
    return { outcome, objective, rungs, results, ...(best && { best }) };
  } finally {
    study.close();
  }
}

interface Parts {
  readonly options: TuneOptions;
  readonly study: Study;
  readonly search: SearchSpace;
  readonly seed: number;
  readonly objective: Objective;
  readonly rungs: StudyOptions["rungs"];
  readonly factor: number;
  readonly trials: number;
  readonly share: Share;
}

/** Keeps as many trials running as there may be, until there is nothing more to run. */
class Scheduler {
  readonly results: TrialResult[];
  private readonly reached: Map<number, number>[];
  private readonly running: Set<number>[];
  /** Trials begin in their order; those without a result at the start of a search were stopped, and begin again. */
  private readonly started = new Set<number>();
  private readonly active = new Map<number, Promise<void>>();
  private failure: Error | undefined;
  /** Failures before the first step, while no trial has come further. */
  private readonly early: TrialResult[] = [];

  constructor(
    private readonly parts: Parts,
    known: readonly TrialResult[],
  ) {
    this.reached = parts.rungs.map(() => new Map());
    this.running = parts.rungs.map(() => new Set());
    this.results = [...known];
    for (const result of known) {
      this.note(result);
      this.started.add(result.trial);
    }
  }

  async run(): Promise<void> {
    const { options, share } = this.parts;
    while (!options.signal?.aborted && !this.failure) {
      const job = this.active.size < share.jobs ? this.next() : undefined;
      if (job) this.start(job);
      else if (this.active.size > 0) await Promise.race(this.active.values());
      else break;
    }
    await Promise.all(this.active.values());
    if (this.failure) throw this.failure;
  }

  private next(): Job | undefined {
    const { reached, running, started } = this;
    const { trials, factor } = this.parts;
    const job = nextJob({ reached, running, started: started.size, trials, factor });
    if (job?.rung !== 0) return job;
    let trial = 0;
    while (started.has(trial)) trial++;
    return { trial, rung: 0 };
  }

  private start(job: Job): void {
    const { trial, rung } = job;
    this.started.add(trial);
    this.running[rung]?.add(trial);
    const ended = this.train(job)
      .catch((error: Error) => {
        this.failure ??= error;
      })
      .finally(() => {
        this.running[rung]?.delete(trial);
        this.active.delete(trial);
      });
    this.active.set(trial, ended);
  }

  private async train(job: Job): Promise<void> {
    const { options, study, search, seed, objective, trials } = this.parts;
    const values = valuesAt(search, haltonPoint(job.trial, Object.keys(search).length, seed));
    const directory = study.trialFolder(job.trial);
    const run = new RunDirectory(join(options.outDir, directory));
    const common = { ...job, values, directory };
    options.onStart?.(job, values);
    try {
      const result = await this.runTrial(run, values, job.rung);
      const { outcome, steps, seconds, train, heldOut } = result;
      if (outcome === "interrupted") return;
      const value = worthOf(objective, result);
      this.record({ ...common, outcome, value, steps, seconds, ...(train && { train }), ...(heldOut && { heldOut }) });
    } catch (error) {
      const last = readMetrics(run.metricsFile).at(-1);
      // What the values do not decide, such as a metric that is not measured.
      if (last && error instanceof UsageError) throw error;
      const { step: steps = 0, seconds = 0 } = last ?? {};
      const failed = { ...common, outcome: "failed", value: null, steps, seconds, error: messageOf(error) } as const;
      if (last || this.results.length > 0) this.record(failed);
      else if (this.early.push(failed) >= Math.min(MOST_EARLY_FAILURES, trials)) throw error;
      else this.note(failed);
    }
  }

  /** Starts a trial's run, or goes on with what its folder holds. */
  private async runTrial(run: RunDirectory, values: Values, rung: number): Promise<TrainResult> {
    const { options, rungs, share } = this.parts;
    const pauseAt = rung < rungs.length - 1 ? (rungs[rung] as number) : undefined;
    const { signal } = options;
    const follow = { isolate: true, ...(pauseAt !== undefined && { pauseAt }), ...(signal && { signal }) };
    if (run.exists) return resume(run.path, follow);
    const own = await options.configure(values);
    return train({ ...own, ...follow, threads: own.threads ?? share.threads, outDir: run.path });
  }

  private record(result: TrialResult): void {
    for (const failed of this.early.splice(0)) this.record(failed);
    this.parts.study.append(result);
    this.results.push(result);
    this.note(result);
    this.parts.options.onResult?.(result);
  }

  private note({ trial, rung, value }: TrialResult): void {
    this.reached[rung]?.set(trial, costOf(this.parts.objective, value));
  }
}

function rungsFor(
  halving: HalvingOptions | undefined,
  samples: readonly TrainOptions[],
  factor: number,
): (number | null)[] {
  const lengths = new Set(samples.map((run) => (run.steps as number | undefined) ?? null));
  const [steps = null] = [...lengths];
  if (!halving) return [lengths.size === 1 ? steps : null];
  if (lengths.size !== 1 || steps === null) {
    throw new UsageError(
      "Successive halving compares trials at fractions of their steps: give 'steps', the same for all.",
    );
  }
  const { minSteps } = halving;
  if (!Number.isInteger(minSteps) || minSteps < 1 || minSteps > steps) {
    throw new UsageError(`minSteps must be a whole number from 1 to the ${steps} steps of a trial; got ${minSteps}.`);
  }
  if (!(factor >= 2)) throw new UsageError(`The factor of successive halving must be at least 2; got ${factor}.`);
  return rungsOf(steps, minSteps, factor);
}
