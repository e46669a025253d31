/** Operators without a WebGPU kernel, or with one that cannot be used, and how others say the same. Opset 18. */
import { floatOf, intOf, intsOf } from "../onnx/attributes.js";
import type { GraphBuilder, ValueType } from "../onnx/builder.js";
import { DataType, type NodeProto } from "../onnx/proto.js";
import { numbersOf } from "../onnx/tensor.js";
import { replacedConvolution, replacedTransposed } from "./convolutions.js";
import { operatorKey } from "./kernel-table.js";
import type { KernelScope } from "./kernels.js";

/**
 * Emits what stands for a node and returns the name of its value (of each value, for several outputs), or undefined when
 * the node has to stay.
 * @param type of the node's first input.
 */
type Replacement = (
  b: GraphBuilder,
  node: NodeProto,
  type: ValueType,
  scope: KernelScope,
) => string | readonly string[] | undefined;

const FLOAT_MAX = 3.4028234663852886e38;

const REPLACEMENTS: Readonly<Record<string, Replacement>> = {
  LogSoftmax: (b, node) => {
    const [x] = node.input as [string];
    const axis = [intOf(node, "axis", -1)];
    const shifted = b.sub(x, b.reduce("ReduceMax", x, axis, true));
    return b.sub(shifted, b.log(b.reduceSum(b.exp(shifted), axis, true)));
  },
  OneHot: oneHot,
  Or: (b, { input: [x, y] }) => b.op("Not", [b.op("And", [b.op("Not", [x as string]), b.op("Not", [y as string])])]),
  Xor: (b, { input: [x, y] }) => {
    const [p, q] = [b.cast(x as string, DataType.FLOAT), b.cast(y as string, DataType.FLOAT)];
    return b.greater(b.abs(b.sub(p, q)), b.f32(0.5));
  },
  IsInf: (b, node, type) => {
    if (type.elemType !== DataType.FLOAT) return undefined;
    const [x] = node.input as [string];
    const [up, down] = [intOf(node, "detect_positive", 1) === 1, intOf(node, "detect_negative", 1) === 1];
    return b.greater(up && down ? b.abs(x) : down ? b.neg(x) : x, b.f32(FLOAT_MAX));
  },
  // Sums that hold NaN are NaN, and NaN is not equal to itself.
  IsNaN: (b, { input: [x] }) => b.op("Not", [b.equal(x as string, x as string)]),
  Sign: (b, { input: [x] }, type) => {
    const zero = b.constant(type.elemType, 0);
    return b.sub(b.cast(b.greater(x as string, zero), type.elemType), b.cast(b.less(x as string, zero), type.elemType));
  },
  Round: round,
  Sum: (b, { input }) => input.reduce((sum, term) => b.add(sum, term)),
  Mean: (b, { input }) =>
    b.mul(
      input.reduce((sum, term) => b.add(sum, term)),
      b.f32(1 / input.length),
    ),
  Mod: mod,
  Celu: (b, node) => {
    const alpha = floatOf(node, "alpha", 1);
    const [x] = node.input as [string];
    const below = b.mul(b.sub(b.exp(b.div(x, b.f32(alpha))), b.f32(1)), b.f32(alpha));
    return b.add(b.max(x, b.f32(0)), b.min(below, b.f32(0)));
  },
  Selu: (b, node) => {
    const [alpha, gamma] = [floatOf(node, "alpha", 1.6732632423543772), floatOf(node, "gamma", 1.0507009873554805)];
    const [x] = node.input as [string];
    // Bounded above, so that the branch that is not taken stays finite.
    const below = b.mul(b.sub(b.exp(b.min(x, b.f32(0))), b.f32(1)), b.f32(alpha));
    return b.mul(b.where(b.greater(x, b.f32(0)), x, below), b.f32(gamma));
  },
  Softsign: (b, { input: [x] }) => b.div(x as string, b.add(b.abs(x as string), b.f32(1))),
  Shrink: (b, node) => {
    const [bias, lambda] = [floatOf(node, "bias", 0), floatOf(node, "lambd", 0.5)];
    const [x] = node.input as [string];
    const low = b.where(b.less(x, b.f32(-lambda)), b.add(x, b.f32(bias)), b.f32(0));
    return b.where(b.greater(x, b.f32(lambda)), b.sub(x, b.f32(bias)), low);
  },
  MeanVarianceNormalization: (b, node) => {
    const axes = intsOf(node, "axes") ?? [0, 2, 3];
    const [x] = node.input as [string];
    const centred = b.sub(x, b.reduce("ReduceMean", x, axes, true));
    const deviation = b.sqrt(b.reduce("ReduceMean", b.mul(centred, centred), axes, true));
    // The function body of the specification adds 1e-9 to the deviation.
    return b.div(centred, b.add(deviation, b.f32(1e-9)));
  },
  Concat: (b, node, type) => {
    if (type.elemType !== DataType.BOOL) return undefined;
    const floats = node.input.map((name) => b.cast(name, DataType.FLOAT));
    return b.greater(b.concat(floats, intOf(node, "axis", 0)), b.f32(0.5));
  },
  Slice: sliced,
  Conv: replacedConvolution,
  ConvTranspose: replacedTransposed,
  Split: bySlices,
  "com.microsoft::FusedMatMul": (b, node, _type, { types }) => {
    if (intOf(node, "transBatchA", 0) + intOf(node, "transBatchB", 0) > 0) return undefined;
    const operand = (i: number, attribute: string) => {
      const name = node.input[i] as string;
      const rank = types.get(name)?.shape?.length;
      if (intOf(node, attribute, 0) === 0) return name;
      if (rank === undefined || rank < 2) return undefined;
      const axes = [...Array(rank).keys()];
      return b.transpose(name, [...axes.slice(0, -2), rank - 1, rank - 2]);
    };
    const [x, y] = [operand(0, "transA"), operand(1, "transB")];
    if (x === undefined || y === undefined) return undefined;
    const product = b.matMul(x, y);
    const alpha = floatOf(node, "alpha", 1);
    return alpha === 1 ? product : b.mul(product, b.f32(alpha));
  },
};

