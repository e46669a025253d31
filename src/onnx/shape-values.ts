/**
 * The values of small integer vectors and scalars that are made of dimensions: what exporters compute with Shape,
 * Gather, Concat and arithmetic to Reshape by. ONNX Runtime does not follow them where a dimension is a symbol.
 */
import { hasAttribute, intOf, tensorOf } from "./attributes.js";
import type { Dim } from "./builder.js";
import { addDims, floorDivide, multiply, subtractDims } from "./dimensions.js";
import { DataType, type NodeProto, type TensorProto } from "./proto.js";
import { dimsOf, elementCount, isExternal, numbersOf } from "./tensor.js";

/** A vector's elements, or one element for a scalar. Numbers may be negative; null is unknown. */
export interface ShapeValue {
  readonly isScalar: boolean;
  readonly elements: readonly Dim[];
}

/** Longer vectors hold data, not dimensions. */
const LONGEST = 64;

/** The value of a constant; undefined for floats, matrices and long vectors. */
export function constantValue(tensor: TensorProto | undefined): ShapeValue | undefined {
  if (!tensor || isExternal(tensor)) return undefined;
  const type = tensor.dataType;
  if (type !== DataType.INT64 && type !== DataType.INT32 && type !== DataType.BOOL) return undefined;
  const dims = dimsOf(tensor);
  if (dims.length > 1 || elementCount(dims) > LONGEST) return undefined;
  return { isScalar: dims.length === 0, elements: numbersOf(tensor) };
}

/** The numbers in a short constant vector of floats, such as the scales of a Resize. */
export function constantFloats(tensor: TensorProto | undefined): readonly number[] | undefined {
  if (!tensor || isExternal(tensor) || tensor.dataType !== DataType.FLOAT) return undefined;
  return elementCount(dimsOf(tensor)) <= LONGEST ? numbersOf(tensor) : undefined;
}

export interface ValueScope {
  shapeOf(name: string): readonly Dim[] | undefined;
  valueOf(name: string): ShapeValue | undefined;
}

export interface ShapeScope extends ValueScope {
  floatsOf(name: string): readonly number[] | undefined;
}

/** The value of a node's output, where it can be followed. */
export function valueOfNode(node: NodeProto, scope: ValueScope): ShapeValue | undefined {
  const input = (i: number) => (node.input[i] ? scope.valueOf(node.input[i] as string) : undefined);
  const vector = (elements: readonly Dim[]) => (elements.length <= LONGEST ? { isScalar: false, elements } : undefined);
  switch (node.opType) {
    case "Shape": {
      const end = hasAttribute(node, "end") ? intOf(node, "end", 0) : undefined;
      const shape = scope.shapeOf(node.input[0] ?? "");
      return shape && vector(shape.slice(intOf(node, "start", 0), end));
    }
    case "Size": {
      const shape = scope.shapeOf(node.input[0] ?? "");
      return shape && { isScalar: true, elements: [multiply(shape)] };
    }
    case "Identity":
      return input(0);
    case "Cast":
      return cast(input(0), intOf(node, "to", DataType.UNDEFINED));
    case "Squeeze": {
      const value = input(0);
      return value?.elements.length === 1 ? { isScalar: true, elements: value.elements } : value;
    }
    case "Unsqueeze": {
      const value = input(0);
      return value?.isScalar && input(1)?.elements.length === 1 ? vector(value.elements) : undefined;
    }
    case "Reshape": {
      const [value, shape] = [input(0), input(1)];
      if (!value || !shape || shape.elements.length > 1) return undefined;
      return { isScalar: shape.elements.length === 0, elements: value.elements };
    }
    case "Concat": {
      const values = node.input.map((_, i) => input(i));
      return values.every((value) => value && !value.isScalar)
        ? vector(values.flatMap((value) => value?.elements ?? []))
        : undefined;
    }
    case "Gather": {
      const [data, indices] = [input(0), input(1)];
      if (!data || data.isScalar || !indices) return undefined;
      const { elements } = data;
      const taken = indices.elements.map((i) =>
        typeof i === "number" ? (elements[i < 0 ? i + elements.length : i] ?? null) : null,
      );
      return { isScalar: indices.isScalar, elements: taken };
    }
    case "Slice":
      return slice(input(0), [input(1), input(2), node.input[4] ? input(4) : { isScalar: false, elements: [1] }]);
    case "ConstantOfShape": {
      const count = input(0)?.elements;
      if (count?.length !== 1 || typeof count[0] !== "number" || count[0] > LONGEST) return undefined;
      const fill = tensorOf(node, "value");
      const value = fill ? constantValue({ ...fill, dims: [] }) : undefined;
      return value && vector(Array.from({ length: count[0] }, () => value.elements[0] as Dim));
    }
    case "Where": {
      const [condition, a, b] = [input(0), input(1), input(2)];
      return elementwise([condition, a, b], ([c, x, y]) => (c === 1 ? x : c === 0 ? y : x === y ? x : null) as Dim);
    }
    case "ReduceProd": {
      const value = input(0);
      const keeps = intOf(node, "keepdims", 1) !== 0;
      return value && { isScalar: !keeps || value.isScalar, elements: [multiply(value.elements)] };
    }
    case "Not":
      return elementwise([input(0)], ([x]) => (typeof x === "number" ? Number(x === 0) : null));
    default: {
      const combine = BINARY[node.opType ?? ""];
      return combine && elementwise([input(0), input(1)], ([a, b]) => combine(a as Dim, b as Dim));
    }
  }
}

