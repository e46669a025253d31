/** Training, as the library and the command line offer it. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { LoadedArtifacts } from "../artifacts/load.js";
import type { Dataset } from "../data/dataset.js";
import { FishyError, UsageError } from "../errors.js";
import type { ExternalSource } from "../onnx/external.js";
import type { ModelProto } from "../onnx/proto.js";
import { type OptimizerOptions, parseOptimizerOptions } from "../optimizers/registry.js";
import { readManifest, type TrainingProgram } from "../rewrite/manifest.js";
import { type RewriteOptions, rewrite } from "../rewrite/rewrite.js";
import { listCheckpoints } from "./checkpoint.js";
import { interruptible } from "./interrupt.js";
import { startIsolated } from "./isolate.js";
import { type Moments, momentsOf } from "./moments.js";
import { parseRunOptions, type RunOptions } from "./options.js";
import { type OptimizerFactory, type RunEvents, type RunResult, type RunSetup, runTraining } from "./run.js";
import type { MemoryData } from "./run-data.js";
import { type LocatedProgram, RunDirectory, type StoredOptions } from "./run-directory.js";
import { artifactRewriteOptions, isLoadedArtifacts, openSource } from "./source.js";
import type { TrainingState } from "./state.js";

/** A model in memory; `directory` is where its external data lies. */
export interface MemoryModel extends ExternalSource {
  readonly proto: ModelProto;
}

/** How to follow and to stop a run. */
export interface FollowOptions extends RunEvents {
  /** Aborted: the step ends, the run is saved and returns with the outcome `interrupted`. */
  readonly signal?: AbortSignal;
  /**
   * Take Ctrl-C (SIGINT) and SIGTERM of this process: the first as `signal`, a second ends at once. Default false.
   * @throws InterruptedError from the second.
   */
  readonly handleSignals?: boolean;
  /**
   * Train in a process of its own, which keeps this one free. Default: true when the run has a folder and its data and
   * optimizer can be written down.
   */
  readonly isolate?: boolean;
  /**
   * Ends after this step: evaluated and saved as after the last, with the outcome `paused`; `resume` goes on from there
   * as if it had not. Schedules follow the whole length.
   */
  readonly pauseAt?: number;
}

/** What to train, on which data, with which optimizer, and where the run goes. */
export interface TrainOptions extends Omit<RunOptions, "data" | "heldOut" | "optimizer">, FollowOptions {
  /**
   * A source model, ONNX Runtime's training artifacts (a folder, or what `loadArtifacts` gave), or a training program:
   * a path, or in memory.
   */
  readonly model: string | MemoryModel | LoadedArtifacts | TrainingProgram;
  /** How a source model is rewritten. `sections` defaults to what the optimizer needs. */
  readonly rewrite?: RewriteOptions;
  /** Paths (each `PATH` or `NAME=PATH`), a dataset in memory, or a function that opens the batches of an epoch. */
  readonly data: string | readonly string[] | MemoryData;
  /** A fraction, a number of examples, paths, or a dataset in memory. */
  readonly heldOut?: number | string | readonly string[] | Dataset;
  readonly optimizer: OptimizerOptions | OptimizerFactory;
  /** The run's folder; without it nothing is written. */
  readonly outDir?: string;
}

/** What a run ended with. */
export interface TrainResult extends Omit<RunResult, "state"> {
  /** The run's folder. */
  readonly directory?: string;
  /**
   * Parameters and optimizer state at the end, with `keepBest` those of the best evaluation; absent when the run had a
   * process of its own.
   */
  readonly state?: TrainingState;
}

/**
 * Trains a model.
 * @throws UsageError for options that are wrong; FishyError for a model or data that do not fit, and for a loss that
 * is not finite.
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const { optimizer } = options;
  const { memoryData, memoryHeldOut, factory, resolved } = parseTrainOptions(options);
  const inMemory = [memoryData && "data", memoryHeldOut && "held-out data", factory && "an optimizer"].filter(Boolean);
  const isolate = options.isolate ?? (options.outDir !== undefined && inMemory.length === 0);
  if (isolate && inMemory.length > 0) {
    throw new UsageError(
      `A run with ${inMemory.join(" and ")} from memory cannot have a process of its own (isolate: true).`,
    );
  }
  if (isolate && options.outDir === undefined) {
    throw new UsageError("A run in a process of its own (isolate: true) needs a folder (outDir).");
  }

  const sections = defaultSections(factory ? undefined : (optimizer as OptimizerOptions).name);
  const { program, source, moments, path } = await openProgram(options.model, options.rewrite ?? {}, sections);
  let directory: RunDirectory | undefined;
  if (options.outDir !== undefined) {
    directory = new RunDirectory(options.outDir);
    const stored: StoredOptions = {
      fishy: version(),
      model: path ?? null,
      rewrite: options.rewrite ?? {},
      run: resolved,
    };
    await directory.create(stored, program, source, moments);
  }
  const setup: RunSetup = {
    program,
    options: resolved,
    data: memoryData,
    heldOut: memoryHeldOut,
    optimizer: factory,
    directory,
    source,
    moments,
  };
  return follow(setup, options, isolate);
}

/**
 * Checks the options of `train` as far as that goes without the model and the data.
 * @throws UsageError for options that are wrong.
 */
