/** Shapes in backward graphs: constants where the dimensions are known, Shape at run time only where they are not. */
import type { Dim } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import type { GradientContext } from "./rule.js";

/** The shape as numbers, or undefined when a dimension is symbolic or unknown. */
export function staticShape(shape: readonly Dim[] | undefined): number[] | undefined {
  return shape?.every((dim) => typeof dim === "number") ? (shape as number[]) : undefined;
}

/** An int64 vector: the shape of the forward value `like`. */
export function shapeOf(c: GradientContext, like: string): string {
  const known = staticShape(c.type(like).shape);
  return known ? c.b.i64(known) : c.b.shape(like);
}

/** Reshapes `x` to the shape of the forward value `like`. One unknown dimension needs no Shape: it is −1. */
export function reshapeLike(c: GradientContext, x: string, like: string): string {
  const { shape } = c.type(like);
  if (shape && !shape.includes(0) && shape.filter((dim) => typeof dim !== "number").length <= 1) {
    return c.b.reshape(
      x,
      shape.map((dim) => (typeof dim === "number" ? dim : -1)),
    );
  }
  return c.b.op("Reshape", [x, shapeOf(c, like)], { allowzero: 1 });
}

/** Broadcasts `x` to the shape of the forward value `like`. */
export function expandLike(c: GradientContext, x: string, like: string): string {
  return c.b.expand(x, shapeOf(c, like));
}

/** Zeros of the type and shape of the forward value `like`. */
export function zerosLike(c: GradientContext, like: string): string {
  return expandLike(c, c.scalar(0, like), like);
}

/** Size of dimension `axis` of the forward value `x`, as an int64 vector of one element. */
export function dimension(c: GradientContext, x: string, axis: number): string {
  const dim = c.shape(x)[axis];
  return typeof dim === "number"
    ? c.b.i64([dim])
    : c.b.op("Shape", [x], { start: axis, end: axis + 1 === c.rank(x) ? undefined : axis + 1 });
}

/**
 * How many elements of `x` there are for one of `y`, as a scalar of `x`'s element type: the divisor of a mean.
 * @param axes the reduced axes of `x`, counted from the front, when they are known.
 */
export function elementsPer(c: GradientContext, x: string, y: string, axes: readonly number[] | undefined): string {
  const { shape } = c.type(x);
  const sizes = shape && axes?.map((axis) => shape[axis] ?? null);
  const known = staticShape(sizes);
  if (known)
    return c.scalar(
      known.reduce((product, dim) => product * dim, 1),
      x,
    );
  const { b } = c;
  return b.cast(b.div(b.op("Size", [x]), b.op("Size", [y])), c.elemType(x));
}

/**
 * The identity matrix [size, size], made of two short vectors: sessions fold it into a constant, and the file stays small.
 * (EyeLike has no kernel on WebGPU.)
 * @param size a number, or an int64 vector of one element.
 */
export function identityMatrix(c: GradientContext, size: number | string, type: DataType): string {
  const { b } = c;
  const indices =
    typeof size === "number"
      ? b.i32([...Array(size).keys()])
      : b.cast(b.op("Range", [b.i64(0), b.squeeze(size, [0]), b.i64(1)]), DataType.INT32);
  return b.cast(b.equal(b.unsqueeze(indices, [1]), b.unsqueeze(indices, [0])), type);
}
