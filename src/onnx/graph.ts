/** Questions about a graph (who makes and who uses a value), and its upkeep: order, pruning, names. */
import { FishyError } from "../errors.js";
import { subgraphsOf } from "./attributes.js";
import { DataType, type GraphProto, type NodeProto, type TensorProto, type ValueInfoProto } from "./proto.js";
import { tensorFromNumbers, toNumber } from "./tensor.js";

export interface Use {
  readonly node: NodeProto;
  /** Position among the node's inputs; −1 when a subgraph of the node captures the value. */
  readonly index: number;
}

/** Producers, uses, initializers, inputs and outputs of a graph by value name. A picture of one moment: index again after a change. */
export class GraphIndex {
  readonly initializers: ReadonlyMap<string, TensorProto>;
  readonly inputs: ReadonlyMap<string, ValueInfoProto>;
  readonly outputs: ReadonlySet<string>;
  private readonly producers = new Map<string, NodeProto>();
  private readonly usesByName = new Map<string, Use[]>();

  constructor(readonly graph: GraphProto) {
    this.initializers = new Map(graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
    this.inputs = new Map(graph.input.map((input) => [input.name ?? "", input]));
    this.outputs = new Set(graph.output.map((output) => output.name ?? ""));
    for (const node of graph.node) {
      for (const output of node.output) if (output) this.producers.set(output, node);
      for (const [index, input] of node.input.entries()) this.addUse(input, { node, index });
      for (const name of capturedBy(node)) this.addUse(name, { node, index: -1 });
    }
  }

  private addUse(name: string, use: Use): void {
    if (!name) return;
    const uses = this.usesByName.get(name);
    if (uses) uses.push(use);
    else this.usesByName.set(name, [use]);
  }

  /** The node that makes the value; undefined for inputs and initializers. */
  producer(name: string): NodeProto | undefined {
    return this.producers.get(name);
  }

  uses(name: string): readonly Use[] {
    return this.usesByName.get(name) ?? [];
  }

  /** The constant behind a name: an initializer, or the tensor of a Constant node. */
  constant(name: string): TensorProto | undefined {
    const initializer = this.initializers.get(name);
    if (initializer) return initializer;
    return constantTensor(this.producers.get(name), name);
  }
}

/** The tensor of a Constant node, however its attribute spells it; undefined for strings, sparse tensors and other nodes. */
export function constantTensor(node: NodeProto | undefined, name: string): TensorProto | undefined {
  if (node?.opType !== "Constant" || node.domain) return undefined;
  const attribute = node.attribute[0];
  switch (attribute?.name) {
    case "value":
      return attribute.t ?? undefined;
    case "value_int":
      return tensorFromNumbers(name, DataType.INT64, [], [toNumber(attribute.i)]);
    case "value_ints":
      return tensorFromNumbers(
        name,
        DataType.INT64,
        [attribute.ints?.length ?? 0],
        (attribute.ints ?? []).map((value) => toNumber(value)),
      );
    case "value_float":
      return tensorFromNumbers(name, DataType.FLOAT, [], [attribute.f ?? 0]);
    case "value_floats":
      return tensorFromNumbers(name, DataType.FLOAT, [attribute.floats?.length ?? 0], attribute.floats ?? []);
    default:
      return undefined;
  }
}

/** Values of the outer scope that the subgraphs of a node read. */
export function capturedBy(node: NodeProto): Set<string> {
  const captured = new Set<string>();
  for (const graph of subgraphsOf(node)) {
    const local = new Set<string>([
      ...graph.input.map((input) => input.name ?? ""),
      ...graph.initializer.map((tensor) => tensor.name ?? ""),
      ...graph.node.flatMap((inner) => inner.output),
    ]);
    for (const inner of graph.node) {
      for (const name of [...inner.input, ...capturedBy(inner)]) if (name && !local.has(name)) captured.add(name);
    }
    for (const output of graph.output) if (output.name && !local.has(output.name)) captured.add(output.name);
  }
  return captured;
}

/** Every value name in the graph and its subgraphs, defined or used. */
export function allNames(graph: GraphProto, names = new Set<string>()): Set<string> {
  for (const value of [...graph.input, ...graph.output, ...graph.valueInfo, ...graph.initializer]) {
    if (value.name) names.add(value.name);
  }
  for (const node of graph.node) {
    for (const name of [...node.input, ...node.output]) if (name) names.add(name);
    for (const inner of subgraphsOf(node)) allNames(inner, names);
  }
  return names;
}

/** Every name that a new value or node must not have: ONNX Runtime refuses two nodes of one name. */
export function takenNames(graph: GraphProto, names = allNames(graph)): Set<string> {
  for (const node of graph.node) {
    if (node.name) names.add(node.name);
    for (const inner of subgraphsOf(node)) takenNames(inner, names);
  }
  return names;
}

/** Nodes in an order in which every value is made before it is used; stable for a graph that is in order. */
export function topologicalOrder(graph: GraphProto): NodeProto[] {
  const producers = new Map<string, NodeProto>();
  for (const node of graph.node) for (const output of node.output) if (output) producers.set(output, node);
  const state = new Map<NodeProto, "open" | "done">();
  const order: NodeProto[] = [];
  // An explicit stack: graphs of tens of thousands of nodes overflow the call stack.
  for (const root of graph.node) {
    const stack: NodeProto[] = [root];
    while (stack.length > 0) {
      const node = stack[stack.length - 1] as NodeProto;
      if (state.get(node) === "done") {
        stack.pop();
        continue;
      }
      if (state.get(node) === "open") {
        state.set(node, "done");
        order.push(node);
        stack.pop();
        continue;
      }
      state.set(node, "open");
      const needed = [...node.input, ...capturedBy(node)];
      for (let i = needed.length - 1; i >= 0; i--) {
        const producer = producers.get(needed[i] as string);
        if (!producer || state.get(producer) === "done") continue;
        if (state.get(producer) === "open") {
          throw new FishyError(`The graph has a cycle through node '${node.name || node.opType}'.`);
        }
        stack.push(producer);
      }
    }
  }
  return order;
}

/**
 * The values that depend on others, and these themselves; also through what subgraphs capture.
 * @param order nodes in topological order.
 * @param stops nodes that pass no dependence on.
 */
export function dependents(
  order: readonly NodeProto[],
  sources: Iterable<string>,
  stops: (node: NodeProto) => boolean = () => false,
): Set<string> {
  const found = new Set(sources);
  for (const node of order) {
    if (stops(node) || ![...node.input, ...capturedBy(node)].some((name) => found.has(name))) continue;
    for (const output of node.output) if (output) found.add(output);
  }
  return found;
}

/** The inputs that a run must feed: those without an initializer, which would be their default. */
export function requiredInputs(graph: GraphProto): string[] {
  const initializers = new Set(graph.initializer.map(({ name }) => name));
  return graph.input.map(({ name = "" }) => name).filter((name) => !initializers.has(name));
}

/**
 * Removes the nodes, initializers and value infos that the graph's outputs do not need. Inputs stay: they are the
 * graph's contract.
 */
export function prune(graph: GraphProto): void {
  const producers = new Map<string, NodeProto>();
  for (const node of graph.node) for (const output of node.output) if (output) producers.set(output, node);
  const needed = new Set<string>();
  const kept = new Set<NodeProto>();
  const pending = graph.output.map((output) => output.name ?? "");
  while (pending.length > 0) {
    const name = pending.pop() as string;
    if (!name || needed.has(name)) continue;
    needed.add(name);
    const node = producers.get(name);
    if (!node || kept.has(node)) continue;
    kept.add(node);
    pending.push(...node.input, ...capturedBy(node));
  }
  graph.node = graph.node.filter((node) => kept.has(node));
  graph.initializer = graph.initializer.filter((tensor) => needed.has(tensor.name ?? ""));
  const made = new Set(graph.node.flatMap((node) => node.output));
  graph.valueInfo = graph.valueInfo.filter((info) => made.has(info.name ?? ""));
}