export function checkTrainOptions(options: TrainOptions): void {
  parseTrainOptions(options);
}

function parseTrainOptions(options: TrainOptions) {
  const { data, heldOut, optimizer } = options;
  const memoryData = isPaths(data) ? undefined : data;
  const memoryHeldOut = typeof heldOut === "object" && !Array.isArray(heldOut) ? (heldOut as Dataset) : undefined;
  const factory = typeof optimizer === "function" ? optimizer : undefined;
  const run: RunOptions = {
    ...runOptionsOf(options),
    ...(isPaths(data) && { data: asList(data) }),
    ...(heldOut !== undefined && !memoryHeldOut && { heldOut: heldOut as number | string[] }),
    optimizer: factory ? undefined : parseOptimizerOptions(optimizer as OptimizerOptions),
  };
  return { memoryData, memoryHeldOut, factory, resolved: withAbsolutePaths(parseRunOptions(run)) };
}

/** How a run goes on. */
export interface ResumeOptions extends FollowOptions {
  /** The checkpoint to go on from; default the run's newest. */
  readonly checkpoint?: string;
  /** Options in place of the run's own. Those that decide the numbers need `acceptChanges`. */
  readonly changes?: Partial<RunOptions>;
  /** Go on although the program or options differ from those that the checkpoint was made with. Default false. */
  readonly acceptChanges?: boolean;
}

/**
 * Goes on with a run whose data and optimizer are written down, bit for bit as if it had never stopped.
 * @throws FishyError when the folder holds no run, its checkpoint does not fit, or was made with other options: the
 * message lists what differs.
 */
export async function resume(outDir: string, options: ResumeOptions = {}): Promise<TrainResult> {
  const directory = new RunDirectory(outDir);
  const { run } = directory.readOptions();
  const { acceptChanges } = options;
  const changes = options.changes && withAbsolutePaths(options.changes);
  const resolved = parseRunOptions(withChanges(run, changes));
  if (!resolved.data || resolved.optimizer === undefined) {
    throw new FishyError(
      `The run ${outDir} trained on data or with an optimizer from memory, which its folder does not hold.`,
    );
  }
  const from = options.checkpoint ?? listCheckpoints(outDir).at(-1);
  const setup: RunSetup = {
    ...{ program: await directory.readProgram(), options: resolved, directory, from, acceptChanges },
  };
  return follow(setup, options, options.isolate ?? true);
}

async function follow(setup: RunSetup, options: FollowOptions, isolate: boolean): Promise<TrainResult> {
  const { directory, from } = setup;
  const hooks: RunEvents = {
    ...(options.onPlan && { onPlan: options.onPlan }),
    ...(options.onStep && { onStep: options.onStep }),
    ...(options.onActivity && { onActivity: options.onActivity }),
  };
  const place = directory && { directory: directory.path };
  const { signal, handleSignals = false, pauseAt } = options;
  if (pauseAt !== undefined && (!Number.isInteger(pauseAt) || pauseAt < 1)) {
    throw new UsageError(`A run can pause after a step, counted from 1 (pauseAt); got ${pauseAt}.`);
  }
  if (isolate && directory) {
    const orders = { from, acceptChanges: setup.acceptChanges, options: setup.options, pauseAt };
    const child = startIsolated({ directory: directory.path, orders, hooks, signal });
    const actions = { stop: child.stop, kill: child.kill };
    return { ...(await interruptible(child.result, actions, handleSignals, hooks.onActivity)), ...place };
  }
  let stopping = false;
  const running = runTraining(
    { ...setup, pauseAt },
    { ...hooks, shouldStop: () => stopping || (signal?.aborted ?? false) },
  );
  const actions = {
    stop() {
      stopping = true;
    },
    // Signals are heard between two steps only, where leaving is safe.
    kill: () => process.exit(130),
  };
  return { ...(await interruptible(running, actions, handleSignals, hooks.onActivity)), ...place };
}

