/** Evaluating a run's model, or any model, on a dataset: what `fishy eval` does. */
import { BoundDataset, type WantedInput } from "../data/bind.js";
import type { Scale } from "../data/convert.js";
import type { Dataset } from "../data/dataset.js";
import { loadDataset } from "../data/load.js";
import { orderedBatches } from "../data/shuffled.js";
import type { Batch, BatchInput } from "../data/source.js";
import { FishyError, UsageError } from "../errors.js";
import { readTensor } from "../onnx/external.js";
import type { DataType } from "../onnx/proto.js";
import { dimsOf } from "../onnx/tensor.js";
import { declaredType } from "../onnx/types.js";
import { type EvaluationModel, type EvaluationOptions, evaluationModel } from "../rewrite/evaluation.js";
import { readManifest } from "../rewrite/manifest.js";
import { loadRuntime, type Tensor, tensorOver } from "../runtime/ort.js";
import { loadCheckpoint } from "./checkpoint.js";
import { type Evaluation, Evaluator, type LocatedModel } from "./evaluator.js";
import { fedTensors, wantedInputs } from "./inputs.js";
import { DEFAULT_BATCH_SIZE, parseRunOptions } from "./options.js";
import { openData } from "./run-data.js";
import { type LocatedProgram, RunDirectory } from "./run-directory.js";
import { artifactRewriteOptions, isLoadedArtifacts, openSource } from "./source.js";

export interface EvaluateOptions extends Omit<EvaluationOptions, "fed"> {
  /** A run's folder, an ONNX model, training artifacts or a training program. */
  readonly model: string;
  /** Paths (each `PATH` or `NAME=PATH`) or a dataset in memory; default what the run held out. */
  readonly data?: string | readonly string[] | Dataset;
  /** Column by program input, where names do not tell. */
  readonly inputs?: Readonly<Record<string, string>>;
  readonly scale?: Scale;
  /** Examples at a time. */
  readonly batchSize?: number;
  readonly threads?: number;
  /** Which checkpoint of a run; default that of the best evaluation when the run keeps it, else the newest. */
  readonly checkpoint?: string;
}

export interface EvaluateResult extends Evaluation {
  /** Steps trained, of a run. */
  readonly step?: number;
}

/**
 * Evaluates a model in inference mode.
 * @throws FishyError or UsageError for a model, loss or data that do not fit.
 */
export async function evaluate(options: EvaluateOptions): Promise<EvaluateResult> {
  const run = new RunDirectory(options.model);
  if (run.exists) return evaluateRun(run, options);
  if (options.checkpoint !== undefined)
    throw new UsageError(`${options.model} is no run, which alone has checkpoints.`);
  const source = await openSource(options.model);
  const manifest = readManifest(source.proto, options.model);
  if (manifest) {
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
  const bound = BoundDataset.bind(openedData(options), wantedOf(evaluation), bindOptions(options));
  const evaluator = await Evaluator.of(evaluation, source, bound.inputs as BatchInput[], threadsOf(options));
  try {
    return await evaluator.evaluate(allBatches(bound, evaluation, options));
  } finally {
    await evaluator.release();
  }
}

async function evaluateRun(run: RunDirectory, options: EvaluateOptions): Promise<EvaluateResult> {
  const { run: stored } = run.readOptions();
  const path = options.checkpoint ?? run.bestCheckpoint();
  const { state, position } = loadCheckpoint(path);
  const ort = await loadRuntime();
  const carried = new Map(
    [...state.model].map(([name, { type, dims, data }]) => [name, tensorOver(ort, type, dims, data, `'${name}'`)]),
  );
  const inherited = { inputs: stored.inputs, scale: stored.scale, batchSize: stored.batchSize };
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const all = { ...inherited, ...given } as EvaluateOptions;
  const program = await run.readProgram();
  const source = await run.readSource();
  if (options.data !== undefined)
    return { ...(await evaluateProgram(program, all, source, carried)), step: position.step };

  const { heldOut, source: batches } = await openData(program, parseRunOptions(stored));
  if (!heldOut) throw new UsageError(`The run ${run.path} held nothing out. Give data: --data FILE….`);
  const evaluator = await Evaluator.create(program, batches.inputs, { ...threadsOf(all), source });
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
  const bound = BoundDataset.bind(openedData(options), wantedInputs(program), bindOptions(options));
  const evaluator = await Evaluator.create(program, bound.inputs as BatchInput[], { ...threadsOf(options), source });
  try {
    const weights = await frozenWeights(program, carried);
    return await evaluator.evaluate(allBatches(bound, program, options), (name) => weights.get(name));
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

function openedData({ data }: EvaluateOptions): Dataset {
  if (data === undefined) throw new UsageError("No data is given to evaluate on: --data FILE….");
  return typeof data === "string" || Array.isArray(data) ? loadDataset(data as string | string[]) : (data as Dataset);
}

function bindOptions({ inputs, scale }: EvaluateOptions) {
  return { ...(inputs && { mapping: inputs }), ...(scale !== undefined && { scale }) };
}

function threadsOf({ threads }: EvaluateOptions): { threads?: number } {
  return threads === undefined ? {} : { threads };
}

/** All examples; only whole batches where the model fixes their size. */
function allBatches(
  bound: BoundDataset,
  { model }: Pick<EvaluationModel, "model">,
  { batchSize }: EvaluateOptions,
): Iterable<Batch> {
  const names = new Set(bound.inputs.map(({ name }) => name));
  const dims = model.graph.input
    .filter(({ name }) => names.has(name ?? ""))
    .map((info) => declaredType(info)?.shape?.[0]);
  const fixed = dims.find((dim): dim is number => typeof dim === "number");
  const { length, name } = bound.dataset;
  const usable = fixed === undefined ? length : length - (length % fixed);
  if (usable === 0) {
    throw new FishyError(`The model is fixed to batches of ${fixed} examples, and ${name} has ${length}.`);
  }
  const rows = Uint32Array.from({ length: usable }, (_, i) => i);
  return orderedBatches(bound, rows, fixed ?? batchSize ?? DEFAULT_BATCH_SIZE);
}
