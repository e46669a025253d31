/** Training artifacts → an ordinary source model with the parameters' values and the loss in the graph. */
import { FishyError } from "../errors.js";
import { GraphBuilder, type ValueType, valueInfo } from "../onnx/builder.js";
import { withFields } from "../onnx/codec.js";
import { type ExternalSource, readTensor } from "../onnx/external.js";
import { tensorsOf } from "../onnx/map-tensors.js";
import { loadModel, type OnnxModel } from "../onnx/model-file.js";
import type { GraphProto, ModelProto, TensorProto } from "../onnx/proto.js";
import { dataTypeName, dimsOf, elementCount, isExternal, tensorFromData } from "../onnx/tensor.js";
import { declaredType } from "../onnx/types.js";
import { type ArtifactFiles, findArtifacts } from "./artifact-files.js";
import { readCheckpoint, type TrainingCheckpoint } from "./checkpoint.js";
import { artifactOpset, restoreTrainingMode, sliceForward, toStandardOperators } from "./forward-graph.js";
import { type ArtifactOptimizer, readOptimizerModel } from "./optimizer-model.js";
import { inferenceOutputs, withProvenance } from "./provenance.js";
import { accumulatedParameters, forwardOutputs, isInternalInput } from "./training-names.js";

/** What `loadArtifacts` takes beside the files. */
export interface ArtifactOptions {
  /** Values of parameters by name: instead of a checkpoint, or in place of some of its. */
  readonly parameters?: ReadonlyMap<string, TensorProto>;
  /**
   * The trainable parameters (or, when it is long enough, all of them), flattened and joined in the training model's
   * order: what ONNX Runtime's `CopyParametersToBuffer` gives.
   */
  readonly parameterBuffer?: Float32Array;
  /** Also returns the masks of Dropout: what goes back through the training model's own Dropout needs them. */
  readonly keepMasks?: boolean;
}

/** Training artifacts as a source model. */
export interface LoadedArtifacts extends ExternalSource {
  /** The forward pass and the loss, of standard operators; parameters are initializers. */
  readonly proto: ModelProto;
  /** The output that is the loss. */
  readonly loss: string;
  /** The names of the parameters that train, in the model's order. */
  readonly trainable: readonly string[];
  readonly frozen: readonly string[];
  readonly checkpoint?: TrainingCheckpoint;
  /** What `optimizer_model.onnx` does. */
  readonly optimizer?: ArtifactOptimizer;
  readonly files: ArtifactFiles;
  /** What an inference model returns. */
  readonly outputs: readonly string[];
  /** Remarks for the user. */
  readonly notes: readonly string[];
}

/**
 * Loads training artifacts. The forward pass comes from the eval model where there is one, Dropout and
 * BatchNormalization put back to how the training model has them; otherwise it is cut out of the training model.
 *
 * @param source a folder, a training or eval model in one, or the files one by one.
 * @throws FishyError when a file is missing or damaged, when the checkpoint's parameters are not those of the model (in
 * name, type or shape), or when an operator has no standard form.
 */
export async function loadArtifacts(
  source: string | ArtifactFiles,
  options: ArtifactOptions = {},
): Promise<LoadedArtifacts> {
  const files = typeof source === "string" ? await findArtifacts(source) : source;
  if (!files.training && !files.eval) {
    throw new FishyError("Training artifacts need a training_model.onnx or an eval_model.onnx.");
  }
  const training = files.training === undefined ? undefined : await loadTrainingModel(files.training);
  const evalModel = files.eval === undefined ? undefined : await loadTrainingModel(files.eval);
  const checkpoint = files.checkpoint === undefined ? undefined : await readCheckpoint(files.checkpoint);
  const optimizer =
    files.optimizer === undefined
      ? undefined
      : readOptimizerModel((await loadModel(files.optimizer)).proto, files.optimizer);
  const notes: string[] = [];
  let forward: ModelProto;
  if (evalModel) {
    const restored = restoreTrainingMode(evalModel.proto, training?.proto);
    notes.push(...restored.notes);
    forward = restored.model;
  } else {
    forward = sliceForward((training as OnnxModel).proto, options.keepMasks);
  }
  const from = evalModel ?? (training as OnnxModel);
  const standard = toStandardOperators(forward);
  const order = parameterInputs(standard.graph, training?.proto.graph, checkpoint, options, from.path);
  const values = valuesOf(order, standard.graph, checkpoint, options, from.path);
  const { graph, directory } = await withParameters(standard.graph, values, checkpoint, from);
  const buffers = training && accumulatedParameters(training.proto.graph);
  const trainable = checkpoint ? order.filter((name) => checkpoint.trainable.has(name)) : (buffers ?? order);
  const loss = withScalarLoss(graph);
  const frozen = order.filter((name) => !trainable.includes(name));
  const outputs = inferenceOutputs(from.proto, graph, loss);
  const steps = checkpoint?.optimizerGroups[0]?.step ?? 0;
  const proto = withFields(standard, { graph: withKnownLabels(graph) });
  return {
    proto: withProvenance(proto, { loss, outputs, trainable, frozen, steps }),
    directory,
    loss,
    outputs,
    trainable,
    frozen,
    ...(checkpoint && { checkpoint }),
    ...(optimizer && { optimizer }),
    files,
    notes,
  };
}