/** The values that stand for the outputs of a node, or undefined when nothing does. */
export function replacementOf(
  b: GraphBuilder,
  node: NodeProto,
  scope: KernelScope & { readonly type: ValueType },
): readonly string[] | undefined {
  const values = REPLACEMENTS[operatorKey(node.opType, node.domain)]?.(b, node, scope.type, scope);
  const all = typeof values === "string" ? [values] : values;
  return all?.length === node.output.length ? all : undefined;
}

/** Compares indices with 0 … depth − 1; negative ones count from the end. */
function oneHot(b: GraphBuilder, node: NodeProto, type: ValueType, { types, constant }: KernelScope) {
  const [indices, depthName, valuesName] = node.input as [string, string, string];
  const depthTensor = constant(depthName);
  const [depth] = depthTensor ? numbersOf(depthTensor) : [];
  const rank = type.shape?.length;
  const { elemType } = types.get(valuesName) ?? {};
  if (depth === undefined || rank === undefined || type.elemType !== DataType.INT32 || elemType === undefined) {
    return undefined;
  }
  const given = intOf(node, "axis", -1);
  const axis = given < 0 ? given + rank + 1 : given;
  const classes = b.i32(
    [...Array(depth).keys()],
    Array.from({ length: rank + 1 }, (_, i) => (i === axis ? depth : 1)),
  );
  const wrapped = b.where(b.less(indices, b.i32(0)), b.add(indices, b.i32(depth)), indices);
  const hit = b.equal(b.unsqueeze(wrapped, [axis]), classes);
  const value = (i: number) => b.gather(valuesName, b.i64(i));
  return b.where(hit, value(1), value(0));
}

/** To the nearest whole number, ties to the even one: x − 2⌊x/2⌋ tells whether ⌊x⌋ is odd. */
function round(b: GraphBuilder, node: NodeProto, type: ValueType) {
  if (type.elemType !== DataType.FLOAT) return undefined;
  const [x] = node.input as [string];
  const floor = b.op("Floor", [x]);
  const rest = b.sub(x, floor);
  const half = b.f32(0.5);
  const isOdd = b.sub(floor, b.mul(b.op("Floor", [b.mul(floor, half)]), b.f32(2)));
  const up = b.where(b.equal(rest, half), isOdd, b.cast(b.greater(rest, half), DataType.FLOAT));
  return b.add(floor, up);
}

