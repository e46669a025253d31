/**
 * Source model → a graph that judges it: the forward pass of *inference* (no dropout, running statistics instead of the
 * batch's), the loss, and what is counted beside it.
 */
import { FishyError } from "../errors.js";
import { recogniseLoss } from "../losses/recognise.js";
import { lossByName } from "../losses/registry.js";
import { intOf, stringOf } from "../onnx/attributes.js";
import { GraphBuilder, type ValueType, valueInfo } from "../onnx/builder.js";
import { capturedBy, GraphIndex, prune, requiredInputs, topologicalOrder } from "../onnx/graph.js";
import { toInferenceMode } from "../onnx/inference-mode.js";
import { DataType, type ModelProto, type NodeProto, type TensorProto } from "../onnx/proto.js";
import { isExternal } from "../onnx/tensor.js";
import { inferTypes, type TypeMap, tensorType } from "../onnx/types.js";
import { toProgramOpset } from "../onnx/upgrade/upgrade.js";
import { emitJudgement, type Judged, type JudgementOutputs } from "./judgement.js";
import { type LossChoice, type ResolvedLoss, resolveLoss } from "./loss-target.js";
import { mayTrain } from "./parameters.js";
import { isIndependentOf } from "./prepare.js";
import { emitBatchSize, targetOf } from "./program-loss.js";
import { widenHalfFed } from "./widen-half.js";

export interface EvaluationOptions extends LossChoice {
  /** The input that the loss compares with, where the model has one already; otherwise `labels` or `target` is added. */
  readonly targetInput?: string;
  /** Initializers whose values are fed: parameters and running statistics. Default none. */
  readonly fed?: readonly string[];
}

export interface EvaluationModel extends JudgementOutputs {
  readonly model: ModelProto;
  /** Output with the loss: a float scalar. */
  readonly loss: string;
  /** Weights in external files, which are inputs because a graph in memory cannot point to files. */
  readonly external: readonly TensorProto[];
  /** The input with the labels or target values, and the number of classes where it is known. */
  readonly target?: { readonly name: string; readonly classes?: number };
}

/**
 * Builds the graph. The source is not changed.
 * @throws FishyError for a loss that does not fit, and for fed names that the source has no initializers of.
 */
