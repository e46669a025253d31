/** One run, from its parts to its result: what happens in the process that trains. */
import type { Dataset } from "../data/dataset.js";
import type { Batch } from "../data/source.js";
import { UsageError } from "../errors.js";
import type { Optimizer, ParameterSpec } from "../optimizers/optimizer.js";
import { createOptimizer, type OptimizerOptions, optionsByParameter } from "../optimizers/registry.js";
import type { RunLength } from "../optimizers/schedules.js";
import { CPU, parseDevice } from "../runtime/devices.js";
import { chooseDevice } from "../runtime/probe.js";
import { requireAverages } from "./averages.js";
import { loadCheckpoint, removeCheckpointsAfter, removeUnfinished } from "./checkpoint.js";
import { createEngine } from "./engines.js";
import { Evaluator, type LocatedModel } from "./evaluator.js";
import { canExport, saveTrained } from "./export.js";
import { fingerprintOf } from "./fingerprint.js";
import { DivergenceError, type LoopResult, runLoop, START } from "./loop.js";
import { heldOutFields, MetricsWriter, type StepRecord, truncateMetrics } from "./metrics.js";
import { type Moments, momentOfState } from "./moments.js";
import type { ResolvedRunOptions } from "./options.js";
import { decidingOptions, secondDevice, statisticsBatches, stepsOf } from "./run-choices.js";
import { type MemoryData, openData, type RunData } from "./run-data.js";
import type { LocatedProgram, RunDirectory, RunSummary } from "./run-directory.js";
import { lockRun } from "./run-lock.js";
import { Saver } from "./saver.js";
import type { TrainingState } from "./state.js";
import { EventWriter } from "./tensorboard.js";

/** Makes an optimizer that no options describe. */
export type OptimizerFactory = (parameters: readonly ParameterSpec[], run: RunLength) => Optimizer;

export interface RunSetup {
  readonly program: LocatedProgram;
  readonly options: ResolvedRunOptions;
  /** Overrides `options.data`. */
  readonly data?: MemoryData | undefined;
  /** Overrides `options.heldOut`. */
  readonly heldOut?: Dataset | undefined;
  /** Overrides `options.optimizer`. */
  readonly optimizer?: OptimizerFactory | undefined;
  /** Where files go; none are written without. */
  readonly directory?: RunDirectory | undefined;
  /** The source model, whose inference pass evaluations run; the one in the folder otherwise. */
  readonly source?: LocatedModel | undefined;
  /** A checkpoint to go on from. */
  readonly from?: string | undefined;
  /** Go on from it although its program or options were others. */
  readonly acceptChanges?: boolean | undefined;
  /** Ends after this step as after the last, evaluated and saved, with the outcome `paused`. */
  readonly pauseAt?: number | undefined;
  /** Moments of the gradient to start from; those in the folder otherwise. */
  readonly moments?: Moments | undefined;
}

/** What is known before the first step. */
export interface RunPlan {
  readonly totalSteps: number;
  readonly startStep: number;
  readonly batchSize: number;
  /** Where steps run, and why there; absent for the CPU unless it was chosen. */
  readonly device?: string;
  readonly stepsPerRun?: number;
  readonly trainExamples: number | undefined;
  readonly heldOutExamples: number;
  readonly parameters: number;
}

/** What a run tells while it goes on. */
export interface RunEvents {
  /** Before the first step. */
  onPlan?(plan: RunPlan): void;
  /** After each step; of a run in a process of its own in groups, some 50 ms apart. */
  onStep?(record: StepRecord): void;
  /** What goes on beside the steps: `evaluating`, `saving`. */
  onActivity?(activity: string): void;
}

/** What a run tells and asks. */
export interface RunHooks extends RunEvents {
  /** Asked between two steps; true ends the run as an interruption does. */
  shouldStop?(): boolean;
}

export interface RunResult extends RunSummary {
  /** Loss of each step since the (re)start. */
  readonly losses: readonly number[];
  /** Parameters and optimizer state at the end; with `keepBest` those of the best evaluation. */
  readonly state: TrainingState;
  readonly checkpoint?: string;
  readonly modelFile?: string;
}

