/**
 * Folding of what is the same in every run: shape arithmetic that exporters leave in the graph, evaluated by ONNX
 * Runtime itself. Only small values are folded, and nothing that depends on a float initializer, which may train.
 */
import { attributesFrom, hasAttribute, intOf } from "./attributes.js";
import { type Dim, emptyGraph } from "./builder.js";
import { encodeModel, withFields } from "./codec.js";
import { constantTensor, topologicalOrder } from "./graph.js";
import { DataType, type ModelProto, type NodeProto, type TensorProto } from "./proto.js";
import {
  dimsOf,
  elementCount,
  isExternal,
  numbersOf,
  type TensorData,
  tensorFromData,
  tensorFromNumbers,
} from "./tensor.js";
import { TYPE_BY_NAME, type TypeMap } from "./types.js";
import { isDefaultDomain } from "./versions.js";

/** Values with more elements stay in the graph. */
const LARGEST_FOLDED = 4096;

/** Deterministic operators whose outputs are no larger than their inputs together, or the product of two of them. */
const FOLDABLE: ReadonlySet<string> = new Set(
  (
    "Identity Cast Add Sub Mul Div Mod Neg Abs Floor Ceil Round Sqrt Pow Min Max Equal Less Greater LessOrEqual " +
    "GreaterOrEqual Not And Or Xor Where Reshape Squeeze Unsqueeze Flatten Transpose Concat Slice Gather Shape Size " +
    "ReduceProd ReduceSum ReduceMax ReduceMin"
  ).split(" "),
);

/** Operators whose output's size is a value of an input. */
const SIZED: Readonly<Record<string, (input: (i: number) => number[], node: NodeProto) => number>> = {
  ConstantOfShape: (input) => elementCount(input(0)),
  Expand: (input) => elementCount(input(1)) * Math.max(1, input(0).length),
  Tile: (input) => elementCount(input(1)) * input(0).length,
  Range: (input) => Math.abs(((input(1)[0] as number) - (input(0)[0] as number)) / (input(2)[0] as number)),
};

/** Types that may decide a shape or a branch; an initializer of another type may train, or is data. */
const CONTROL_TYPES: ReadonlySet<number> = new Set([DataType.INT64, DataType.INT32, DataType.BOOL]);

/**
 * Replaces nodes of the main graph whose outputs never change by Constant nodes of the same names.
 * @returns whether anything was replaced; shapes may be known better then.
 */
export async function foldConstants(model: ModelProto, types: TypeMap): Promise<boolean> {
  const { graph } = model;
  const order = topologicalOrder(graph);
  const outputs = new Set(graph.output.map(({ name }) => name));
  const values = new Map<string, TensorProto>();
  const fed = new Set(graph.input.map(({ name }) => name));
  for (const tensor of graph.initializer) {
    if (!fed.has(tensor.name) && isSmall(tensor) && CONTROL_TYPES.has(tensor.dataType ?? 0)) {
      values.set(tensor.name ?? "", tensor);
    }
  }
  const producers = new Map<string, NodeProto>();
  for (const node of order) {
    for (const name of node.output) producers.set(name, node);
    const tensor = constantTensor(node, node.output[0] ?? "");
    if (tensor && isSmall(tensor)) values.set(node.output[0] as string, tensor);
  }
  const folded = new Set<NodeProto>();
  const tried = new Set<NodeProto>();
  for (;;) {
    for (const node of order) {
      const name = node.output[0] ?? "";
      if (values.has(name)) continue;
      const known = knownDimensions(node, { types, values, producers });
      if (!known) continue;
      values.set(name, tensorFromNumbers(name, DataType.INT64, known.dims, known.numbers));
      folded.add(node);
    }
    const round = evaluable(order, values, tried);
    if (round.length === 0) break;
    for (const node of round) tried.add(node);
    for (const [name, tensor] of await evaluate(model, round, values)) values.set(name, tensor);
    for (const node of round) {
      if (node.output.every((name) => !name || values.has(name))) folded.add(node);
    }
  }
  // An output of the graph stays a computed value.
  for (const node of folded) if (node.output.some((name) => outputs.has(name))) folded.delete(node);
  if (folded.size === 0) return false;
  graph.node = order.flatMap((node) => (folded.has(node) ? constantsFor(node, values) : [node]));
  return true;
}

function isSmall(tensor: TensorProto): boolean {
  return !isExternal(tensor) && tensor.dataType !== DataType.STRING && elementCount(dimsOf(tensor)) <= LARGEST_FOLDED;
}

interface Known {
  readonly types: TypeMap;
  readonly values: ReadonlyMap<string, TensorProto>;
  readonly producers: ReadonlyMap<string, NodeProto>;
}