const BINARY: Readonly<Record<string, (a: Dim, b: Dim) => Dim>> = {
  Add: addDims,
  Sub: subtractDims,
  Mul: (a, b) =>
    typeof a === "number" && typeof b === "number" ? a * b : isNegative(a) || isNegative(b) ? null : multiply([a, b]),
  Div: floorDivide,
  // Python's and C's remainder are one where both numbers are positive.
  Mod: (a, b) => (typeof a === "number" && typeof b === "number" && a >= 0 && b > 0 ? a % b : null),
  Less: numeric((a, b) => a < b),
  LessOrEqual: numeric((a, b) => a <= b),
  Greater: numeric((a, b) => a > b),
  GreaterOrEqual: numeric((a, b) => a >= b),
  And: numeric((a, b) => a !== 0 && b !== 0),
  Or: numeric((a, b) => a !== 0 || b !== 0),
  Min: numeric(Math.min),
  Max: numeric(Math.max),
  Equal: (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a === b ? 1 : 0;
    if (a !== null && a === b) return 1;
    // A symbol is a dimension, so it is no −1.
    return (typeof a === "string" && isNegative(b)) || (typeof b === "string" && isNegative(a)) ? 0 : null;
  },
};

/** What needs both numbers; booleans are 0 and 1. */
function numeric(combine: (a: number, b: number) => number | boolean): (a: Dim, b: Dim) => Dim {
  return (a, b) => (typeof a === "number" && typeof b === "number" ? Number(combine(a, b)) : null);
}

/** Whole numbers end where a value becomes a float: from there on nothing is followed. */
function cast(value: ShapeValue | undefined, to: number): ShapeValue | undefined {
  if (to === DataType.INT64 || to === DataType.INT32) return value;
  if (to !== DataType.BOOL) return undefined;
  return elementwise([value], ([x]) => (typeof x === "number" ? Number(x !== 0) : null));
}

function isNegative(dim: Dim): boolean {
  return typeof dim === "number" && dim < 0;
}

function elementwise(
  inputs: readonly (ShapeValue | undefined)[],
  combine: (elements: Dim[]) => Dim,
): ShapeValue | undefined {
  const values = inputs.filter((value) => value !== undefined);
  if (values.length < inputs.length) return undefined;
  const length = Math.max(...values.map((value) => value.elements.length));
  if (values.some(({ elements }) => elements.length !== length && elements.length !== 1)) return undefined;
  return {
    isScalar: values.every((value) => value.isScalar),
    elements: Array.from({ length }, (_, i) =>
      combine(values.map(({ elements }) => elements[elements.length === 1 ? 0 : i] as Dim)),
    ),
  };
}

function slice(
  data: ShapeValue | undefined,
  bounds: readonly [ShapeValue | undefined, ShapeValue | undefined, ShapeValue | undefined],
): ShapeValue | undefined {
  if (!data || data.isScalar) return undefined;
  const [start, end, step] = bounds.map((value) => value?.elements[0]);
  if (typeof start !== "number" || typeof end !== "number" || step !== 1) return undefined;
  return { isScalar: false, elements: data.elements.slice(start, end) };
}
