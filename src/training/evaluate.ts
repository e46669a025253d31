/** Evaluating a run's model, or any model, on a dataset: what `fishy eval` does. */
import type { WantedInput } from "../data/bind.js";
import type { Scale } from "../data/convert.js";
import type { Dataset } from "../data/dataset.js";
import { openDataset } from "../data/load.js";
import type { NormalizeOptions } from "../data/normalize.js";
import { allRows, type BoundRows, bindRows } from "../data/rows.js";
import { FishyError, UsageError } from "../errors.js";
import { readTensor } from "../onnx/external.js";
import type { DataType } from "../onnx/proto.js";
import { dimsOf } from "../onnx/tensor.js";
import { declaredType } from "../onnx/types.js";
import { type EvaluationModel, type EvaluationOptions, evaluationModel } from "../rewrite/evaluation.js";
import { readManifest } from "../rewrite/manifest.js";
import { loadRuntime, type Tensor, tensorOver } from "../runtime/ort.js";
import { averagedCheckpoint } from "./averages.js";
import { loadCheckpoint } from "./checkpoint.js";
import { type Evaluation, Evaluator, type LocatedModel } from "./evaluator.js";
import { fedTensors, wantedInputs } from "./inputs.js";
import { checkThreads, DEFAULT_BATCH_SIZE, parseRunOptions, type RunOptions } from "./options.js";
import { bindOptions, evaluated, fixedBatchSize, openData, openOptions } from "./run-data.js";
import { type LocatedProgram, RunDirectory } from "./run-directory.js";
import { artifactRewriteOptions, isLoadedArtifacts, openSource } from "./source.js";

/** What to evaluate, on which data, and how. */
export interface EvaluateOptions extends Omit<EvaluationOptions, "fed"> {
  /** A run's folder, an ONNX model, training artifacts or a training program. */
  readonly model: string;
  /** Paths (each `PATH` or `NAME=PATH`) or a dataset in memory; default what the run held out. */
  readonly data?: string | readonly string[] | Dataset;
  /** Column by program input, where names do not tell. */
  readonly inputs?: Record<string, string>;
  readonly scale?: Scale;
  readonly normalize?: NormalizeOptions;
  readonly imageSize?: [number, number];
  readonly sequenceLength?: number;
  readonly stream?: boolean;
  /** Examples at a time. */
  readonly batchSize?: number;
  readonly threads?: number;
  /** Which checkpoint of a run; default that of the best evaluation when the run keeps it, else the newest. */
  readonly checkpoint?: string;
  /** Take a run's running averages of the parameters (`averageDecay`); default whether the run evaluated them. */
  readonly averaged?: boolean;
}

/** Loss and metrics. */
export interface EvaluateResult extends Evaluation {
  /** Steps trained, of a run. */
  readonly step?: number;
}

/**
 * Evaluates a model in inference mode.
 * @throws FishyError or UsageError for a model, loss or data that do not fit.
 */
export async function evaluate(options: EvaluateOptions): Promise<EvaluateResult> {
  if (options.threads !== undefined) checkThreads(options.threads);
  const run = new RunDirectory(options.model);
  if (run.exists) {
    refuseLoss(options, `The run ${options.model}`);
    return evaluateRun(run, options);
  }
  if (options.checkpoint !== undefined)
    throw new UsageError(`${options.model} is no run, which alone has checkpoints.`);
  if (options.averaged) throw new UsageError(`${options.model} is no run, which alone has averages (averaged).`);
  const source = await openSource(options.model);
  const manifest = readManifest(source.proto, options.model);
  if (manifest) {
    refuseLoss(options, `The training program ${options.model}`);
    const program = { model: source.proto, manifest, directory: source.directory };
    return evaluateProgram(program, options, undefined, new Map());
  }
  const { loss, output, classAxis, targetInput } = options;
  const choice = {
    ...(loss && { loss }),
    ...(output !== undefined && { output }),
    ...(classAxis !== undefined && { classAxis }),
    ...(targetInput !== undefined && { targetInput }),
  };
  const artifact = isLoadedArtifacts(source) ? artifactRewriteOptions(source, choice) : choice;
  const evaluation = await evaluationModel(source.proto, artifact);
  const wanted = wantedOf(evaluation);
  const bound = await boundData(options, wanted);
  const evaluator = await Evaluator.of(evaluation, source, bound.inputs, threadsOf(options));
  try {
    return await evaluator.evaluate(allBatches(bound, wanted, options));
  } finally {
    await evaluator.release();
  }
}

/** Those of the options that say how data is read, and in which batches. */
function readingOf(options: EvaluateOptions | RunOptions): Partial<EvaluateOptions> & RunOptions {
  const { inputs, scale, normalize, imageSize, sequenceLength, batchSize } = options;
  const reading = { inputs, scale, normalize, imageSize, sequenceLength, batchSize };
  return Object.fromEntries(Object.entries(reading).filter(([, value]) => value !== undefined));
}

