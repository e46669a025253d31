/**
 * What an initializer is to the model, read off the operators that use it: a weight with its fans, a bias, a scale. No
 * type inference: the shape of the tensor and the operator's own definition tell.
 */
import { intOf, intsOf, stringOf, subgraphsOf } from "../../onnx/attributes.js";
import { constantTensor, topologicalOrder } from "../../onnx/graph.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto, type TensorProto } from "../../onnx/proto.js";
import { dimsOf, elementCount, isExternal, numbersOf } from "../../onnx/tensor.js";
import { isDefaultDomain } from "../../onnx/versions.js";

/** A tensor that multiplies: matrices [out, in], one for each index of the batch axes. */
export interface Weight {
  readonly kind: "weight";
  /** Terms in the sum that makes one output, and outputs that one input takes part in. */
  readonly fanIn: number;
  readonly fanOut: number;
  /** The tensor's dimensions, some of them split (groups of a convolution, gates of a recurrence). */
  readonly shape: readonly number[];
  /** Axes of `shape`; the others are batch axes. */
  readonly out: readonly number[];
  readonly in: readonly number[];
}

export type Role =
  | Weight
  /** What a fresh layer has: 0 for biases and running means, 1 for scales and running variances, 0.25 for slopes of PRelu. */
  | { readonly kind: "fixed"; readonly value: number };

/** Operators that only move values: exporters cut and join the weights of recurrences and of attention. */
const MOVES: ReadonlySet<string> = new Set("Identity Cast Transpose Unsqueeze Squeeze Slice Split Concat".split(" "));
/** Fixed values by input. */
const FIXED: Readonly<Record<string, Readonly<Record<number, number>>>> = {
  Gemm: { 2: 0 },
  Conv: { 2: 0 },
  ConvTranspose: { 2: 0 },
  RNN: { 3: 0 },
  GRU: { 3: 0 },
  LSTM: { 3: 0, 7: 0 },
  BatchNormalization: { 1: 1, 2: 0, 3: 0, 4: 1 },
  LayerNormalization: { 1: 1, 2: 0 },
  GroupNormalization: { 1: 1, 2: 0 },
  InstanceNormalization: { 1: 1, 2: 0 },
  RMSNormalization: { 1: 1 },
  PRelu: { 1: 0.25 },
};
/** The same for contributed operators. */
const CONTRIBUTED: Readonly<Record<string, Readonly<Record<number, number>>>> = {
  SimplifiedLayerNormalization: { 1: 1 },
  SkipLayerNormalization: { 2: 1, 3: 0, 4: 0 },
  SkipSimplifiedLayerNormalization: { 2: 1, 3: 0 },
};
const FLOATS: ReadonlySet<number> = new Set([DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16]);

export interface Roles {
  readonly roles: ReadonlyMap<string, Role>;
  /** Float initializers of more than one element whose role is not known. */
  readonly unknown: readonly string[];
}

/** The roles of the main graph's float initializers. */
export function rolesOf(model: ModelProto): Roles {
  const tensors = new Map(
    model.graph.initializer
      .filter((tensor) => FLOATS.has(tensor.dataType ?? 0))
      .map((tensor) => [tensor.name ?? "", tensor]),
  );
  const found = new Map<string, Found[]>();
  const walk: Walk = {
    views: new Map([...tensors].map(([name, { dims }]) => [name, [{ name, axes: dims.map((_, i) => i) }]])),
    initializers: new Map(model.graph.initializer.map((tensor) => [tensor.name ?? "", tensor])),
    constants: new Map(),
    weighed: new Set(),
    add(name, one) {
      found.set(name, [...(found.get(name) ?? []), one]);
    },
  };
  visit(model.graph, walk);
  const roles = new Map<string, Role>();
  for (const name of tensors.keys()) {
    const best = (found.get(name) ?? []).sort((a, b) => a.rank - b.rank)[0];
    if (best) roles.set(name, best.role);
  }
  const unknown = [...tensors].filter(([name, tensor]) => !roles.has(name) && elementCount(dimsOf(tensor)) > 1);
  return { roles, unknown: unknown.map(([name]) => name) };
}

interface Found {
  readonly role: Role;
  /** Of several uses the lowest decides: a tied embedding is a weight first. */
  readonly rank: number;
}

/** An initializer as a node sees it: which axis of the tensor each axis is, null for one of length 1; undefined when not known. */
interface View {
  readonly name: string;
  readonly axes: readonly (number | null)[] | undefined;
}

