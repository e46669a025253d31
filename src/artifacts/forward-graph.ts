/** The forward pass and loss of a training or eval model, as an ordinary model of standard operators. */

import { FishyError } from "../errors.js";
import { attributeOf, intOf } from "../onnx/attributes.js";
import { emptyGraph, GraphBuilder } from "../onnx/builder.js";
import { cloneModel, withFields } from "../onnx/codec.js";
import { GraphIndex, prune, takenNames } from "../onnx/graph.js";
import type { GraphProto, ModelProto, NodeProto, OperatorSetId } from "../onnx/proto.js";
import { numbersOf, toNumber } from "../onnx/tensor.js";
import { isDefaultDomain } from "../onnx/versions.js";
import { NoStandardForm, replacementOf, trainingBatchNormalization, trueConstant } from "./standard-operators.js";
import { forwardOutputs, isInternalInput } from "./training-names.js";

/** Operators whose further outputs may be left out when nothing reads them, and how many outputs there must be. */
const OPTIONAL_OUTPUTS: Readonly<Record<string, number>> = {
  Dropout: 1,
  LayerNormalization: 1,
  MaxPool: 1,
  SimplifiedLayerNormalization: 1,
  SoftmaxCrossEntropyLoss: 1,
  SoftmaxCrossEntropyLossInternal: 1,
};

/**
 * The newest opset of the default domain that a model imports. ONNX Runtime has written it twice, as 7 and 14; the
 * newer one is what its nodes are in.
 */
export function artifactOpset(model: ModelProto): number {
  const versions = model.opsetImport
    .filter(({ domain }) => isDefaultDomain(domain))
    .map(({ version }) => toNumber(version));
  if (versions.length === 0) throw new FishyError("The training artifacts import no opset of the default domain.");
  return Math.max(...versions);
}

/**
 * Cuts the forward pass out of a training model: what its outputs need that are neither gradients nor accumulators.
 * Forward and gradient nodes are interleaved, so the cut is by need and not by position.
 * @param keepMasks returns the masks of Dropout too.
 */
export function sliceForward(training: ModelProto, keepMasks = false): ModelProto {
  const model = cloneModel(training);
  const { graph } = model;
  const outputs = new Set(forwardOutputs(graph));
  graph.output = graph.output.filter(({ name = "" }) => outputs.has(name));
  if (graph.output.length === 0) throw new FishyError("The training model has no output that is a loss.");
  graph.input = graph.input.filter(({ name = "" }) => !isInternalInput(name));
  prune(graph);
  if (keepMasks) {
    const masks = graph.node.flatMap(({ opType, output }) => (opType === "Dropout" && output[1] ? [output[1]] : []));
    graph.output.push(...masks.map((name) => ({ name })));
  }
  return model;
}

/**
 * Dropout and BatchNormalization of an eval model as the training model has them: an eval model switches both off.
 * Without the training model both are on, as ONNX Runtime trains them.
 * @returns the model and remarks for the user.
 */
export function restoreTrainingMode(
  evalModel: ModelProto,
  training: ModelProto | undefined,
): { model: ModelProto; notes: string[] } {
  const model = cloneModel(evalModel);
  const { graph } = model;
  const opset = artifactOpset(model);
  const notes: string[] = [];
  const reference = training && new TrainingNodes(training);
  const b = new GraphBuilder(graph);
  let [dropouts, normalizations] = [0, 0];
  graph.node = graph.node.map((node) => {
    if (!isDefaultDomain(node.domain)) return node;
    if (node.opType === "Dropout" && opset >= 12 && (reference?.dropoutTrains(node) ?? true)) {
      dropouts++;
      const trained = reference?.dropoutRatio(node);
      const ratio = trained === undefined ? (node.input[1] ?? "") : b.f32(trained);
      return withFields(node, { input: [node.input[0] as string, ratio, trueConstant(b)] });
    }
    if (node.opType !== "BatchNormalization") return node;
    if (reference?.normalizationTrains(node) ?? true) {
      normalizations++;
      return trainingBatchNormalization(node, { b, opset });
    }
    return withFields(node, { output: node.output.slice(0, 1) });
  });
  if (!training && dropouts + normalizations > 0) {
    notes.push(
      `There is no training_model.onnx, so ${[dropouts && `${dropouts} Dropout`, normalizations && `${normalizations} BatchNormalization`].filter(Boolean).join(" and ")} nodes train as ONNX Runtime would train them: with dropout, on the statistics of the batch.`,
    );
  }
  return { model, notes };
}

