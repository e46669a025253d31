/**
 * Splits a graph: what a GPU has no kernel for and depends on the host's inputs alone (the halves of an int64 seed, the
 * indices of a mask) is computed on the CPU before a run, and its results are inputs of the rest.
 */
import { type ValueType, valueInfo } from "../onnx/builder.js";
import { capturedBy, prune, topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type NodeProto } from "../onnx/proto.js";
import type { TypeMap } from "../onnx/types.js";
import { constantValues } from "./constant-values.js";

/** Types that may cross to the device. */
const FED: ReadonlySet<number> = new Set([DataType.FLOAT, DataType.INT32, DataType.UINT32, DataType.BOOL]);

/**
 * Takes nodes out of `graph`, in place.
 * @param hostInputs inputs whose values the host has at every run.
 * @param isMisplaced whether a node cannot run on the device.
 * @returns the graph of the host, or undefined when there is nothing for it.
 */
export function splitHostPart(
  graph: GraphProto,
  types: TypeMap,
  hostInputs: ReadonlySet<string>,
  isMisplaced: (node: NodeProto) => boolean,
): GraphProto | undefined {
  const order = topologicalOrder(graph);
  const producers = new Map<string, NodeProto>();
  for (const node of order) for (const name of node.output) producers.set(name, node);
  const constants = constantValues(graph);
  const known = new Set([...hostInputs, ...constants]);
  const onHost = (name: string) => !name || known.has(name);
  const candidates = new Set<NodeProto>();
  for (const node of order) {
    if (![...node.input, ...capturedBy(node)].every(onHost)) continue;
    candidates.add(node);
    for (const name of node.output) known.add(name);
  }
  const taken = new Set<NodeProto>();
  const take = (node: NodeProto | undefined): void => {
    if (!node || taken.has(node)) return;
    taken.add(node);
    for (const name of [...node.input, ...capturedBy(node)]) take(producers.get(name));
  };
  const isConstant = (node: NodeProto) => node.output.every((name) => !name || constants.has(name));
  for (const node of order) if (candidates.has(node) && !isConstant(node) && isMisplaced(node)) take(node);
  // What the device cannot be fed is carried on to something that it can.
  for (const node of order) {
    if (!candidates.has(node) || taken.has(node)) continue;
    const crosses = node.input.some((name) => {
      const producer = producers.get(name);
      return producer && taken.has(producer) && !constants.has(name) && !FED.has(types.get(name)?.elemType ?? 0);
    });
    if (crosses) take(node);
  }
  if (taken.size === 0) return undefined;

  // Constants may be needed on both sides.
  const rest = order.filter((node) => !taken.has(node) || isConstant(node));
  const read = new Set([
    ...rest.flatMap((node) => [...node.input, ...capturedBy(node)]),
    ...graph.output.map(({ name }) => name ?? ""),
  ]);
  const crossing = [...taken].flatMap((node) => node.output).filter((name) => read.has(name) && !constants.has(name));
  const infos = crossing.map((name) => valueInfo(name, types.get(name) as ValueType));
  const host: GraphProto = {
    ...graph,
    name: `${graph.name ?? "graph"}_host`,
    node: order.filter((node) => taken.has(node)),
    initializer: [...graph.initializer],
    input: [...graph.input],
    output: infos,
    valueInfo: [],
  };
  prune(host);
  const used = new Set(host.node.flatMap((node) => [...node.input, ...capturedBy(node)]));
  host.input = host.input.filter(({ name }) => used.has(name ?? ""));
  graph.node = rest;
  graph.input = [...graph.input, ...infos];
  prune(graph);
  return host;
}
