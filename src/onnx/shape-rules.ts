/**
 * Shapes that follow from shapes and from the values of shape vectors, for the operators that stand between exporters'
 * Reshapes. ONNX Runtime infers everything else; here dimensions that it loses are found again.
 */
import { hasAttribute, intOf, intsOf, stringOf } from "./attributes.js";
import type { Dim } from "./builder.js";
import { broadcastShapes, divide, multiply } from "./dimensions.js";
import type { NodeProto } from "./proto.js";
import type { ShapeScope, ShapeValue } from "./shape-values.js";

type Shape = readonly Dim[];

/** The shapes of a node's outputs; undefined where no rule tells. */
export function shapesOfNode(node: NodeProto, scope: ShapeScope): (Shape | undefined)[] {
  const opType = node.opType ?? "";
  if (SAME.has(opType)) return [scope.shapeOf(node.input[0] ?? "")];
  if (BROADCAST.has(opType)) return [broadcastShapes(node.input.map((name) => scope.shapeOf(name)))];
  if (opType.startsWith("Reduce")) return [reduced(node, scope)];
  return RULES[opType]?.(node, scope) ?? [];
}

/** Operators whose (first) output has the shape of the first input. */
const SAME: ReadonlySet<string> = new Set(
  (
    "Identity Cast Neg Abs Exp Log Sqrt Reciprocal Erf Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Floor Ceil Round " +
    "Sign Not IsNaN IsInf Sigmoid Tanh Softplus Softsign Relu LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Shrink HardSigmoid " +
    "HardSwish Mish Clip Dropout Softmax LogSoftmax Hardmax CumSum Trilu LayerNormalization BatchNormalization " +
    "InstanceNormalization GroupNormalization MeanVarianceNormalization LpNormalization LRN ScatterElements ScatterND"
  ).split(" "),
);

const BROADCAST: ReadonlySet<string> = new Set(
  "Add Sub Mul Div Pow Mod Min Max Sum Mean Where Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor".split(" "),
);