/** Loads a training or eval model, whose default opset may be imported twice. */
export async function loadTrainingModel(path: string): Promise<OnnxModel> {
  const model = await loadModel(path);
  const opset = artifactOpset(model.proto);
  const others = model.proto.opsetImport.filter(({ domain }) => domain && domain !== "ai.onnx");
  return { ...model, proto: withFields(model.proto, { opsetImport: [{ domain: "", version: opset }, ...others] }) };
}

/**
 * The inputs of the forward pass that are parameters, in the model's order: user inputs come first, then the loss's
 * `labels` or `target`, then parameters alone.
 */
function parameterInputs(
  graph: GraphProto,
  training: GraphProto | undefined,
  checkpoint: TrainingCheckpoint | undefined,
  options: ArtifactOptions,
  path: string,
): string[] {
  const initializers = new Set(graph.initializer.map(({ name = "" }) => name));
  const inputs = graph.input
    .map(({ name = "" }) => name)
    .filter((name) => !initializers.has(name) && !isInternalInput(name));
  const accumulated = training ? accumulatedParameters(training) : [];
  const held = [...(checkpoint?.trainable.keys() ?? []), ...(checkpoint?.frozen.keys() ?? [])];
  const extra = [...held, ...accumulated].filter((name) => !inputs.includes(name) && !initializers.has(name));
  if (extra.length > 0) {
    throw new FishyError(
      `${path} has no parameter${extra.length > 1 ? "s" : ""} ${quoted(extra)}, which ${held.includes(extra[0] as string) ? "the checkpoint" : "training_model.onnx"} holds: they do not belong together.`,
    );
  }
  const known = new Set([...held, ...accumulated, ...(options.parameters?.keys() ?? [])]);
  const first = inputs.findIndex((name) => known.has(name));
  const target = inputs.findIndex((name) => name === "labels" || name === "target");
  const start = Math.min(first < 0 ? inputs.length : first, target < 0 ? inputs.length : target + 1);
  return inputs.filter((name, i) => i >= start || known.has(name));
}

function valuesOf(
  order: readonly string[],
  graph: GraphProto,
  checkpoint: TrainingCheckpoint | undefined,
  options: ArtifactOptions,
  path: string,
): Map<string, TensorProto> {
  const types = new Map(graph.input.map((info) => [info.name ?? "", declaredType(info)]));
  const buffered = bufferValues(order, types, checkpoint, options.parameterBuffer);
  const values = new Map<string, TensorProto>();
  const missing: string[] = [];
  for (const name of order) {
    const held = checkpoint?.nominal ? undefined : (checkpoint?.trainable.get(name) ?? checkpoint?.frozen.get(name));
    const value = options.parameters?.get(name) ?? buffered.get(name) ?? held;
    if (!value) {
      missing.push(name);
      continue;
    }
    const type = types.get(name);
    if (!type || value.dataType !== type.elemType || !fits(dimsOf(value), type.shape)) {
      const wanted = type ? `${dataTypeName(type.elemType)} [${type.shape?.join(", ") ?? "?"}]` : "no tensor";
      throw new FishyError(
        `The parameter '${name}' is ${wanted} in ${path}, and its value ${dataTypeName(value.dataType ?? 0)} [${dimsOf(value).join(", ")}]: they do not belong together.`,
      );
    }
    values.set(name, withFields(value, { name }));
  }
  if (missing.length > 0) throw new FishyError(missingMessage(missing, checkpoint, path));
  return values;
}

function missingMessage(missing: readonly string[], checkpoint: TrainingCheckpoint | undefined, path: string): string {
  const parameters = `the parameter${missing.length > 1 ? "s" : ""} ${quoted(missing)} of ${path}`;
  const remedy = "Give their values with --parameters FILE (safetensors, or a model that has them as initializers).";
  if (checkpoint?.nominal)
    return `The checkpoint is nominal: it holds names without values, so ${parameters} have none. ${remedy}`;
  if (checkpoint)
    return `The checkpoint lacks ${parameters}: they do not belong together. Use the checkpoint of this model, or: ${remedy}`;
  return `There is no checkpoint, so ${parameters} have no values. ${remedy}`;
}