export async function evaluationModel(source: ModelProto, options: EvaluationOptions = {}): Promise<EvaluationModel> {
  const model = await toProgramOpset(widenHalfFed(source, options.fed ?? []));
  const { graph } = model;
  toInferenceMode(graph);
  graph.valueInfo = [];
  const types = await inferTypes(model);
  const initializers = new Map(graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
  const inputs = requiredInputs(graph);
  const loss = resolveLoss(graph, types, options);
  const parameters = mayTrain(graph, {});
  const b = new GraphBuilder(graph);
  const { output, judged, target } = emitLoss(b, { graph, types, inputs, parameters, loss, options });
  graph.output = [];
  b.output(output, { elemType: DataType.FLOAT, shape: [] });
  const judgement = emitJudgement(b, judged);

  const unknown = (options.fed ?? []).filter((name) => !initializers.has(name));
  if (unknown.length > 0) {
    throw new FishyError(
      `The source model has no initializers named ${unknown.map((name) => `'${name}'`).join(", ")}, which were trained. It is not the model that the run started from.`,
    );
  }
  const fed = new Set(options.fed);
  const external = graph.initializer.filter((tensor) => isExternal(tensor));
  const asInput = (tensor: TensorProto) => fed.has(tensor.name ?? "") || isExternal(tensor);
  const declared = new Set(graph.input.map(({ name }) => name));
  for (const tensor of graph.initializer.filter(asInput)) {
    if (!declared.has(tensor.name)) graph.input.push(valueInfo(tensor.name ?? "", tensorType(tensor)));
  }
  graph.initializer = graph.initializer.filter((tensor) => !asInput(tensor));
  prune(graph);
  const used = readNames(graph.node);
  // Initializers that are inputs as well (IR 3) are constants here.
  const constants = new Set(graph.initializer.map((tensor) => tensor.name));
  graph.input = graph.input.filter(({ name = "" }) => used.has(name) && !constants.has(name));
  return {
    ...judgement,
    model: { ...model, metadataProps: [], trainingInfo: [] },
    loss: output,
    external: external.filter(({ name = "" }) => used.has(name)),
    ...(target && { target }),
  };
}

interface LossContext {
  readonly graph: ModelProto["graph"];
  readonly types: TypeMap;
  readonly inputs: readonly string[];
  readonly parameters: readonly string[];
  readonly loss: ResolvedLoss;
  readonly options: EvaluationOptions;
}

interface EmittedEvaluation {
  /** The loss: a float32 scalar. */
  readonly output: string;
  readonly judged: Judged | undefined;
  readonly target?: EvaluationModel["target"];
}

function emitLoss(b: GraphBuilder, context: LossContext): EmittedEvaluation {
  const { types, inputs, loss, options } = context;
  if (loss.name === "in-graph") return inGraph(b, context, loss.output);
  const definition = lossByName(loss.name);
  const target = targetOf(b, { inputs, types }, options, {
    loss,
    type: definition.targetType(loss.type, loss.classAxis),
    name: definition.targetName,
  });
  const batchSize = emitBatchSize(b, { inputs, types });
  const emitted = definition.emit(b, { ...loss, target: target.name, targetType: target.type, batchSize });
  const classes = definition.targetName === "labels" ? loss.type.shape?.[loss.classAxis] : undefined;
  return {
    output: emitted.loss,
    judged: judgedByLoss(loss, target.name),
    target: { name: target.name, ...(typeof classes === "number" && { classes }) },
  };
}

/** What a loss that is appended judges. */
export function judgedByLoss(
  loss: Pick<Exclude<ResolvedLoss, { name: "in-graph" }>, "name" | "output" | "classAxis"> & {
    readonly type: Pick<ValueType, "shape">;
  },
  target: string,
): Judged {
  const { output, classAxis: axis } = loss;
  const shape = loss.type.shape ?? [];
  if (loss.name !== "softmax-cross-entropy") {
    const isBinary = shape.length > 1 && shape.slice(1).every((dim) => dim === 1);
    return { kind: "values", output, target, isLogit: loss.name === "sigmoid-cross-entropy", isBinary };
  }
  const classes = shape[axis];
  return {
    kind: "classes",
    logits: output,
    labels: target,
    axis,
    ...(typeof classes === "number" && { classes }),
    isMean: true,
    isSequence: shape.length === 3,
  };
}

/** The loss of the source's own graph, and what its form tells. */
function inGraph(b: GraphBuilder, { graph, types, parameters }: LossContext, loss: string): EmittedEvaluation {
  const index = new GraphIndex(graph);
  const recognised = recogniseLoss(index, types, loss, isIndependentOf(topologicalOrder(graph), parameters));
  const type = types.get(loss) as ValueType;
  const flat = type.shape?.length === 0 ? loss : b.reshape(loss, []);
  const output = type.elemType === DataType.FLOAT ? flat : b.cast(flat, DataType.FLOAT);
  const { preActivation, target, family } = recognised ?? {};
  if (preActivation === undefined || target === undefined || !family) return { output, judged: undefined };
  const shape = types.get(preActivation)?.shape;
  if (family.name !== "softmax") {
    const isLogit = family.name === "bernoulli";
    const isBinary = shape !== undefined && shape.length > 1 && shape.slice(1).every((dim) => dim === 1);
    const sameType =
      types.get(preActivation)?.elemType === DataType.FLOAT && types.get(target)?.elemType === DataType.FLOAT;
    return {
      output,
      judged: sameType ? { kind: "values", output: preActivation, target, isLogit, isBinary } : undefined,
    };
  }
  const axis = family.parameters.axis as number;
  const node = index.producer(loss);
  const isLoss = node?.opType === "SoftmaxCrossEntropyLoss" || node?.opType === "NegativeLogLikelihoodLoss";
  const ignored =
    isLoss && node.attribute.some(({ name }) => name === "ignore_index") ? intOf(node, "ignore_index", 0) : undefined;
  const isMean = isLoss && stringOf(node, "reduction", "mean") === "mean" && !node.input[2];
  const classes = shape?.[axis];
  return {
    output,
    judged: {
      kind: "classes",
      logits: preActivation,
      labels: target,
      axis,
      ...(typeof classes === "number" && { classes }),
      ignored,
      isMean,
      isSequence: shape?.length === 3 || isFlattenedSequence(index, types, preActivation),
    },
    ...(index.inputs.has(target) && { target: { name: target, ...(typeof classes === "number" && { classes }) } }),
  };
}

/** Whether [positions, classes] is a reshaped [batch, position, classes]. */
function isFlattenedSequence(index: GraphIndex, types: TypeMap, logits: string): boolean {
  const node = index.producer(logits);
  return node?.opType === "Reshape" && types.get(node.input[0] as string)?.shape?.length === 3;
}

function readNames(nodes: readonly NodeProto[]): Set<string> {
  return new Set(nodes.flatMap((node) => [...node.input, ...capturedBy(node)]));
}
