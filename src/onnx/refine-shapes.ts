/** Finding again the dimensions that ONNX Runtime's inference loses: one walk over the graph. */
import type { Dim } from "./builder.js";
import { constantTensor, topologicalOrder } from "./graph.js";
import type { GraphProto } from "./proto.js";
import { shapesOfNode } from "./shape-rules.js";
import { constantFloats, constantValue, type ShapeValue, valueOfNode } from "./shape-values.js";
import { dimsOf } from "./tensor.js";
import { declaredType, type ShapeMap, type TypeMap } from "./types.js";
import { isDefaultDomain } from "./versions.js";

/**
 * Shapes that are better known than `types` says.
 * @param declared shapes that are known from elsewhere.
 */
export function refineShapes(graph: GraphProto, types: TypeMap, declared: ShapeMap): ShapeMap {
  return walkShapes(graph, types, { declared, canLearn: (name) => types.has(name) });
}

/** Shapes that `types` does not have at all, or not as well. */
export function completeShapes(graph: GraphProto, types: TypeMap): ShapeMap {
  return walkShapes(graph, types, { declared: new Map(), canLearn: () => true });
}

interface WalkOptions {
  readonly declared: ShapeMap;
  canLearn(name: string): boolean;
}

function walkShapes(graph: GraphProto, types: TypeMap, { declared, canLearn }: WalkOptions): ShapeMap {
  const refined = new Map<string, readonly Dim[]>();
  const values = new Map<string, ShapeValue>();
  const floats = new Map<string, readonly number[]>();
  const overridable = new Set(graph.input.map(({ name }) => name));
  for (const tensor of graph.initializer) {
    const name = tensor.name ?? "";
    const value = overridable.has(name) ? undefined : constantValue(tensor);
    if (value) values.set(name, value);
    const numbers = overridable.has(name) ? undefined : constantFloats(tensor);
    if (numbers) floats.set(name, numbers);
    if (!types.has(name) && canLearn(name)) refined.set(name, dimsOf(tensor));
  }
  const shapeOf = (name: string) => refined.get(name) ?? types.get(name)?.shape;
  const scope = { shapeOf, valueOf: (name: string) => values.get(name), floatsOf: (name: string) => floats.get(name) };
  const learn = (name: string, shape: readonly Dim[] | undefined) => {
    if (!name || !shape || !canLearn(name)) return;
    const known = shapeOf(name);
    if (!known) refined.set(name, shape);
    else if (known.length === shape.length && known.some((dim, i) => dim === null && shape[i] !== null)) {
      refined.set(
        name,
        known.map((dim, i) => dim ?? (shape[i] as Dim)),
      );
    }
  };
  for (const { name = "", ...info } of graph.input)
    if (!types.has(name)) learn(name, declaredType({ name, ...info })?.shape);
  for (const node of topologicalOrder(graph)) {
    const constant = constantTensor(node, node.output[0] ?? "");
    const constantVector = constantValue(constant);
    if (constantVector) values.set(node.output[0] as string, constantVector);
    const constantNumbers = constantFloats(constant);
    if (constantNumbers) floats.set(node.output[0] as string, constantNumbers);
    if (constant && !types.has(node.output[0] ?? "")) learn(node.output[0] as string, dimsOf(constant));
    for (const name of node.output) learn(name, declared.get(name));
    if (!isDefaultDomain(node.domain)) continue;
    const open = node.output.some((name) => name && (shapeOf(name)?.includes(null) ?? true));
    if (open) for (const [i, shape] of shapesOfNode(node, scope).entries()) learn(node.output[i] ?? "", shape);
    const value = constantVector ?? valueOfNode(node, scope);
    if (value) values.set(node.output[0] as string, value);
  }
  return refined;
}