/** Cuts a flat buffer into parameters. */
function bufferValues(
  order: readonly string[],
  types: ReadonlyMap<string, ValueType | undefined>,
  checkpoint: TrainingCheckpoint | undefined,
  buffer: Float32Array | undefined,
): Map<string, TensorProto> {
  const values = new Map<string, TensorProto>();
  if (!buffer) return values;
  const sizeOf = (name: string) => elementCount((types.get(name)?.shape ?? []).map(Number));
  const total = (names: readonly string[]) => names.reduce((sum, name) => sum + sizeOf(name), 0);
  const trainable = checkpoint ? order.filter((name) => checkpoint.trainable.has(name)) : order;
  const names = [order, trainable].find((candidate) => total(candidate) === buffer.length);
  if (!names) {
    throw new FishyError(
      `The parameter buffer has ${buffer.length} elements; the trainable parameters need ${total(trainable)}, all of them ${total(order)}.`,
    );
  }
  let start = 0;
  for (const name of names) {
    const end = start + sizeOf(name);
    const dims = (types.get(name)?.shape ?? []).map(Number);
    values.set(name, tensorFromData(name, 1, dims, buffer.slice(start, end)));
    start = end;
  }
  return values;
}

/** The graph with its parameters as initializers instead of inputs, and the folder of its external data. */
async function withParameters(
  graph: GraphProto,
  values: ReadonlyMap<string, TensorProto>,
  checkpoint: TrainingCheckpoint | undefined,
  model: OnnxModel,
): Promise<{ graph: GraphProto; directory: string }> {
  let tensors = [...values.values()];
  let { directory } = model;
  if (checkpoint && tensors.some(isExternal)) {
    const modelHasExternal = tensorsOf(model.proto).some(({ tensor }) => isExternal(tensor));
    if (!modelHasExternal) directory = checkpoint.directory;
    else if (checkpoint.directory !== directory) {
      // One model has its external data in one folder.
      tensors = await Promise.all(
        tensors.map(async (tensor) => {
          if (!isExternal(tensor)) return tensor;
          const data = await readTensor(checkpoint, tensor);
          return tensorFromData(tensor.name ?? "", (tensor.dataType ?? 0) as 1, dimsOf(tensor), data);
        }),
      );
    }
  }
  return {
    graph: withFields(graph, {
      input: graph.input.filter(({ name = "" }) => !values.has(name)),
      initializer: [...tensors, ...graph.initializer],
    }),
    directory,
  };
}

/** The loss's name. ONNX Runtime 1.16 and earlier kept the dimensions that the loss reduces, as ones: they go. */
function withScalarLoss(graph: GraphProto): string {
  const loss = forwardOutputs(graph)[0] as string;
  const info = graph.output.find(({ name }) => name === loss);
  const type = info && declaredType(info);
  if (!type?.shape || type.shape.length < 2 || type.shape.some((dim) => dim !== 1)) return loss;
  const b = new GraphBuilder(graph);
  const scalar = b.op("Squeeze", [loss], {}, `${loss}/scalar`);
  graph.output = graph.output.map((output) =>
    output.name === loss ? valueInfo(scalar, { elemType: type.elemType, shape: [] }) : output,
  );
  return scalar;
}

/**
 * ONNX Runtime declares labels as the scores' shape without its last axis, although the classes are on axis 1: wrong for
 * scores of rank 3 and more, where the operator knows better.
 */
function withKnownLabels(graph: GraphProto): GraphProto {
  const types = new Map(
    [...graph.valueInfo, ...graph.input, ...graph.output].map((info) => [info.name ?? "", declaredType(info)]),
  );
  const shapes = new Map<string, ValueType>();
  for (const node of graph.node) {
    if (node.opType !== "SoftmaxCrossEntropyLoss") continue;
    const [scores, labels] = node.input as [string, string];
    const [from, declared] = [types.get(scores), types.get(labels)];
    if (!from?.shape || from.shape.length < 3 || !declared) continue;
    shapes.set(labels, { elemType: declared.elemType, shape: from.shape.filter((_, axis) => axis !== 1) });
  }
  if (shapes.size === 0) return graph;
  const declare = (info: (typeof graph.input)[number]) => {
    const type = shapes.get(info.name ?? "");
    return type ? withFields(info, valueInfo(info.name ?? "", type)) : info;
  };
  return withFields(graph, { input: graph.input.map(declare), valueInfo: graph.valueInfo.map(declare) });
}

function fits(dims: readonly number[], declared: ValueType["shape"]): boolean {
  if (!declared) return true;
  return (
    dims.length === declared.length && dims.every((dim, i) => typeof declared[i] !== "number" || declared[i] === dim)
  );
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `'${name}'`).join(", ");
}