const RULES: Readonly<Record<string, (node: NodeProto, scope: ShapeScope) => (Shape | undefined)[]>> = {
  Shape: (node, scope) => {
    const end = hasAttribute(node, "end") ? intOf(node, "end", 0) : undefined;
    const taken = shapeAt(node, scope, 0)?.slice(intOf(node, "start", 0), end);
    return [taken && [taken.length]];
  },
  Size: () => [[]],
  Range: (node, scope) => {
    const [start, limit, step] = [0, 1, 2].map((i) => valueAt(node, scope, i)?.elements[0]);
    const isCount = start === 0 && step === 1 && limit !== undefined && (typeof limit !== "number" || limit >= 0);
    return [isCount ? [limit] : undefined];
  },
  Reshape: (node, scope) => [reshaped(node, scope)],
  Expand: (node, scope) => {
    const target = valueAt(node, scope, 1)?.elements;
    return [target && broadcastShapes([scope.shapeOf(node.input[0] ?? ""), target])];
  },
  ConstantOfShape: (node, scope) => [valueAt(node, scope, 0)?.elements],
  Flatten: (node, scope) => {
    const shape = shapeAt(node, scope, 0);
    if (!shape) return [];
    const axis = intOf(node, "axis", 1);
    const at = axis < 0 ? axis + shape.length : axis;
    return [[multiply(shape.slice(0, at)), multiply(shape.slice(at))]];
  },
  Transpose: (node, scope) => {
    const shape = shapeAt(node, scope, 0);
    const perm = intsOf(node, "perm");
    return [shape && (perm ? perm.map((axis) => shape[axis] ?? null) : [...shape].reverse())];
  },
  Squeeze: (node, scope) => {
    const shape = shapeAt(node, scope, 0);
    const axes = shape && node.input[1] ? axesAt(node, scope, 1, shape.length) : undefined;
    return [axes && shape?.filter((_, axis) => !axes.includes(axis))];
  },
  Unsqueeze: (node, scope) => {
    const shape = shapeAt(node, scope, 0);
    const count = valueAt(node, scope, 1)?.elements.length;
    const axes = shape && count !== undefined ? axesAt(node, scope, 1, shape.length + count) : undefined;
    if (!shape || !axes) return [];
    const rest = [...shape];
    return [
      Array.from({ length: shape.length + axes.length }, (_, i) => (axes.includes(i) ? 1 : (rest.shift() as Dim))),
    ];
  },
  MatMul: (node, scope) => {
    const [a, b] = [shapeAt(node, scope, 0), shapeAt(node, scope, 1)];
    if (!a || !b || a.length < 2 || b.length < 2) return [];
    const stack = broadcastShapes([a.slice(0, -2), b.slice(0, -2)]) as Dim[];
    return [[...stack, a.at(-2) as Dim, b.at(-1) as Dim]];
  },
  Gemm: (node, scope) => {
    const [a, b] = [shapeAt(node, scope, 0), shapeAt(node, scope, 1)];
    return [[a?.[intOf(node, "transA", 0)] ?? null, b?.[1 - intOf(node, "transB", 0)] ?? null]];
  },
  Concat: (node, scope) => {
    const shapes = node.input.map((name) => scope.shapeOf(name));
    const first = shapes[0];
    if (!first || shapes.some((shape) => shape?.length !== first.length)) return [];
    const axis = fromFront(intOf(node, "axis", 0), first.length);
    const all = shapes as Shape[];
    return [
      first.map((_, i) => {
        const dims = all.map((shape) => shape[i] as Dim);
        if (i !== axis) return dims.find((dim) => typeof dim === "number") ?? dims.find((dim) => dim !== null) ?? null;
        return dims.every((dim) => typeof dim === "number")
          ? (dims as number[]).reduce((sum, dim) => sum + dim, 0)
          : null;
      }),
    ];
  },
  Split: (node, scope) => {
    const shape = shapeAt(node, scope, 0);
    if (!shape) return [];
    const axis = fromFront(intOf(node, "axis", 0), shape.length);
    const sizes = node.input[1] ? valueAt(node, scope, 1)?.elements : undefined;
    const even = node.input[1] ? null : divide(shape[axis] as Dim, node.output.length);
    return node.output.map((_, i) => shape.map((dim, at) => (at === axis ? (sizes?.[i] ?? even) : dim)));
  },
  Gather: (node, scope) => {
    const [data, indices] = [shapeAt(node, scope, 0), shapeAt(node, scope, 1)];
    if (!data || !indices) return [];
    const axis = fromFront(intOf(node, "axis", 0), data.length);
    return [[...data.slice(0, axis), ...indices, ...data.slice(axis + 1)]];
  },
  Slice: (node, scope) => [sliced(node, scope)],
  Resize: (node, scope) => [resized(node, scope)],
  Pad: (node, scope) => {
    const shape = shapeAt(node, scope, 0);
    const pads = valueAt(node, scope, 1)?.elements;
    if (!shape || node.input[3] || pads?.length !== 2 * shape.length) return [];
    return [
      shape.map((dim, axis) => {
        const [before, after] = [pads[axis] as Dim, pads[axis + shape.length] as Dim];
        if (before === 0 && after === 0) return dim;
        const known = typeof dim === "number" && typeof before === "number" && typeof after === "number";
        return known ? dim + before + after : null;
      }),
    ];
  },
};

function shapeAt(node: NodeProto, scope: ShapeScope, i: number): Shape | undefined {
  return scope.shapeOf(node.input[i] ?? "");
}

function valueAt(node: NodeProto, scope: ShapeScope, i: number): ShapeValue | undefined {
  return node.input[i] ? scope.valueOf(node.input[i] as string) : undefined;
}

