/**
 * ONNX's own form of a training step, `training_info` (https://onnx.ai/onnx/repo-docs/IR.html, "Training Related
 * Information"): an algorithm graph that goes on from the model's graph, and which of its outputs become which
 * initializers. Read as a source model whose loss is in the graph, and written.
 */
import { FishyError } from "../errors.js";
import { floatOf, stringOf, stringsOf } from "../onnx/attributes.js";
import { withFields } from "../onnx/codec.js";
import { topologicalOrder } from "../onnx/graph.js";
import type { GraphProto, ModelProto, TensorProto, ValueInfoProto } from "../onnx/proto.js";
import { dataOf } from "../onnx/tensor.js";
import type { ArtifactOptimizer } from "./optimizer-model.js";
import { isTrainingOperator } from "./training-operators.js";

export interface TrainingStep {
  /** The model's graph with what the loss needs of the algorithm; without training_info. */
  readonly proto: ModelProto;
  readonly loss: string;
  readonly trainable: readonly string[];
  /** The model's own outputs. */
  readonly outputs: readonly string[];
  /** Undefined when the algorithm's optimizer is none of fishy's. */
  readonly optimizer?: ArtifactOptimizer;
  readonly notes: readonly string[];
}

/** The model's graph and its algorithms as one graph, which returns what the bindings take. */
export function combinedGraph(model: ModelProto): GraphProto {
  const { graph } = model;
  const algorithms = model.trainingInfo.flatMap(({ algorithm }) => (algorithm ? [algorithm] : []));
  const unique = <T extends { name?: string }>(values: readonly T[]) => [
    ...new Map(values.map((value) => [value.name, value])).values(),
  ];
  return {
    ...graph,
    node: [graph, ...algorithms].flatMap(({ node }) => node),
    initializer: unique([graph, ...algorithms].flatMap(({ initializer }) => initializer)),
    input: unique([graph, ...algorithms].flatMap(({ input }) => input)),
    output: unique([graph, ...algorithms].flatMap(({ output }) => output)),
    valueInfo: [],
  };
}

/**
 * Reads the training step of a model with `training_info`.
 * @throws FishyError when it has no Gradient of one loss, takes it at other values than those in the graph, or with
 * respect to nothing that is an initializer.
 */
export function readTrainingInfo(model: ModelProto): TrainingStep {
  const combined = combinedGraph(model);
  const gradients = combined.node.filter((node) => isTrainingOperator(node, "Gradient"));
  const losses = new Set(gradients.map((node) => stringOf(node, "y", "")));
  const [loss] = losses;
  if (loss === undefined || losses.size > 1) {
    throw new FishyError(
      `The model's training_info has ${gradients.length === 0 ? "no Gradient" : `Gradients of ${losses.size} values`}; fishy takes over a training step that differentiates one loss. Delete its training_info (model.ClearField("training_info")) to use the model as it is.`,
    );
  }
  const initializers = new Set(model.graph.initializer.map(({ name = "" }) => name));
  const trainable: string[] = [];
  for (const node of gradients) {
    const xs = stringsOf(node, "xs") ?? [];
    const sources = [...xs, ...(stringsOf(node, "zs") ?? [])];
    const moved = sources.find((name, i) => node.input[i] !== name);
    if (moved !== undefined) {
      throw new FishyError(
        `The Gradient '${node.name || node.output[0]}' of the model's training_info is taken at another value than '${moved}'; fishy trains at the values in the graph.`,
      );
    }
    trainable.push(...xs.filter((name) => initializers.has(name)));
  }
  if (trainable.length === 0) {
    throw new FishyError(
      "The Gradient of the model's training_info is with respect to nothing that is an initializer of its graph.",
    );
  }
  const notes: string[] = [];
  if (model.trainingInfo.some(({ initialization }) => initialization?.node.length)) {
    notes.push("The initialization of training_info is not run: training starts from the model's own initializers.");
  }
  const optimizer = readOptimizer(combined, notes);
  return {
    proto: withFields(model, { graph: withLoss(model.graph, combined, loss), trainingInfo: [] }),
    loss,
    trainable,
    outputs: model.graph.output.map(({ name = "" }) => name),
    ...(optimizer && { optimizer }),
    notes,
  };
}

/** The model's graph, and of the algorithm what the loss needs. */
function withLoss(graph: GraphProto, combined: GraphProto, loss: string): GraphProto {
  const producers = new Map(combined.node.flatMap((node) => node.output.map((output) => [output, node] as const)));
  const needed = new Set(graph.node);
  const read = new Set<string>();
  const pending = [loss, ...graph.node.flatMap(({ input }) => input)];
  while (pending.length > 0) {
    const name = pending.pop() as string;
    if (read.has(name)) continue;
    read.add(name);
    const node = producers.get(name);
    if (!node) continue;
    needed.add(node);
    pending.push(...node.input);
  }
  const node = topologicalOrder({ ...combined, node: combined.node.filter((each) => needed.has(each)) });
  if (!producers.has(loss)) throw new FishyError(`The training_info differentiates '${loss}', which nothing makes.`);
  const own = new Set([...graph.input, ...graph.initializer].map(({ name }) => name));
  const isUsed = ({ name = "" }: ValueInfoProto | TensorProto) => own.has(name) || read.has(name);
  const outputs = graph.output.some(({ name }) => name === loss) ? graph.output : [{ name: loss }, ...graph.output];
  return withFields(graph, {
    node,
    input: combined.input.filter(isUsed),
    initializer: combined.initializer.filter(isUsed),
    output: outputs,
  });
}

/** The optimizer that the algorithm's nodes describe. */
function readOptimizer(combined: GraphProto, notes: string[]): ArtifactOptimizer | undefined {
  const node = combined.node.find((each) => isTrainingOperator(each) && each.opType !== "Gradient");
  if (!node) return undefined;
  const rate = combined.initializer.find(({ name }) => name === node.input[0]);
  const learningRate = rate && Number(dataOf(rate)[0]);
  const speed = learningRate === undefined ? {} : { learningRate };
  const decay = floatOf(node, "norm_coefficient", 0);
  if (node.opType === "Momentum") {
    return {
      name: "sgd",
      momentum: decimal(floatOf(node, "alpha", 0)),
      dampening: decimal(1 - floatOf(node, "beta", 1)),
      nesterov: stringOf(node, "mode", "standard") === "nesterov",
      weightDecay: decimal(decay),
      ...speed,
    };
  }
  const post = floatOf(node, "norm_coefficient_post", 0);
  const expressible = decay === 0 && (post === 0 || (learningRate ?? 0) > 0);
  if (node.opType === "Adam" && expressible) {
    return {
      name: "adamw",
      beta1: decimal(floatOf(node, "alpha", 0.9)),
      beta2: decimal(floatOf(node, "beta", 0.999)),
      epsilon: decimal(floatOf(node, "epsilon", 1e-6)),
      // Adam multiplies by 1 − norm_coefficient_post, AdamW by 1 − lr·weightDecay.
      weightDecay: post === 0 ? 0 : decimal(post / (learningRate as number)),
      mode: 1,
      biasCorrection: true,
      ...speed,
    };
  }
  notes.push(
    `The training_info's ${node.opType}${decay ? " with norm_coefficient" : ""} is none of fishy's optimizers: choose one with --optimizer.`,
  );
  return undefined;
}

function decimal(value: number): number {
  return Number(value.toPrecision(6));
}