interface Walk {
  /** By value: what it is made of. */
  readonly views: Map<string, readonly View[]>;
  readonly initializers: ReadonlyMap<string, TensorProto>;
  /** Constant nodes by their values. */
  readonly constants: Map<string, TensorProto>;
  /** Values that some weight has gone into: what is added to them may be a bias. */
  readonly weighed: Set<string>;
  add(name: string, found: Found): void;
}

function visit(graph: GraphProto, walk: Walk): void {
  for (const node of topologicalOrder(graph)) {
    for (const inner of subgraphsOf(node)) visit(inner, walk);
    const constant = constantTensor(node, node.output[0] ?? "");
    if (constant) walk.constants.set(node.output[0] ?? "", constant);
    const moved = isDefaultDomain(node.domain) && MOVES.has(node.opType ?? "") ? movedViews(node, walk) : [];
    if (moved.length > 0) {
      for (const output of node.output) if (output) walk.views.set(output, moved);
      continue;
    }
    let weighs = node.input.some((name) => walk.weighed.has(name));
    for (const [index, input] of node.input.entries()) {
      for (const view of walk.views.get(input) ?? []) {
        const found = roleAt(node, index, dimsOf(walk.initializers.get(view.name) as TensorProto), view, walk);
        if (!found) continue;
        walk.add(view.name, found);
        weighs ||= found.role.kind === "weight";
      }
    }
    if (weighs) for (const output of node.output) if (output) walk.weighed.add(output);
  }
}

/** What a node that only moves values makes of the initializers in them. */
function movedViews(node: NodeProto, walk: Walk): View[] {
  const sources = node.opType === "Concat" ? node.input : node.input.slice(0, 1);
  const views = sources.flatMap((input) => walk.views.get(input) ?? []);
  return views.map(({ name, axes }) => ({ name, axes: axes && movedAxes(node, axes, walk) }));
}

function movedAxes(node: NodeProto, axes: NonNullable<View["axes"]>, walk: Walk): View["axes"] {
  const { opType } = node;
  if (opType === "Transpose") {
    const perm = intsOf(node, "perm") ?? axes.map((_, i) => axes.length - 1 - i);
    return perm.map((axis) => axes[axis] ?? null);
  }
  if (opType !== "Unsqueeze" && opType !== "Squeeze") return axes;
  const name = node.input[1] ?? "";
  const given = walk.initializers.get(name) ?? walk.constants.get(name);
  const numbers = intsOf(node, "axes") ?? (given && !isExternal(given) ? numbersOf(given) : undefined);
  if (!numbers) return undefined;
  const rank = axes.length + (opType === "Unsqueeze" ? numbers.length : 0);
  const where = new Set(numbers.map((axis) => (axis < 0 ? axis + rank : axis)));
  if (opType === "Squeeze") return axes.filter((_, i) => !where.has(i));
  const rest = [...axes];
  return Array.from({ length: rank }, (_, i) => (where.has(i) ? null : (rest.shift() ?? null)));
}

function roleAt(node: NodeProto, index: number, dims: readonly number[], view: View, walk: Walk): Found | undefined {
  const opType = node.opType ?? "";
  if (!isDefaultDomain(node.domain)) {
    const value = node.domain === "com.microsoft" ? CONTRIBUTED[opType]?.[index] : undefined;
    return value === undefined ? undefined : { role: { kind: "fixed", value }, rank: 1 };
  }
  const fixed = FIXED[opType]?.[index];
  if (fixed !== undefined) return { role: { kind: "fixed", value: fixed }, rank: 1 };
  const { axes } = view;
  if (!axes) return opType === "Add" || opType === "Mul" ? vector(node, index, dims, walk) : undefined;
  switch (opType) {
    case "Gemm": {
      const transposed = intOf(node, index === 0 ? "transA" : "transB", 0) === 1;
      // The output's axis is the rows of the first factor, the columns of the second.
      return matrix(dims, axes, (index === 0) === transposed ? [1, 0] : [0, 1]);
    }
    case "MatMul": {
      const last = axes.length - 1;
      if (last < 1) return undefined;
      return matrix(dims, axes, index === 0 ? [last - 1, last] : [last, last - 1]);
    }
    case "Einsum":
      return einsum(stringOf(node, "equation", ""), index, dims, axes);
    case "Conv":
      return index === 1 && isWhole(axes, dims) ? convolution(dims, intOf(node, "group", 1), false) : undefined;
    case "ConvTranspose":
      return index === 1 && isWhole(axes, dims) ? convolution(dims, intOf(node, "group", 1), true) : undefined;
    case "RNN":
    case "GRU":
    case "LSTM":
      return index === 1 || index === 2 ? recurrence(dims, axes, intOf(node, "hidden_size", 0)) : undefined;
    case "Gather":
      return index === 0 && !walk.initializers.has(node.input[1] ?? "")
        ? embedding(dims, axes.at(intOf(node, "axis", 0)))
        : undefined;
    case "Add":
    case "Mul":
      return vector(node, index, dims, walk);
    default:
      return undefined;
  }
}