interface OpenedProgram {
  readonly program: LocatedProgram;
  readonly source?: MemoryModel;
  /** Of training artifacts whose checkpoint has some. */
  readonly moments?: Moments;
  readonly path?: string;
}

/** @param sections where to sample unless `given` says it. */
async function openProgram(
  model: TrainOptions["model"],
  given: RewriteOptions,
  sections: RewriteOptions["sections"],
): Promise<OpenedProgram> {
  if (typeof model === "object" && "manifest" in model) {
    refuseRewriting(given, "The model");
    return { program: model };
  }
  const options = { ...(sections && { sections }), ...given };
  const source = typeof model === "string" ? await openSource(model) : model;
  const place = typeof model === "string" && { path: model };
  const { directory } = source;
  if (isLoadedArtifacts(source)) {
    const { files, checkpoint } = source;
    const program = await rewrite(source.proto, { ...artifactRewriteOptions(source, options), directory });
    const moments = checkpoint && (await momentsOf(checkpoint));
    const path = files.eval ?? files.training ?? files.model;
    return {
      program: { ...program, directory },
      source,
      ...(moments && { moments }),
      ...(path !== undefined && { path }),
      ...place,
    };
  }
  const manifest = readManifest(source.proto, typeof model === "string" ? model : "the model");
  if (manifest) {
    refuseRewriting(given, typeof model === "string" ? model : "The model");
    return { program: { model: source.proto, manifest, directory }, ...place };
  }
  return { program: { ...(await rewrite(source.proto, { ...options, directory })), directory }, source, ...place };
}

/** @throws UsageError for options that a training program, which is rewritten already, would ignore. */
function refuseRewriting(given: RewriteOptions, what: string): void {
  const names = Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  if (names.length === 0) return;
  throw new UsageError(
    `${what} is a training program already, which ${names.join(", ")} cannot change. Leave that out, or train the model that it was made of.`,
  );
}

/** Where an optimizer wants samples; undefined for the rewriter's own default. */
function defaultSections(optimizer: string | undefined): RewriteOptions["sections"] {
  if (optimizer === undefined || optimizer === "fishy") return undefined;
  return { kind: optimizer === "fim-shampoo" ? "output" : "none" };
}

function runOptionsOf(options: TrainOptions): Omit<RunOptions, "data" | "heldOut" | "optimizer"> {
  const {
    model: _model,
    rewrite: _rewrite,
    data: _data,
    heldOut: _heldOut,
    optimizer: _optimizer,
    outDir: _outDir,
    signal: _signal,
    handleSignals: _handleSignals,
    isolate: _isolate,
    pauseAt: _pauseAt,
    onPlan: _onPlan,
    onStep: _onStep,
    onActivity: _onActivity,
    ...run
  } = options;
  return run;
}

/** A run's own options with others in their place; steps replace epochs and epochs steps. */
function withChanges(run: RunOptions, changes: Partial<RunOptions> = {}): RunOptions {
  const { steps, epochs, ...rest } = run;
  const isNewLength = changes.steps !== undefined || changes.epochs !== undefined;
  const length = { ...(steps !== undefined && { steps }), ...(epochs !== undefined && { epochs }) };
  return { ...rest, ...(isNewLength ? {} : length), ...changes };
}

function isPaths(data: TrainOptions["data"]): data is string | readonly string[] {
  return typeof data === "string" || Array.isArray(data);
}

function asList(paths: string | readonly string[]): string[] {
  return typeof paths === "string" ? [paths] : [...paths];
}

/** Paths made absolute, so that a run can go on from another folder. */
function withAbsolutePaths<T extends Partial<RunOptions>>(options: T): T {
  const absolute = (source: string) => {
    const named = /^([\w.-]+=)(.+)$/.exec(source);
    return named ? `${named[1]}${resolve(named[2] as string)}` : resolve(source);
  };
  const { data, heldOut } = options;
  return {
    ...options,
    ...(data && { data: asList(data).map(absolute) }),
    ...(Array.isArray(heldOut) && { heldOut: heldOut.map(absolute) }),
  };
}

function version(): string {
  return JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;
}
