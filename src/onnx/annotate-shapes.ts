/**
 * Writing symbolic shapes into a graph where ONNX Runtime would lose them. It gives every lost dimension a name of its
 * own, which takes time quadratic in their number and keeps tensors from sharing memory.
 */
import { intOf, tensorOf } from "./attributes.js";
import { type ValueType, valueInfo } from "./builder.js";
import { constantTensor, topologicalOrder } from "./graph.js";
import { DataType, type GraphProto, type NodeProto } from "./proto.js";
import { completeShapes } from "./refine-shapes.js";
import { declaredType, type TypeMap, tensorType } from "./types.js";
import { isDefaultDomain } from "./versions.js";

/** Operators whose output shape is the value of an input: what ONNX Runtime does not follow. */
const LOSING: ReadonlySet<string> = new Set("Reshape Flatten Expand ConstantOfShape Range Slice Pad".split(" "));

const COMPARISONS: ReadonlySet<string> = new Set(
  "Equal Less LessOrEqual Greater GreaterOrEqual Not And Or Xor IsNaN IsInf".split(" "),
);
const POSITIONS: ReadonlySet<string> = new Set("Shape Size NonZero ArgMax ArgMin".split(" "));

/** Adds value infos for the outputs of such operators, where all dimensions are known and one of them is a symbol. */
export function annotateShapes(graph: GraphProto, types: TypeMap): void {
  const shapes = completeShapes(graph, types);
  const elemTypes = elementTypes(graph, types);
  const annotated = new Set(graph.valueInfo.map(({ name }) => name));
  for (const { name } of graph.output) annotated.add(name);
  for (const node of graph.node) {
    if (!isDefaultDomain(node.domain) || !LOSING.has(node.opType ?? "")) continue;
    const [name = ""] = node.output;
    const shape = shapes.get(name) ?? types.get(name)?.shape;
    const elemType = elemTypes.get(name);
    if (!shape || elemType === undefined || annotated.has(name) || shape.includes(null)) continue;
    if (shape.some((dim) => typeof dim === "string")) graph.valueInfo.push(valueInfo(name, { elemType, shape }));
  }
}

function elementTypes(graph: GraphProto, types: TypeMap): Map<string, DataType> {
  const known = new Map<string, DataType>();
  const learn = (name: string, type: ValueType | undefined) => {
    if (name && type) known.set(name, type.elemType);
  };
  for (const tensor of graph.initializer) learn(tensor.name ?? "", tensorType(tensor));
  for (const input of graph.input) learn(input.name ?? "", declaredType(input));
  for (const [name, type] of types) learn(name, type);
  for (const node of topologicalOrder(graph)) {
    const type = elementTypeOf(node, known);
    const made = node.opType === "Split" ? node.output : node.output.slice(0, 1);
    if (type !== undefined) for (const name of made) if (!known.has(name)) known.set(name, type);
  }
  return known;
}

/** The element type of a node's first output, for the operators that programs are emitted in. */
function elementTypeOf(node: NodeProto, known: ReadonlyMap<string, DataType>): DataType | undefined {
  const input = (i: number) => known.get(node.input[i] ?? "");
  const opType = node.opType ?? "";
  if (!isDefaultDomain(node.domain)) return undefined;
  if (COMPARISONS.has(opType)) return DataType.BOOL;
  if (POSITIONS.has(opType)) return DataType.INT64;
  switch (opType) {
    case "Cast":
      return intOf(node, "to", DataType.UNDEFINED) as DataType;
    case "CastLike":
    case "Where":
      return input(1);
    case "OneHot":
      return input(2);
    case "Constant": {
      const tensor = constantTensor(node, "");
      return tensor && tensorType(tensor).elemType;
    }
    case "ConstantOfShape": {
      const value = tensorOf(node, "value");
      return value ? tensorType(value).elemType : DataType.FLOAT;
    }
    default:
      return input(0);
  }
}
