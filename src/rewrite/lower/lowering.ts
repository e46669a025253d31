/**
 * Lowering: before differentiation, operators that only the CPU can train (Dropout, BatchNormalization in training
 * mode) become primitives that every device runs and that have gradient rules.
 */
import type { RandomSource } from "../../families/family.js";
import { GraphBuilder } from "../../onnx/builder.js";
import { GraphIndex, topologicalOrder } from "../../onnx/graph.js";
import type { GraphProto, NodeProto, TensorProto } from "../../onnx/proto.js";
import type { TypeMap } from "../../onnx/types.js";
import { dropout } from "./dropout.js";

export interface LoweringContext {
  /** Receives the nodes that take the operator's place; they must make the node's outputs under their own names. */
  readonly b: GraphBuilder;
  readonly types: TypeMap;
  constantOf(name: string): TensorProto | undefined;
  /** Whether any node reads the value, or the graph returns it. */
  isUsed(name: string): boolean;
  /** A stream of uniforms of its own for every node. */
  random(): RandomSource;
  /** Declares the next value of a running statistic (an initializer). */
  runningStatistic(name: string, next: string): void;
}

export interface Lowering {
  readonly opType: string;
  /** Emits primitives in place of the node, or returns false to keep it. */
  lower(node: NodeProto, context: LoweringContext): boolean;
}

/** Every lowering, in one explicit list. */
const LOWERINGS: readonly Lowering[] = [dropout];

export interface LoweredGraph {
  /** Whether any node was replaced. */
  readonly changed: boolean;
  readonly runningStatistics: readonly { readonly name: string; readonly next: string }[];
}

/** Lowers the nodes of `graph` in place. */
export function lowerGraph(graph: GraphProto, types: TypeMap, random: () => RandomSource): LoweredGraph {
  const byType = new Map(LOWERINGS.map((lowering) => [lowering.opType, lowering]));
  if (!graph.node.some((node) => !node.domain && byType.has(node.opType ?? ""))) {
    return { changed: false, runningStatistics: [] };
  }
  const index = new GraphIndex(graph);
  const order = topologicalOrder(graph);
  // The builder learns every name of the graph before its nodes are taken out to be laid again one by one.
  const b = new GraphBuilder(graph);
  graph.node = [];
  const runningStatistics: { name: string; next: string }[] = [];
  let changed = false;
  const context: LoweringContext = {
    b,
    types,
    random,
    constantOf: (name) => index.constant(name),
    isUsed: (name) => index.uses(name).length > 0 || index.outputs.has(name),
    runningStatistic: (name, next) => runningStatistics.push({ name, next }),
  };
  for (const node of order) {
    const lowering = node.domain ? undefined : byType.get(node.opType ?? "");
    if (lowering && b.scope(node.output.find(Boolean) ?? "", () => lowering.lower(node, context))) changed = true;
    else graph.node.push(node);
  }
  return { changed, runningStatistics };
}
