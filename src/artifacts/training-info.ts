/**
 * ONNX's own form of a training step, `training_info` (https://onnx.ai/onnx/repo-docs/IR.html, "Training Related
 * Information"): an algorithm graph that goes on from the model's graph, and which of its outputs become which
 * initializers. Read as a source model whose loss is in the graph, and written.
 */
import { FishyError } from "../errors.js";
import { attributesFrom, floatOf, stringOf, stringsOf } from "../onnx/attributes.js";
import { valueInfo } from "../onnx/builder.js";
import { withFields } from "../onnx/codec.js";
import { takenNames, topologicalOrder } from "../onnx/graph.js";
import {
  DataType,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from "../onnx/proto.js";
import { dataOf, dimsOf, elementCount, newData, tensorFromData, tensorFromNumbers } from "../onnx/tensor.js";
import { tensorType } from "../onnx/types.js";
import type { ArtifactOptimizer } from "./optimizer-model.js";
import { isTrainingOperator, TRAINING_DOMAIN } from "./training-operators.js";

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

export type AlgorithmName = "adam" | "adagrad" | "momentum";

/** Operator, attributes, and the states of each, all zero at first. */
const ALGORITHMS = {
  adam: { opType: "Adam", states: ["V", "H"] },
  adagrad: { opType: "Adagrad", states: ["H"] },
  momentum: { opType: "Momentum", states: ["V"] },
} as const;

export interface TrainingInfoOptions {
  readonly algorithm: AlgorithmName;
  /** R. */
  readonly learningRate: number;
  /** Attributes of the operator, floats and strings as it has them. */
  readonly attributes?: Parameters<typeof attributesFrom>[0];
}

/**
 * Writes a training step into a model: the Gradient of `loss`, an optimizer, and bindings of parameters, states and the
 * count of steps.
 * @param model the forward pass and the loss. What its own outputs need stays its graph; what the loss alone needs
 * becomes the algorithm.
 */
export function withTrainingInfo(
  model: ModelProto,
  step: Pick<TrainingStep, "loss" | "trainable" | "outputs">,
  options: TrainingInfoOptions,
): ModelProto {
  const { graph } = model;
  const { opType, states } = ALGORITHMS[options.algorithm];
  const mainNodes = new Set(closure(graph, step.outputs));
  const lossNodes = closure(graph, [step.loss]).filter((node) => !mainNodes.has(node));
  const parameters = step.trainable.map((name) => {
    const tensor = graph.initializer.find((each) => each.name === name);
    if (!tensor) throw new FishyError(`'${name}' is no initializer of the model and cannot be bound by training_info.`);
    return tensor;
  });
  const read = new Set([...lossNodes, ...mainNodes].flatMap(({ input }) => input));
  const data = graph.input.map(({ name = "" }) => name).filter((name) => read.has(name));
  const gradient = (name: string) => `${name}_grad`;
  const state = (name: string, kind: string) => `${name}/${kind}`;
  const next = (name: string) => `${name}_next`;
  const of = (make: (name: string) => string) => step.trainable.map(make);
  const taken = takenNames(graph);
  const free = (name: string): string => (taken.has(name) ? free(`${name}_`) : name);
  const names = { rate: free("learning_rate"), count: free("step"), one: free("one") };
  const scalars = [
    tensorFromNumbers(names.rate, DataType.FLOAT, [], [options.learningRate]),
    tensorFromNumbers(names.count, DataType.INT64, [], [0]),
    tensorFromNumbers(names.one, DataType.INT64, [], [1]),
  ];
  const nodes: NodeProto[] = [
    ...lossNodes,
    {
      opType: "Gradient",
      domain: TRAINING_DOMAIN,
      name: "gradient",
      input: [...step.trainable, ...data],
      output: of(gradient),
      attribute: attributesFrom({
        xs: [...step.trainable],
        zs: data.length > 0 ? data : undefined,
        y: step.loss,
      }),
    },
    {
      opType,
      domain: TRAINING_DOMAIN,
      name: "optimizer",
      input: [
        names.rate,
        names.count,
        ...step.trainable,
        ...of(gradient),
        ...states.flatMap((kind) => of((name) => state(name, kind))),
      ],
      output: [...of(next), ...states.flatMap((kind) => of((name) => next(state(name, kind))))],
      attribute: attributesFrom(options.attributes ?? {}),
    },
    { opType: "Add", name: "count", input: [names.count, names.one], output: [next(names.count)], attribute: [] },
  ];
  const bound = [...step.trainable, ...states.flatMap((kind) => of((name) => state(name, kind))), names.count];
  const mainRead = new Set([...mainNodes].flatMap(({ input }) => input));
  const belongsToMain = ({ name = "" }: TensorProto | ValueInfoProto) =>
    mainRead.has(name) || step.trainable.includes(name);
  const algorithm: GraphProto = {
    name: "training",
    node: nodes,
    initializer: [
      ...graph.initializer.filter((tensor) => !belongsToMain(tensor)),
      ...states.flatMap((kind) =>
        parameters.map((tensor) => {
          const type = tensor.dataType as DataType;
          const zeros = newData(type, elementCount(dimsOf(tensor)));
          return tensorFromData(state(tensor.name ?? "", kind), type, dimsOf(tensor), zeros);
        }),
      ),
      ...scalars,
    ],
    input: graph.input.filter((input) => !belongsToMain(input) && data.includes(input.name ?? "")),
    output: [
      valueInfo(step.loss, { elemType: DataType.FLOAT, shape: [] }),
      ...[step.trainable, ...states.map(() => step.trainable)].flatMap((each, group) =>
        each.map((name, i) =>
          valueInfo(
            next(group === 0 ? name : state(name, states[group - 1] as string)),
            tensorType(parameters[i] as TensorProto),
          ),
        ),
      ),
      valueInfo(next(names.count), { elemType: DataType.INT64, shape: [] }),
    ],
    valueInfo: [],
  };
  return withFields(model, {
    graph: withFields(graph, {
      node: graph.node.filter((node) => mainNodes.has(node)),
      initializer: graph.initializer.filter(belongsToMain),
      input: graph.input.filter(belongsToMain),
      output: graph.output.filter(({ name = "" }) => step.outputs.includes(name)),
      valueInfo: [],
    }),
    opsetImport: [
      ...model.opsetImport.filter(({ domain }) => domain !== TRAINING_DOMAIN),
      { domain: TRAINING_DOMAIN, version: 1 },
    ],
    trainingInfo: [
      {
        algorithm,
        initializationBinding: [],
        updateBinding: bound.map((name) => ({ key: name, value: next(name) })),
      },
    ],
  });
}

/** The nodes that `names` need, in order. */
function closure(graph: GraphProto, names: readonly string[]): NodeProto[] {
  const producers = new Map(graph.node.flatMap((node) => node.output.map((output) => [output, node] as const)));
  const needed = new Set<NodeProto>();
  const pending = [...names];
  while (pending.length > 0) {
    const node = producers.get(pending.pop() as string);
    if (!node || needed.has(node)) continue;
    needed.add(node);
    pending.push(...node.input);
  }
  return graph.node.filter((node) => needed.has(node));
}
