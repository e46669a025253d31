/**
 * int64 turns into int32 where a graph computes with data: WebGPU has no int64 arithmetic. Shapes, axes and what
 * operators demand in int64 (indices of GatherND) stay.
 */
import { FishyError } from "../errors.js";
import { attributesFrom, intOf } from "../onnx/attributes.js";
import { GraphBuilder, valueInfo } from "../onnx/builder.js";
import { constantTensor, topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type TensorProto } from "../onnx/proto.js";
import { dimsOf, numbersOf, tensorFromNumbers } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";

/** Input positions that share the operator's element type, which may be int32. */
const SAME_TYPE: Readonly<Record<string, readonly number[] | "all">> = {
  ...Object.fromEntries(
    (
      "Add Sub Mul Div Mod Pow Neg Abs Sign Min Max Equal Less Greater LessOrEqual GreaterOrEqual Concat Identity Clip " +
      "Sum CastLike"
    )
      .split(" ")
      .map((operator) => [operator, "all"]),
  ),
  ...Object.fromEntries(
    (
      "Reshape Flatten Squeeze Unsqueeze Transpose Expand Tile Slice Split Gather GatherElements GatherND CumSum " +
      "ReduceSum ReduceMax ReduceMin ReduceProd ArgMax ArgMin Shape Size Trilu"
    )
      .split(" ")
      .map((operator) => [operator, [0]]),
  ),
  Where: [1, 2],
  Pad: [0, 2],
  Range: "all",
  ScatterElements: [0, 2],
  ScatterND: [0, 2],
  OneHot: [0],
};

/** Input positions that take int32 and int64 alike, whatever the others have. */
const INDICES: Readonly<Record<string, readonly number[]>> = {
  Gather: [1],
  GatherElements: [1],
  ScatterElements: [1],
};

const INT32_MAX = 2 ** 31 - 1;

/**
 * Narrows the values that depend on `inputs` (int64 inputs of the graph), or that a Cast makes of other types, in place.
 * @returns the types of all values afterwards.
 * @param scalars inputs that may need all their bits, such as the seed: what depends on them alone stays.
 * @throws FishyError for a constant beyond int32 among them.
 */
export function narrowIntegers(
  graph: GraphProto,
  types: TypeMap,
  inputs: readonly string[],
  scalars: readonly string[],
): TypeMap {
  const known = new Map(types);
  const setType = (name: string, elemType: DataType) => {
    const type = types.get(name);
    if (type) known.set(name, { ...type, elemType });
  };
  const b = new GraphBuilder(graph);
  const narrowed = new Set(inputs);
  const initializers = new Map(graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
  const constants = new Map<string, TensorProto>(initializers);
  const order = topologicalOrder(graph);
  for (const node of order) {
    const tensor = constantTensor(node, node.output[0] ?? "");
    if (tensor) constants.set(node.output[0] as string, tensor);
  }
  const wide = new Set([...scalars, ...constants.keys()]);
  for (const node of order)
    if (node.input.every((name) => wide.has(name))) for (const name of node.output) wide.add(name);
  const isInt64 = (name: string) => types.get(name)?.elemType === DataType.INT64;
  const converted = new Map<string, string>();
  const convert = (name: string, to: DataType): string => {
    const key = `${name}:${to}`;
    const before = converted.get(key);
    if (before !== undefined) return before;
    const tensor = constants.get(name);
    const made =
      tensor && to === DataType.INT32
        ? narrowConstant(b, graph, name, tensor)
        : b.op("Cast", [name], { to }, `${name}/int${to === DataType.INT32 ? 32 : 64}`);
    converted.set(key, made);
    const type = types.get(name);
    if (type) known.set(made, { ...type, elemType: to });
    return made;
  };

  graph.node = [];
  for (const node of order) {
    const { opType = "", domain } = node;
    const cast = opType === "Cast" && intOf(node, "to", 0) === DataType.INT64;
    if (cast && node.input.some((name) => narrowed.has(name) || (!isInt64(name) && !wide.has(name)))) {
      graph.node.push({ ...node, attribute: attributesFrom({ to: DataType.INT32 }) });
      narrowed.add(node.output[0] as string);
      continue;
    }
    if (!node.input.some((name) => narrowed.has(name))) {
      graph.node.push(node);
      continue;
    }
    const shared = domain ? undefined : SAME_TYPE[opType];
    const positions = shared === "all" ? [...node.input.keys()] : (shared ?? []);
    const narrows = positions.some((i) => narrowed.has(node.input[i] as string));
    const input = node.input.map((name, i) => {
      if (narrows && positions.includes(i))
        return isInt64(name) && !narrowed.has(name) ? convert(name, DataType.INT32) : name;
      if (!narrowed.has(name) || opType === "Cast" || INDICES[opType]?.includes(i)) return name;
      return convert(name, DataType.INT64);
    });
    graph.node.push({ ...node, input });
    if (narrows && !ALWAYS_INT64.has(opType)) {
      for (const name of node.output) if (isInt64(name)) narrowed.add(name);
    }
  }
  for (const name of narrowed) setType(name, DataType.INT32);
  graph.input = graph.input.map((info) =>
    inputs.includes(info.name ?? "") ? narrowInput(info.name as string, types) : info,
  );
  return known;
}

/** Operators whose output is int64 whatever they read. */
const ALWAYS_INT64: ReadonlySet<string> = new Set(["ArgMax", "ArgMin", "Shape", "Size"]);

function narrowInput(name: string, types: TypeMap) {
  return valueInfo(name, { elemType: DataType.INT32, shape: types.get(name)?.shape });
}

function narrowConstant(b: GraphBuilder, graph: GraphProto, name: string, tensor: TensorProto): string {
  const values = numbersOf(tensor);
  const beyond = values.find((value) => Math.abs(value) > INT32_MAX);
  if (beyond !== undefined) {
    throw new FishyError(
      `The constant '${name}' holds ${beyond}, which int32 does not: WebGPU has no int64 arithmetic. Train on another device.`,
    );
  }
  const narrow = b.unique(`${name}/int32`);
  graph.initializer.push(tensorFromNumbers(narrow, DataType.INT32, dimsOf(tensor), values));
  return narrow;
}