/** The value of a Shape or Size, or of a Gather or Slice of a Shape, where all the dimensions that it takes are known. */
function knownDimensions(node: NodeProto, known: Known): { dims: number[]; numbers: number[] } | undefined {
  if (!isDefaultDomain(node.domain)) return undefined;
  if (node.opType === "Size") {
    const shape = known.types.get(node.input[0] ?? "")?.shape;
    return shape && allKnown(shape) ? { dims: [], numbers: [elementCount(shape)] } : undefined;
  }
  const own = shapeValue(node, known.types);
  if (own) return allKnown(own) ? { dims: [own.length], numbers: own } : undefined;
  if (node.opType !== "Gather" && node.opType !== "Slice") return undefined;
  const of = known.producers.get(node.input[0] ?? "");
  const shape = of && shapeValue(of, known.types);
  if (!shape) return undefined;
  const constants = node.input.slice(1).map((name) => (name ? known.values.get(name) : undefined));
  if (node.input.some((name, i) => i > 0 && name && !constants[i - 1])) return undefined;
  const [first, ends, , steps] = constants.map((tensor) => tensor && numbersOf(tensor));
  if (node.opType === "Gather") {
    const taken = first?.map((i) => shape[i < 0 ? i + shape.length : i] ?? null);
    return taken && allKnown(taken) ? { dims: dimsOf(constants[0] as TensorProto), numbers: taken } : undefined;
  }
  if (steps?.some((step) => step !== 1)) return undefined;
  const taken = shape.slice(first?.[0], ends?.[0]);
  return allKnown(taken) ? { dims: [taken.length], numbers: taken } : undefined;
}

/** The dimensions that a Shape node gives; undefined for other nodes and unknown ranks. */
function shapeValue(node: NodeProto, types: TypeMap): readonly Dim[] | undefined {
  if (node.opType !== "Shape" || !isDefaultDomain(node.domain)) return undefined;
  const end = hasAttribute(node, "end") ? intOf(node, "end", 0) : undefined;
  return types.get(node.input[0] ?? "")?.shape?.slice(intOf(node, "start", 0), end);
}

function allKnown(dims: readonly Dim[]): dims is number[] {
  return dims.every((dim) => typeof dim === "number");
}

/** The nodes that can be evaluated at once: their inputs are known, or come from other such nodes. */
function evaluable(
  order: readonly NodeProto[],
  values: ReadonlyMap<string, TensorProto>,
  tried: ReadonlySet<NodeProto>,
): NodeProto[] {
  const pending = new Set<string>();
  return order.filter((node) => {
    const opType = node.opType ?? "";
    const inputs = node.input.filter(Boolean);
    if (!isDefaultDomain(node.domain) || inputs.length === 0) return false;
    if (tried.has(node) || values.has(node.output[0] ?? "")) return false;
    const sized = SIZED[opType];
    const isReady = sized
      ? inputs.every((name) => values.has(name)) &&
        sized((i) => numbersOf(values.get(node.input[i] ?? "") as TensorProto), node) <= LARGEST_FOLDED
      : FOLDABLE.has(opType) && inputs.every((name) => values.has(name) || pending.has(name));
    if (isReady) for (const name of node.output) pending.add(name);
    return isReady;
  });
}

/** Runs `nodes` on known values. Results that are too large are left out. */
async function evaluate(
  model: ModelProto,
  nodes: readonly NodeProto[],
  values: ReadonlyMap<string, TensorProto>,
): Promise<Map<string, TensorProto>> {
  const graph = emptyGraph("constants");
  const made = new Set(nodes.flatMap((node) => node.output).filter(Boolean));
  const read = new Set(nodes.flatMap((node) => node.input).filter((name) => name && !made.has(name)));
  graph.node = [...nodes];
  graph.initializer = [...read].map((name) => withFields(values.get(name) as TensorProto, { name }));
  graph.output = [...made].map((name) => ({ name }));
  process.env.ORT_DISABLE_TELEMETRY ??= "1";
  const ort = await import("onnxruntime-node");
  const session = await ort.InferenceSession.create(
    encodeModel({ ...model, graph, functions: [], metadataProps: [] }),
    {
      graphOptimizationLevel: "disabled",
      logSeverityLevel: 3,
      intraOpNumThreads: 1,
    },
  );
  const results = new Map<string, TensorProto>();
  try {
    for (const [name, { type, dims, data }] of Object.entries(await session.run({}))) {
      const elemType = TYPE_BY_NAME[type];
      if (elemType === undefined || data.length > LARGEST_FOLDED) continue;
      results.set(name, tensorFromData(name, elemType, dims, data as TensorData));
    }
  } finally {
    await session.release();
  }
  return results;
}

/** Constant nodes in place of `node`. */
function constantsFor(node: NodeProto, values: ReadonlyMap<string, TensorProto>): NodeProto[] {
  return node.output.filter(Boolean).map((name, i) => ({
    name: i === 0 && node.name ? node.name : name,
    opType: "Constant",
    input: [],
    output: [name],
    attribute: attributesFrom({ value: values.get(name) as TensorProto }),
    ...(node.metadataProps?.length && { metadataProps: node.metadataProps }),
  }));
}