function weight(shape: readonly number[], out: readonly number[], inner: readonly number[], kernel = 1): Weight {
  const size = (axes: readonly number[]) => axes.reduce((product, axis) => product * (shape[axis] as number), 1);
  return { kind: "weight", fanIn: size(inner), fanOut: size(out) * kernel, shape, out, in: inner };
}

type Axes = NonNullable<View["axes"]>;

function isWhole(axes: Axes, dims: readonly number[]): boolean {
  return axes.length === dims.length && axes.every((axis, i) => axis === i);
}

/** A matrix by its axes [out, in] as the node sees them. */
function matrix(dims: readonly number[], axes: Axes, [out, inner]: readonly [number, number]): Found | undefined {
  const [o, i] = [axes[out], axes[inner]];
  if (o === null || o === undefined || i === null || i === undefined) return undefined;
  return { role: weight(dims, [o], [i]), rank: 0 };
}

/** What is added to the output of a weight, or scales it, along one axis. */
function vector(node: NodeProto, index: number, dims: readonly number[], walk: Walk): Found | undefined {
  const isVector = elementCount(dims) > 1 && dims.filter((dim) => dim !== 1).length === 1;
  if (!isVector || !walk.weighed.has(node.input[1 - index] ?? "")) return undefined;
  return { role: { kind: "fixed", value: node.opType === "Add" ? 0 : 1 }, rank: 3 };
}

/** W [out, in/groups, …] of Conv, or [in, out/groups, …] of ConvTranspose. */
function convolution(dims: readonly number[], groups: number, isTransposed: boolean): Found {
  const [first = 1, second = 1, ...kernel] = dims;
  const shape = [groups, first / groups, second, ...kernel];
  const spatial = kernel.map((_, i) => i + 3);
  const [out, inner] = isTransposed ? [2, 1] : [1, 2];
  return { role: weight(shape, [out], [inner, ...spatial], elementCount(kernel)), rank: 0 };
}

/** W [directions, gates·hidden, inputs]: a matrix for each direction and gate. */
function recurrence(dims: readonly number[], axes: Axes, hidden: number): Found | undefined {
  const [rows, columns] = [axes[1], axes[2]];
  if (rows === null || rows === undefined || columns === null || columns === undefined) return undefined;
  const gates = (dims[rows] as number) / hidden;
  if (!Number.isInteger(gates)) return undefined;
  const shape = dims.flatMap((dim, axis) => (axis === rows ? [gates, hidden] : [dim]));
  const after = (axis: number) => (axis >= rows ? axis + 1 : axis);
  return { role: weight(shape, [rows + 1], [after(columns)]), rank: 0 };
}

/** One row is taken at a time, as by a product with a one-hot vector of which one input is not zero. */
function embedding(dims: readonly number[], axis: number | null | undefined): Found | undefined {
  if (axis === null || axis === undefined) return undefined;
  const others = dims.map((_, i) => i).filter((i) => i !== axis);
  return { role: { ...weight(dims, others, [axis]), fanIn: 1 }, rank: 2 };
}

function einsum(equation: string, index: number, dims: readonly number[], axes: Axes): Found | undefined {
  const [inputs = "", output] = equation.replaceAll(" ", "").split("->");
  const terms = inputs.split(",");
  const own = terms[index];
  if (output === undefined || own === undefined || equation.includes(".") || !isPermutation(axes, dims))
    return undefined;
  const others = terms.filter((_, i) => i !== index).join("");
  const where = (keep: (letter: string) => boolean) =>
    [...own].flatMap((letter, i) => (keep(letter) ? [axes[i] as number] : []));
  const inner = where((letter) => !output.includes(letter));
  const out = where((letter) => output.includes(letter) && !others.includes(letter));
  return inner.length > 0 && out.length > 0 ? { role: weight(dims, out, inner), rank: 0 } : undefined;
}

function isPermutation(axes: Axes, dims: readonly number[]): boolean {
  return axes.length === dims.length && axes.every((axis) => axis !== null);
}
