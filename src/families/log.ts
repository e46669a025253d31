/** A logarithm that does not depend on the number of threads. */
import type { GraphBuilder } from "../onnx/builder.js";

/**
 * log x, elementwise. The CPU's Log computes whole vectors and the rest of each thread's share by different code, which
 * differ in the last bit, so that the same samples on one thread and on two would not be the same bits. Summed over an
 * axis of length 1, every element is computed alone.
 */
export function emitLog(b: GraphBuilder, x: string): string {
  const sums = b.reduce("ReduceLogSum", b.unsqueeze(x, [-1]), [-1], false);
  // Of no elements, the reduction loses the shape.
  return b.reshape(sums, b.shape(x));
}
