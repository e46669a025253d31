/** Source model → a graph of the program's opset whose loss, parameters and layers are known: what `inspect` shows and `rewrite` starts from. */
import { planReverse } from "../autodiff/reverse.js";
import { FishyError } from "../errors.js";
import type { Family } from "../families/family.js";
import { counterRandom } from "../families/random.js";
import { recogniseLoss } from "../losses/recognise.js";
import { lossByName } from "../losses/registry.js";
import { attributesFrom, intOf } from "../onnx/attributes.js";
import { valueInfo } from "../onnx/builder.js";
import { allNames, dependents, GraphIndex, requiredInputs, topologicalOrder } from "../onnx/graph.js";
import { moduleNames } from "../onnx/module-names.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto } from "../onnx/proto.js";
import type { TypeMap } from "../onnx/types.js";
import { toProgramOpset } from "../onnx/upgrade/upgrade.js";
import { isDefaultDomain } from "../onnx/versions.js";
import { findLayers, type Layer } from "../sections/layers.js";
import { type LossChoice, type ResolvedLoss, resolveLoss } from "./loss-target.js";
import { lowerModel } from "./lower/lower-model.js";
import { withTimeMajorRecurrences } from "./lower/time-major.js";
import { readManifest } from "./manifest.js";
import { chooseParameters, mayTrain, type ParameterChoice, type ParameterOptions } from "./parameters.js";
import { widenHalf } from "./widen-half.js";

/** The input that seeds sampling and dropout. */
export const SEED_INPUT = "seed";
/** Streams of dropout masks lie above those of the boundaries. */
const FIRST_LOWERING_STREAM = 1 << 20;

export interface PrepareOptions extends LossChoice, ParameterOptions {
  /**
   * Puts batch normalisations that were exported for inference (torch.onnx.export with dynamo=True writes no others)
   * into training mode. Default false.
   */
  readonly trainBatchNorm?: boolean;
  /** Lets gradients pass straight through QuantizeLinear and DequantizeLinear; refused otherwise. Default false. */
  readonly straightThrough?: boolean;
  /** The folder of the source's external data, from which parameters of half precision are read. */
  readonly directory?: string | undefined;
  /** Goes on without a loss when the model has none and none is chosen, for a look at the model. */
  readonly lossOptional?: boolean;
}