/** Finds an eval model's nodes in the training model, by the value that they make or their name: passes keep those. */
class TrainingNodes {
  private readonly byOutput = new Map<string, NodeProto>();
  private readonly byName = new Map<string, NodeProto>();
  private readonly index: GraphIndex;

  constructor(training: ModelProto) {
    this.index = new GraphIndex(training.graph);
    for (const node of training.graph.node) {
      this.byOutput.set(node.output[0] ?? "", node);
      if (node.name) this.byName.set(node.name, node);
    }
  }

  private find(node: NodeProto): NodeProto | undefined {
    return this.byOutput.get(node.output[0] ?? "") ?? this.byName.get(node.name || "\0");
  }

  /** A Dropout that is gone was without effect: of ratio 0. */
  dropoutTrains(node: NodeProto): boolean {
    const found = this.find(node);
    if (found?.opType !== "Dropout") return false;
    const mode = found.input[2];
    if (!mode) return false;
    const constant = this.index.constant(mode);
    return !constant || numbersOf(constant)[0] === 1;
  }

  /** Undefined when it is computed, or ONNX's default. */
  dropoutRatio(node: NodeProto): number | undefined {
    const constant = this.index.constant(this.find(node)?.input[1] ?? "");
    return constant && numbersOf(constant)[0];
  }

  normalizationTrains(node: NodeProto): boolean {
    const found = this.find(node);
    if (found?.opType === "BatchNormInternal") return intOf(found, "training_mode", 1) === 1;
    return found?.opType === "BatchNormalization" && attributeOf(found, "training_mode") !== undefined
      ? intOf(found, "training_mode", 0) === 1
      : false;
  }
}

/**
 * A model of standard operators that computes what the forward pass computes.
 * @throws FishyError listing every operator that has no standard form.
 */
export function toStandardOperators(source: ModelProto): ModelProto {
  const { graph } = source;
  const opset = artifactOpset(source);
  const index = new GraphIndex(graph);
  const isUsed = (name: string) => index.uses(name).length > 0 || index.outputs.has(name);
  const names = takenNames(graph);
  const made = new GraphBuilder({ ...emptyGraph("artifacts"), initializer: [] }, { names, counters: new Map() });
  const problems: string[] = [];
  const nodes = graph.node.flatMap((original): NodeProto[] => {
    const node = withoutUnusedOutputs(original, isUsed);
    const label = `node '${node.name || node.output.find(Boolean)}' (${node.domain ? `${node.domain}::` : ""}${node.opType})`;
    const replace = replacementOf(node);
    if (!replace) {
      if (!isDefaultDomain(node.domain)) problems.push(`${label} is ${describeDomain(node.domain as string)}`);
      return [node];
    }
    made.graph.node = [];
    try {
      const context = { b: made, opset, constantOf: (name: string) => index.constant(name), isUsed };
      const replaced = made.scope(node.name || (node.opType ?? ""), () => replace(node, context));
      return replaced ? [...made.graph.node, replaced] : made.graph.node;
    } catch (error) {
      if (!(error instanceof NoStandardForm)) throw error;
      problems.push(`${label} ${error.message}`);
      return [node];
    }
  });
  if (problems.length > 0) {
    throw new FishyError(
      `The artifacts' forward pass cannot be written with standard operators:\n${problems.map((problem) => `  - ${problem}`).join("\n")}`,
    );
  }
  const converted: GraphProto = withFields(graph, {
    node: nodes,
    initializer: [...graph.initializer, ...made.graph.initializer],
  });
  const opsetImport: OperatorSetId[] = [{ domain: "", version: opset }];
  return withFields(source, { graph: converted, opsetImport });
}

function describeDomain(domain: string): string {
  if (domain === "com.microsoft") return "an operator of ONNX Runtime alone, which fishy does not know";
  if (domain === "org.pytorch.aten") return "a call into PyTorch, as ORTModule writes it";
  return "a custom operator: plain ONNX Runtime has no kernel for it";
}

function withoutUnusedOutputs(node: NodeProto, isUsed: (name: string) => boolean): NodeProto {
  const required = OPTIONAL_OUTPUTS[node.opType ?? ""];
  if (required === undefined) return node;
  let length = node.output.length;
  while (length > required && !(node.output[length - 1] && isUsed(node.output[length - 1] as string))) length--;
  return length === node.output.length ? node : withFields(node, { output: node.output.slice(0, length) });
}
