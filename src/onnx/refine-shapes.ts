/** Finding again the dimensions that ONNX Runtime's inference loses: one walk over the graph. */
import type { Dim } from "./builder.js";
import { constantTensor, topologicalOrder } from "./graph.js";
import type { GraphProto } from "./proto.js";
import { shapesOfNode } from "./shape-rules.js";
import { constantValue, type ShapeValue, valueOfNode } from "./shape-values.js";
import type { ShapeMap, TypeMap } from "./types.js";
import { isDefaultDomain } from "./versions.js";

/**
 * Shapes that are better known than `types` says.
 * @param declared shapes that are known from elsewhere.
 */
export function refineShapes(graph: GraphProto, types: TypeMap, declared: ShapeMap): Map<string, readonly Dim[]> {
  const refined = new Map<string, readonly Dim[]>();
  const values = new Map<string, ShapeValue>();
  const overridable = new Set(graph.input.map(({ name }) => name));
  for (const tensor of graph.initializer) {
    const value = overridable.has(tensor.name) ? undefined : constantValue(tensor);
    if (value) values.set(tensor.name ?? "", value);
  }
  const shapeOf = (name: string) => refined.get(name) ?? types.get(name)?.shape;
  const scope = { shapeOf, valueOf: (name: string) => values.get(name) };
  const learn = (name: string, shape: readonly Dim[] | undefined) => {
    const known = shapeOf(name);
    if (!shape || !types.has(name)) return;
    if (!known) refined.set(name, shape);
    else if (known.length === shape.length && known.some((dim, i) => dim === null && shape[i] !== null)) {
      refined.set(
        name,
        known.map((dim, i) => dim ?? (shape[i] as Dim)),
      );
    }
  };
  for (const node of topologicalOrder(graph)) {
    const constant = constantValue(constantTensor(node, node.output[0] ?? ""));
    if (constant) values.set(node.output[0] as string, constant);
    for (const name of node.output) learn(name, declared.get(name));
    if (!isDefaultDomain(node.domain)) continue;
    const open = node.output.some((name) => name && (shapeOf(name)?.includes(null) ?? true));
    if (open) for (const [i, shape] of shapesOfNode(node, scope).entries()) learn(node.output[i] ?? "", shape);
    const value = constant ?? valueOfNode(node, scope);
    if (value) values.set(node.output[0] as string, value);
  }
  return refined;
}