export interface PreparedModel {
  /** Of the program's opset, lowered, with the `seed` input declared. A copy: the source is untouched. */
  readonly model: ModelProto;
  readonly types: TypeMap;
  /** Undefined only under `lossOptional`. */
  readonly loss: ResolvedLoss | undefined;
  readonly parameters: ParameterChoice;
  readonly runningStatistics: readonly { readonly name: string; readonly next: string }[];
  readonly layers: readonly Layer[];
  /** The output layer; undefined without a loss, and for a loss in the graph of no form that fishy recognises. */
  readonly output: { readonly preActivation: string; readonly family: Family } | undefined;
  /** Nodes between a trainable parameter and the loss that have no gradient. */
  readonly withoutGradient: readonly NodeProto[];
  /** Why nodes that can be lowered in principle were not. */
  readonly refusals: ReadonlyMap<NodeProto, string>;
  /** The source model's inputs and outputs. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/**
 * Prepares a source model.
 * @throws FishyError when the opset cannot be brought to the program's, the loss does not fit, or nothing can train.
 */
export async function prepare(source: ModelProto, options: PrepareOptions = {}): Promise<PreparedModel> {
  if (readManifest(source)) {
    throw new FishyError(
      "The model is a training program already. fishy train takes it as it is; otherwise give the model that it was made of.",
    );
  }
  const wide = await widenHalf(source, mayTrain(source.graph, options), { directory: options.directory });
  const model = await toProgramOpset(withTimeMajorRecurrences(wide));
  const { graph } = model;
  const inputs = requiredInputs(graph);
  const outputs = graph.output.map((output) => output.name ?? "");
  if (allNames(graph).has(SEED_INPUT)) {
    throw new FishyError(
      `The model has a value named '${SEED_INPUT}', which the training program uses for its own input. Rename it.`,
    );
  }
  graph.input.push(valueInfo(SEED_INPUT, { elemType: DataType.INT64, shape: [] }));

  let stream = FIRST_LOWERING_STREAM;
  const random = () => counterRandom(SEED_INPUT, stream++);
  if (options.trainBatchNorm) trainBatchNormalisations(graph);
  const normalised = trainingNormalisations(graph);
  const lowered = await lowerModel(model, random, mayTrain(graph, options), options);
  const { types } = lowered;

  const hasChoice = options.loss !== undefined || !options.lossOptional || hasScalarOutput(outputs, types);
  const loss = hasChoice ? resolveLoss(graph, types, options) : undefined;
  const roots = loss ? [loss.output] : outputs;
  const parameters = chooseParameters(graph, types, roots, options);
  const names = parameters.trainable.map((tensor) => tensor.name ?? "");
  const index = new GraphIndex(graph);
  const order = topologicalOrder(graph);
  const output = loss && outputLayer(loss, index, types, isIndependentOf(order, names));
  const { active, missing } = planReverse({ forward: graph, types, wrt: names, seeds: new Set(roots) });
  const layers = findLayers({
    index,
    order,
    parameters: new Set(names),
    normalised,
    modules: moduleNames(graph),
    ...(output && { output }),
  });
  const statistics = lowered.runningStatistics.map((statistic) => statistic.name);
  return {
    model,
    types,
    loss,
    parameters: { ...parameters, buffers: [...new Set([...parameters.buffers, ...statistics])] },
    runningStatistics: lowered.runningStatistics,
    layers: layers.filter((layer) => active.has(layer.preActivation)),
    output,
    withoutGradient: missing,
    refusals: lowered.refusals,
    inputs,
    outputs,
  };
}

function trainBatchNormalisations(graph: GraphProto): void {
  const nodes = graph.node.filter((node) => node.opType === "BatchNormalization" && isDefaultDomain(node.domain));
  if (nodes.length === 0) {
    throw new FishyError(
      "--train-batch-norm finds no BatchNormalization in the model: an exporter that optimises folds it into the convolution before it. Export with optimize=False (torch.onnx.export).",
    );
  }
  for (const node of nodes) {
    node.attribute = node.attribute.filter((attribute) => attribute.name !== "training_mode");
    node.attribute.push(...attributesFrom({ training_mode: 1 }));
    // In training mode the operator has the next running statistics as outputs.
    for (const i of [1, 2]) node.output[i] ||= `${node.output[0]}/running_${i}`;
  }
}

/** Batch normalisations that will be lowered: input → output and the parameters between, where the input has no other use. */
function trainingNormalisations(graph: GraphProto): Map<string, NodeProto> {
  const index = new GraphIndex(graph);
  const nodes = graph.node.filter(
    (node) => node.opType === "BatchNormalization" && intOf(node, "training_mode", 0) === 1,
  );
  return new Map(
    nodes
      .filter((node) => index.uses(node.input[0] as string).length === 1)
      .map((node) => [node.input[0] as string, node]),
  );
}

function hasScalarOutput(outputs: readonly string[], types: TypeMap): boolean {
  return outputs.length === 1 && types.get(outputs[0] as string)?.shape?.length === 0;
}

function outputLayer(
  loss: ResolvedLoss,
  index: GraphIndex,
  types: TypeMap,
  isTarget: (name: string) => boolean,
): PreparedModel["output"] {
  if (loss.name === "in-graph") return recogniseLoss(index, types, loss.output, isTarget);
  return { preActivation: loss.output, family: lossByName(loss.name).family(loss.classAxis) };
}

/** Whether a value does not depend on any of `parameters`. */
export function isIndependentOf(order: readonly NodeProto[], parameters: readonly string[]): (name: string) => boolean {
  const dependent = dependents(order, parameters);
  return (name) => !dependent.has(name);
}