/** The remainder: of the sign of the divisor for integers, of the dividend with fmod. */
function mod(b: GraphBuilder, node: NodeProto, type: ValueType) {
  const [x, y] = node.input as [string, string];
  const { elemType } = type;
  if (elemType === DataType.UINT32) return b.sub(x, b.mul(b.div(x, y), y));
  if (elemType === DataType.FLOAT) {
    const quotient = b.div(x, y);
    const whole = b.where(b.less(quotient, b.f32(0)), b.op("Ceil", [quotient]), b.op("Floor", [quotient]));
    return b.sub(x, b.mul(whole, y));
  }
  if (elemType !== DataType.INT32) return undefined;
  const rest = b.sub(x, b.mul(b.div(x, y), y));
  if (intOf(node, "fmod", 0) === 1) return rest;
  const zero = b.i32(0);
  // Signs differ where their product would be negative; the product itself could overflow.
  const differs = b.less(b.mul(b.min(b.max(rest, b.i32(-1)), b.i32(1)), b.min(b.max(y, b.i32(-1)), b.i32(1))), zero);
  return b.where(differs, b.add(rest, y), rest);
}

/** A Split with many outputs, each by a shader of its own. */
function bySlices(b: GraphBuilder, node: NodeProto, type: ValueType, { constant }: KernelScope) {
  const [x, sizesName] = node.input as [string, string?];
  const axis = intOf(node, "axis", 0);
  const length = type.shape?.at(axis);
  const sizes = sizesName ? constant(sizesName) : undefined;
  if (type.elemType !== DataType.FLOAT || typeof length !== "number") return undefined;
  const chunk = Math.ceil(length / node.output.length);
  const lengths = sizes ? numbersOf(sizes) : node.output.map((_, i) => Math.min(chunk, length - i * chunk));
  let start = 0;
  return lengths.map((own) => {
    const value = b.slice(x, [start], [start + own], [axis]);
    start += own;
    return value;
  });
}

/**
 * A Slice with constant bounds: with negative steps, which WebGPU takes wrong, as Gathers of constant indices; of
 * integers and bools, for which it has no kernel, as Splits where the step is 1.
 */
function sliced(b: GraphBuilder, node: NodeProto, type: ValueType, { constant }: KernelScope) {
  const [x, ...bounds] = node.input as [string, ...string[]];
  const [starts, ends, axesGiven, steps] = bounds.map((name) => {
    const tensor = name ? constant(name) : undefined;
    return tensor && numbersOf(tensor);
  });
  const { shape, elemType } = type;
  if (!starts || !ends || !shape || (bounds[2] && !axesGiven) || (bounds[3] && !steps)) return undefined;
  const axes = (axesGiven ?? starts.map((_, i) => i)).map((axis) => (axis < 0 ? axis + shape.length : axis));
  let value = elemType === DataType.BOOL ? b.cast(x, DataType.INT32) : x;
  for (const [i, axis] of axes.entries()) {
    const dim = shape[axis];
    if (typeof dim !== "number") return undefined;
    const range = rangeOf(starts[i] as number, ends[i] as number, steps?.[i] ?? 1, dim);
    const part = range.step === 1 ? splitPart(b, value, axis, range, dim) : gatherPart(b, value, axis, range);
    if (part === undefined) return undefined;
    value = part;
  }
  return elemType === DataType.BOOL ? b.cast(value, DataType.BOOL) : value;
}

interface SliceRange {
  readonly first: number;
  /** One step past the last index. */
  readonly last: number;
  readonly step: number;
}

/** The bounds of a Slice, clamped as ONNX says. */
function rangeOf(start: number, end: number, step: number, dim: number): SliceRange {
  const clamp = (bound: number, low: number, high: number) =>
    Math.min(Math.max(bound < 0 ? bound + dim : bound, low), high);
  if (step > 0) return { first: clamp(start, 0, dim), last: clamp(end, 0, dim), step };
  return { first: clamp(start, 0, dim - 1), last: clamp(end, -1, dim - 1), step };
}

function splitPart(b: GraphBuilder, value: string, axis: number, { first, last }: SliceRange, dim: number) {
  if (last <= first) return undefined;
  const sizes = [first, last - first, dim - last];
  const kept = sizes.filter((size) => size > 0);
  if (kept.length === 1) return value;
  const parts = b.node("Split", [value, b.i64(kept)], { outputs: kept.length, attributes: { axis } });
  return parts[first > 0 ? 1 : 0] as string;
}

function gatherPart(b: GraphBuilder, value: string, axis: number, { first, last, step }: SliceRange) {
  const indices: number[] = [];
  for (let k = first; step < 0 ? k > last : k < last; k += step) indices.push(k);
  return indices.length === 0 ? undefined : b.gather(value, b.i64(indices), axis);
}
