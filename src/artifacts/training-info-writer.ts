/** Writing ONNX's own form of a training step, `training_info`. */
import { FishyError } from "../errors.js";
import { attributesFrom } from "../onnx/attributes.js";
import { valueInfo } from "../onnx/builder.js";
import { withFields } from "../onnx/codec.js";
import { takenNames } from "../onnx/graph.js";
import {
  DataType,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from "../onnx/proto.js";
import { dimsOf, elementCount, newData, tensorFromData, tensorFromNumbers } from "../onnx/tensor.js";
import { tensorType } from "../onnx/types.js";
import type { TrainingStep } from "./training-info.js";
import { TRAINING_DOMAIN } from "./training-operators.js";

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
