/** Between a value's own shape and the flat one that the table look-ups work on. */
import type { GraphBuilder } from "../onnx/builder.js";

/** `x` as a vector. */
export function flatten(b: GraphBuilder, x: string): string {
  return b.reshape(x, [-1]);
}

/** `x` in the shape that the int64 vector `shape` holds; a 0 in it is an empty dimension, not "as before". */
export function unflatten(b: GraphBuilder, x: string, shape: string, name?: string): string {
  return b.op("Reshape", [x, shape], { allowzero: 1 }, name);
}