/**
 * Trains. Waits for another run that trains in the same folder.
 * @throws FishyError for data that does not fit, a damaged checkpoint, a loss that is not finite, a folder in use.
 */
export async function runTraining(setup: RunSetup, hooks: RunHooks = {}): Promise<RunResult> {
  const lock = setup.directory && (await lockRun(setup.directory.path));
  try {
    return await runLocked(setup, hooks);
  } finally {
    lock?.release();
  }
}

async function runLocked(setup: RunSetup, hooks: RunHooks): Promise<RunResult> {
  const data = await openData(setup.program, setup.options, setup);
  try {
    return await runOn(data, setup, hooks);
  } finally {
    await data.source.close?.();
  }
}

async function runOn(data: RunData, setup: RunSetup, hooks: RunHooks): Promise<RunResult> {
  const { program, options, directory } = setup;
  const { source } = data;
  const follows = options.patience !== undefined ? "patience" : options.keepBest ? "keepBest" : undefined;
  if (follows !== undefined && !data.heldOut) {
    throw new UsageError(`The option ${follows} follows the held-out examples, and nothing is held out (heldOut).`);
  }
  const totalSteps = stepsOf(options, source);
  const { parameters } = program.manifest;
  const moments = setup.moments ?? directory?.readMoments();
  const stepsPerEpoch = source.batchesPerEpoch && source.batchesPerEpoch / options.accumulation;
  const length: RunLength = { totalSteps, stepsPerEpoch, momentSteps: moments?.steps };
  const optimizer = setup.optimizer
    ? setup.optimizer(parameters, length)
    : createOptimizer(options.optimizer as OptimizerOptions, parameters, length);
  const averages = options.averaged ? requireAverages(optimizer) : undefined;
  const { threads, seed } = options;
  const { inputs, batchSize } = source;
  const { device, why } = await chooseDevice(parseDevice(options.device));
  const second = await secondDevice(options);
  const engine = await createEngine({
    ...{ program, optimizer, inputs, batchSize, seed, device, threads, totalSteps },
    directory: program.directory,
    stepsPerRun: options.stepsPerRun,
    precision: options.precision,
    preconditionerDevice: second,
    accumulation: options.accumulation,
    statistics: statisticsBatches(options, data, optimizer),
  });
  let writer: MetricsWriter | undefined;
  let events: EventWriter | undefined;
  let evaluator: Evaluator | undefined;
  try {
    const inference = await Evaluator.create(program, inputs, {
      threads,
      // WebGPU takes some convolutions wrong, which the graphs of steps are rewritten for; this one is not.
      device: device.kind === "webgpu" ? CPU : device,
      source: setup.source ?? (await directory?.readSource()),
    });
    evaluator = inference;
    const fingerprint = fingerprintOf(
      program,
      decidingOptions(setup, { optimizer, device, second, batchSize, totalSteps }),
    );
    let start = START;
    if (setup.from !== undefined) {
      const checkpoint = loadCheckpoint(setup.from, setup.acceptChanges ? undefined : fingerprint);
      engine.state.restore(checkpoint.state, `The checkpoint ${setup.from}`);
      start = checkpoint.position;
    } else if (moments) {
      const own = options.optimizer && optionsByParameter(options.optimizer, parameters);
      engine.state.seed((name) =>
        moments.tensors.get(momentOfState(name, own?.get(name.slice(0, name.lastIndexOf("/")))) ?? ""),
      );
    }
    if (directory) {
      removeUnfinished(directory.path);
      removeCheckpointsAfter(directory.path, start.step);
      directory.writeRunOptions(options);
      // A killed run leaves lines beyond its last checkpoint.
      truncateMetrics(directory.metricsFile, start.step);
      directory.removeResult();
      writer = new MetricsWriter(directory.metricsFile);
      if (options.tensorboard) events = new EventWriter(directory.path, start.step > 0 ? start.step + 1 : undefined);
      if (optimizer.blocks) directory.writeBlocks(optimizer.blocks);
    }
    hooks.onPlan?.({
      totalSteps,
      startStep: start.step,
      batchSize: batchSize * options.accumulation,
      ...(options.device !== "cpu" && { device: why }),
      stepsPerRun: engine.stepsPerRun,
      trainExamples: data.trainExamples,
      heldOutExamples: data.heldOut?.examples ?? 0,
      parameters: parameters.reduce((sum, { dims }) => sum + dims.reduce((product, dim) => product * dim, 1), 0),
    });

    const record = (entry: StepRecord) => {
      writer?.write(entry);
      events?.write(entry);
      hooks.onStep?.(entry);
    };
    const evaluate = (batches: AsyncIterable<Batch> | Iterable<Batch>) => {
      hooks.onActivity?.("evaluating");
      const averaged = (name: string) => engine.state.optimizer.get(averages?.get(name) ?? "")?.current.tensor;
      return inference.evaluate(batches, (name) => averaged(name) ?? engine.carriedTensor(name));
    };
    const saver = new Saver({
      ...{ state: engine.state, directory, fingerprint, options, averages, best: start.best },
      onSave() {
        hooks.onActivity?.("saving");
        writer?.flush();
        events?.flush();
      },
    });
    const { heldOut } = data;
    // The last step's record waits for the final evaluation.
    let lastRecord: StepRecord | undefined;
    let loop: LoopResult;
    try {
      // A run that its own evaluations ended has nothing to go on with.
      const last: LoopResult = { position: start, outcome: "stopped early", durations: [], losses: [] };
      loop = saver.isOver
        ? last
        : await runLoop({
            engine,
            source,
            optimizer,
            totalSteps,
            start,
            pauseAt: setup.pauseAt,
            evaluateEvery: heldOut
              ? (options.evaluateEvery ?? (stepsPerEpoch ? Math.max(1, Math.round(stepsPerEpoch)) : 0))
              : 0,
            checkpointEvery: options.checkpointEvery,
            evaluate: () => evaluate(heldOut?.batches() ?? []),
            evaluated: (position, evaluation) => saver.evaluated(position, evaluation),
            checkpoint: (position) => saver.save(position),
            record(entry) {
              if (entry.step === totalSteps) lastRecord = entry;
              else record(entry);
            },
            shouldStop: () => hooks.shouldStop?.() ?? false,
          });
    } catch (error) {
      throw error instanceof DivergenceError ? saver.rescue(error) : error;
    }
    const { position, outcome } = loop;
    const isInterrupted = outcome === "interrupted";
    const evaluation = loop.evaluation ?? (!isInterrupted && heldOut ? await evaluate(heldOut.batches()) : undefined);
    if (evaluation && outcome === "completed") saver.evaluated(position, evaluation);
    const train = !isInterrupted && data.train ? await evaluate(data.train()) : undefined;
    if (lastRecord) record({ ...lastRecord, ...(evaluation && heldOutFields(evaluation)) });
    const checkpoint = saver.save(position);
    const kept = saver.kept();
    let modelFile: string | undefined;
    if (directory && canExport(directory, program)) {
      modelFile = (await saveTrained(directory, program, saver.modelOf(kept), directory.modelFile)).path;
    }
    const { best } = saver;
    const summary: RunSummary = {
      steps: position.step,
      outcome,
      ...(train && { train }),
      ...(evaluation && { heldOut: evaluation }),
      ...(best && { best: { metric: best.metric, step: best.step, value: best.value } }),
      lastLoss: loop.losses.at(-1) ?? null,
      seconds: position.seconds,
      secondsPerStep: loop.durations.reduce((sum, seconds) => sum + seconds, 0) / Math.max(1, loop.durations.length),
      medianSecondsPerStep: median(loop.durations),
    };
    writer?.flush();
    directory?.writeResult(summary);
    return {
      ...summary,
      losses: loop.losses,
      state: kept,
      ...(checkpoint !== undefined && { checkpoint }),
      ...(modelFile !== undefined && { modelFile }),
    };
  } finally {
    writer?.close();
    events?.close();
    await evaluator?.release();
    await engine.release();
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return 0;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] as number)) / 2;
}
