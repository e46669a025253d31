/**
 * Lowering: before differentiation, operators that only the CPU can train (Dropout, BatchNormalization in training
 * mode) and operators without a gradient rule of their own (recurrent layers, control flow, sequences) become
 * primitives that every device runs and that have gradient rules.
 */
import { planReverse } from "../../autodiff/reverse.js";
import type { RandomSource } from "../../families/family.js";
import { type Dim, GraphBuilder } from "../../onnx/builder.js";
import { constantTensor, GraphIndex, topologicalOrder } from "../../onnx/graph.js";
import type { GraphProto, NodeProto, TensorProto } from "../../onnx/proto.js";
import type { TypeMap } from "../../onnx/types.js";
import { isDefaultDomain } from "../../onnx/versions.js";
import { batchNormalization } from "./batch-normalization.js";
import { dropout } from "./dropout.js";
import { gru } from "./gru.js";
import { ifElse } from "./if.js";
import { loop } from "./loop.js";
import { lstm } from "./lstm.js";
import { dequantize, quantize } from "./quantize.js";
import { rnn } from "./rnn.js";
import { scan } from "./scan.js";
import { concatFromSequence, sequenceAt, splitToSequence } from "./sequence.js";

export interface LoweringContext {
  /** Receives the nodes that take the operator's place; they must make the node's outputs under their own names. */
  readonly b: GraphBuilder;
  readonly types: TypeMap;
  constantOf(name: string): TensorProto | undefined;
  /** The node that makes a value, among the source's and those emitted so far. */
  producer(name: string): NodeProto | undefined;
  /** Whether any node reads the value, or the graph returns it. */
  isUsed(name: string): boolean;
  /** Whether the value lies between something that may train and an output of the graph. */
  isOnGradientPath(name: string): boolean;
  /** Whether gradients pass straight through quantisation. */
  readonly straightThrough: boolean;
  /** A stream of uniforms of its own for every node. */
  random(): RandomSource;
  /** Declares the next value of a running statistic (an initializer). */
  runningStatistic(name: string, next: string): void;
  /** States the shape of an emitted value where the operator's meaning tells more than inference can. */
  declareShape(name: string, shape: readonly Dim[]): void;
  /**
   * Takes back what the lowering emitted and keeps the node. `reason` goes into the error that names the node, should
   * it stand between a parameter and the loss; it says what is in the way and the remedy.
   */
  refuse(reason: string): false;
}

export interface Lowering {
  readonly opType: string;
  /** Emits primitives in place of the node, or returns false to keep it. */
  lower(node: NodeProto, context: LoweringContext): boolean;
}

/** Every lowering, in one explicit list. */
export const LOWERINGS: readonly Lowering[] = [
  ...[dropout, batchNormalization],
  ...[lstm, gru, rnn],
  ...[ifElse, loop, scan],
  ...[splitToSequence, sequenceAt, concatFromSequence],
  ...[quantize, dequantize],
];

const LOWERING_OF = new Map(LOWERINGS.map((lowering) => [lowering.opType, lowering]));

function loweringOf(node: NodeProto): Lowering | undefined {
  return isDefaultDomain(node.domain) ? LOWERING_OF.get(node.opType ?? "") : undefined;
}

export interface LoweredGraph {
  /** Whether any node was replaced. */
  readonly changed: boolean;
  /** Whether nodes were emitted (from the bodies of control flow) that can be lowered in their turn. */
  readonly unfinished: boolean;
  readonly runningStatistics: readonly { readonly name: string; readonly next: string }[];
  /** Shapes of emitted values. */
  readonly shapes: ReadonlyMap<string, readonly Dim[]>;
  /** Why nodes were kept. */
  readonly refusals: ReadonlyMap<NodeProto, string>;
}

export interface LoweringOptions {
  /** Lets gradients pass straight through quantisation. Default false. */
  readonly straightThrough?: boolean;
}

/**
 * Lowers the nodes of `graph` in place.
 * @param random makes a stream of uniforms of its own for every caller.
 * @param trainable initializers that may train; default none.
 */
export function lowerGraph(
  graph: GraphProto,
  types: TypeMap,
  random: () => RandomSource,
  trainable: readonly string[] = [],
  { straightThrough = false }: LoweringOptions = {},
): LoweredGraph {
  const runningStatistics: { name: string; next: string }[] = [];
  const shapes = new Map<string, readonly Dim[]>();
  const refusals = new Map<NodeProto, string>();
  const result = { runningStatistics, shapes, refusals };
  if (!graph.node.some(loweringOf)) return { ...result, changed: false, unfinished: false };

  const source: GraphProto = { ...graph };
  const index = new GraphIndex(source);
  const order = topologicalOrder(source);
  // The builder learns every name of the graph before its nodes are taken out to be laid again one by one.
  const b = new GraphBuilder(graph);
  const nodes: NodeProto[] = [];
  graph.node = nodes;
  let active: ReadonlySet<string> | undefined;
  const gradientPath = () => {
    const seeds = new Set(source.output.map((output) => output.name ?? ""));
    active ??= planReverse({ forward: source, types, wrt: trainable, seeds }).active;
    return active;
  };
  const emitted = new Emitted(graph);
  let refusal: string | undefined;
  const context: LoweringContext = {
    b,
    types,
    straightThrough,
    random,
    constantOf: (name) => emitted.constant(name) ?? index.constant(name),
    producer: (name) => emitted.producer(name) ?? index.producer(name),
    isUsed: (name) => index.uses(name).length > 0 || index.outputs.has(name),
    isOnGradientPath: (name) => gradientPath().has(name),
    runningStatistic: (name, next) => runningStatistics.push({ name, next }),
    declareShape: (name, shape) => shapes.set(name, shape),
    refuse: (reason) => {
      refusal = reason;
      return false;
    },
  };
  let changed = false;
  let unfinished = false;
  for (const node of order) {
    const lowering = loweringOf(node);
    const before = nodes.length;
    refusal = undefined;
    if (lowering && b.scope(node.output.find(Boolean) ?? "", () => lowering.lower(node, context))) {
      changed = true;
      unfinished ||= nodes.slice(before).some(loweringOf);
      continue;
    }
    emitted.truncate(before);
    nodes.push(node);
    if (refusal !== undefined) refusals.set(node, refusal);
  }
  return { ...result, changed, unfinished };
}

/** What has been emitted so far, found without indexing the graph again. */
class Emitted {
  private readonly producers = new Map<string, NodeProto>();
  private readonly initializers = new Map<string, TensorProto>();
  private nodes = 0;
  private tensors = 0;

  constructor(private readonly graph: GraphProto) {
    this.tensors = graph.initializer.length;
  }

  producer(name: string): NodeProto | undefined {
    const { node } = this.graph;
    for (; this.nodes < node.length; this.nodes++) {
      const made = node[this.nodes] as NodeProto;
      for (const output of made.output) if (output) this.producers.set(output, made);
    }
    return this.producers.get(name);
  }

  constant(name: string): TensorProto | undefined {
    const { initializer } = this.graph;
    for (; this.tensors < initializer.length; this.tensors++) {
      const tensor = initializer[this.tensors] as TensorProto;
      this.initializers.set(tensor.name ?? "", tensor);
    }
    return this.initializers.get(name) ?? constantTensor(this.producer(name), name);
  }

  /** Drops the nodes from `length` on. */
  truncate(length: number): void {
    for (const node of this.graph.node.splice(length)) for (const name of node.output) this.producers.delete(name);
    this.nodes = Math.min(this.nodes, length);
  }
}