/** @throws UsageError for a choice of a loss where there is one already. */
function refuseLoss({ loss, output, classAxis, targetInput }: EvaluateOptions, what: string): void {
  const given = Object.entries({ loss, output, classAxis, targetInput }).filter(([, value]) => value !== undefined);
  if (given.length === 0) return;
  throw new UsageError(
    `${what} has its loss already, which is what is evaluated. Leave out ${given.map(([name]) => name).join(", ")}; to evaluate with another loss, export the model first (fishy export).`,
  );
}

async function evaluateRun(run: RunDirectory, options: EvaluateOptions): Promise<EvaluateResult> {
  const { run: stored } = run.readOptions();
  const path = options.checkpoint ?? run.bestCheckpoint();
  const { state, position } = loadCheckpoint(path);
  const ort = await loadRuntime();
  const program = await run.readProgram();
  const { averaged = stored.averaged ?? false } = options;
  const values = averaged ? averagedCheckpoint(state, program.manifest.parameters, path) : state.model;
  const carried = new Map(
    [...values].map(([name, { type, dims, data }]) => [name, tensorOver(ort, type, dims, data, `'${name}'`)]),
  );
  const source = await run.readSource();
  if (options.data !== undefined)
    return {
      ...(await evaluateProgram(program, { ...options, ...readingOf(stored), ...readingOf(options) }, source, carried)),
      step: position.step,
    };

  if (stored.data === undefined) {
    throw new UsageError(
      `The run ${run.path} trained on data in memory, which its folder does not hold. Give data to evaluate on: --data FILE….`,
    );
  }
  // In batches of the run's own size, which the data is known to have.
  const { batchSize: _, ...reading } = readingOf(options);
  const { heldOut, source: batches } = await openData(program, parseRunOptions({ ...stored, ...reading }));
  if (!heldOut) throw new UsageError(`The run ${run.path} held nothing out. Give data: --data FILE….`);
  const evaluator = await Evaluator.create(program, batches.inputs, { ...threadsOf(options), source });
  try {
    const weights = await frozenWeights(program, carried);
    return { ...(await evaluator.evaluate(heldOut.batches(), (name) => weights.get(name))), step: position.step };
  } finally {
    await evaluator.release();
  }
}

async function evaluateProgram(
  program: LocatedProgram,
  options: EvaluateOptions,
  source: LocatedModel | undefined,
  carried: ReadonlyMap<string, Tensor>,
): Promise<Evaluation> {
  const wanted = wantedInputs(program);
  const bound = await boundData(options, wanted);
  const evaluator = await Evaluator.create(program, bound.inputs, { ...threadsOf(options), source });
  try {
    const weights = await frozenWeights(program, carried);
    return await evaluator.evaluate(allBatches(bound, wanted, options), (name) => weights.get(name));
  } finally {
    await evaluator.release();
  }
}

/** The values of everything that a program is fed beside data: those given, and its own where there are none. */
async function frozenWeights(
  program: LocatedProgram,
  carried: ReadonlyMap<string, Tensor>,
): Promise<ReadonlyMap<string, Tensor>> {
  const ort = await loadRuntime();
  const weights = new Map(carried);
  for (const tensor of fedTensors(program)) {
    const name = tensor.name ?? "";
    if (weights.has(name)) continue;
    const data = await readTensor(program, tensor);
    weights.set(name, tensorOver(ort, tensor.dataType as DataType, dimsOf(tensor), data, `'${name}'`));
  }
  return weights;
}

/** The inputs of an evaluation model that data must fill. */
function wantedOf({ model, external, target }: EvaluationModel): WantedInput[] {
  const own = new Set(external.map((tensor) => tensor.name));
  return model.graph.input
    .filter(({ name }) => !own.has(name))
    .map((info) => {
      const name = info.name ?? "";
      const type = declaredType(info);
      if (!type) throw new FishyError(`The input '${name}' of the model is no tensor; fishy cannot feed it.`);
      const isTarget = target?.name === name;
      return {
        name,
        type: type.elemType as DataType,
        shape: type.shape,
        isTarget,
        ...(isTarget && target.classes !== undefined && { classes: target.classes }),
      };
    });
}

async function boundData(options: EvaluateOptions, wanted: readonly WantedInput[]): Promise<BoundRows> {
  const { data } = options;
  if (data === undefined) throw new UsageError("No data is given to evaluate on: --data FILE….");
  const isPaths = typeof data === "string" || Array.isArray(data);
  const dataset = isPaths
    ? await openDataset(data as string | string[], openOptions(options, wanted))
    : (data as Dataset);
  return bindRows(dataset, wanted, bindOptions(options));
}

function threadsOf({ threads }: EvaluateOptions): { threads?: number } {
  return threads === undefined ? {} : { threads };
}

/** All examples; only whole batches where the model fixes their size. */
function allBatches(bound: BoundRows, wanted: readonly WantedInput[], { batchSize }: EvaluateOptions) {
  const fixed = fixedBatchSize(wanted);
  const size = fixed ?? batchSize ?? DEFAULT_BATCH_SIZE;
  const usable = evaluated(bound.length, size, fixed);
  if (usable === 0) {
    throw new FishyError(`The model is fixed to batches of ${fixed} examples, and ${bound.name} has ${bound.length}.`);
  }
  return bound.ordered(allRows(usable), size);
}