function fromFront(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

function axesAt(node: NodeProto, scope: ShapeScope, i: number, rank: number): number[] | undefined {
  const axes = valueAt(node, scope, i)?.elements;
  return axes?.every((axis) => typeof axis === "number")
    ? axes.map((axis) => fromFront(axis as number, rank))
    : undefined;
}

function reshaped(node: NodeProto, scope: ShapeScope): Shape | undefined {
  const target = valueAt(node, scope, 1)?.elements;
  const shape = shapeAt(node, scope, 0);
  if (!target) return undefined;
  const copies = intOf(node, "allowzero", 0) === 0;
  const dims = target.map((dim, i) => (dim === 0 && copies ? (shape?.[i] ?? null) : dim));
  const open = dims.indexOf(-1);
  if (open < 0) return dims;
  const rest = multiply(dims.filter((_, i) => i !== open));
  // A symbol may be zero, and then −1 has no meaning: the quotient holds wherever the model runs.
  dims[open] = shape ? divide(multiply(shape), rest) : null;
  return dims;
}

function sliced(node: NodeProto, scope: ShapeScope): Shape | undefined {
  const shape = shapeAt(node, scope, 0);
  const [starts, ends] = [valueAt(node, scope, 1)?.elements, valueAt(node, scope, 2)?.elements];
  const axes = node.input[3] ? axesAt(node, scope, 3, shape?.length ?? 0) : starts?.map((_, i) => i);
  const steps = node.input[4] ? valueAt(node, scope, 4)?.elements : axes?.map(() => 1);
  if (!shape || !axes) return undefined;
  const dims = [...shape];
  for (const [i, axis] of axes.entries()) {
    dims[axis] = sliceLength(shape[axis] as Dim, starts?.[i] ?? null, ends?.[i] ?? null, steps?.[i] ?? null);
  }
  return dims;
}

function sliceLength(dim: Dim, start: Dim, end: Dim, step: Dim): Dim {
  if (typeof start !== "number" || step !== 1) return null;
  if (start === 0 && dim !== null && (dim === end || (typeof end === "number" && end >= 2 ** 31 - 1))) return dim;
  if (typeof dim !== "number" || typeof end !== "number") return null;
  const bound = (at: number) => Math.min(Math.max(at < 0 ? at + dim : at, 0), dim);
  return Math.max(0, bound(end) - bound(start));
}

/** By sizes, or of a size that a scale of 1 keeps; the others ONNX Runtime works out. */
function resized(node: NodeProto, scope: ShapeScope): Shape | undefined {
  const shape = shapeAt(node, scope, 0);
  const scales = node.input[2] ? scope.floatsOf(node.input[2]) : undefined;
  const isStretched = stringOf(node, "keep_aspect_ratio_policy", "stretch") === "stretch";
  const sizes = isStretched ? valueAt(node, scope, 3)?.elements : undefined;
  if (!shape) return undefined;
  const axes = intsOf(node, "axes")?.map((axis) => fromFront(axis, shape.length)) ?? shape.map((_, axis) => axis);
  return shape.map((dim, axis) => {
    const i = axes.indexOf(axis);
    if (i < 0) return dim;
    return sizes ? (sizes[i] ?? null) : scales?.[i] === 1 ? dim : null;
  });
}

function reduced(node: NodeProto, scope: ShapeScope): Shape | undefined {
  const shape = shapeAt(node, scope, 0);
  if (!shape || intOf(node, "noop_with_empty_axes", 0) !== 0) return undefined;
  const given = intsOf(node, "axes")?.map((axis) => fromFront(axis, shape.length));
  const axes = given ?? (node.input[1] ? axesAt(node, scope, 1, shape.length) : shape.map((_, i) => i));
  if (!axes) return undefined;
  const keeps = intOf(node, "keepdims", 1) !== 0;
  return shape.flatMap((dim, axis) => (axes.includes(axis) ? (keeps ? [1] : []) : [dim]));
}
