/** Nodes that compute with shapes and not with data: they may stay on the CPU on every device. */
import type { ValueType } from "../onnx/builder.js";
import { capturedBy, topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type NodeProto } from "../onnx/proto.js";
import type { TypeMap } from "../onnx/types.js";

/**
 * Shape and Size, and the shapes and scalars that are computed from them, from constants and from the values in
 * `scalars` (such as the seed) alone.
 */
export function shapeArithmetic(graph: GraphProto, types: TypeMap, scalars: readonly string[]): Set<NodeProto> {
  const known = new Set([...scalars, ...graph.initializer.map((tensor) => tensor.name ?? "")]);
  const found = new Set<NodeProto>();
  for (const node of topologicalOrder(graph)) {
    const reads = [...node.input, ...capturedBy(node)].filter(Boolean);
    const isShape = node.opType === "Shape" || node.opType === "Size";
    if (!isShape && !reads.every((name) => known.has(name))) continue;
    if (!node.output.every((name) => isShapeOrScalar(types.get(name)))) continue;
    found.add(node);
    for (const name of node.output) known.add(name);
  }
  return found;
}

function isShapeOrScalar(type: ValueType | undefined): boolean {
  const rank = type?.shape?.length;
  if (rank === 0) return true;
  // NonZero of a shape is a matrix of one row.
  return type?.elemType === DataType.INT64 || (type?.elemType === DataType.BOOL && rank === 1);
}
