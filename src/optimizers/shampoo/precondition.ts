/** Multiplies blocks by their preconditioners, axis by axis. */
import type { GraphBuilder } from "../../onnx/builder.js";
import type { Region } from "./blocking.js";

/**
 * Contracts each preconditioned axis of the blocks with its (symmetric) preconditioner: L·G·R for a matrix.
 * @param stack [...block], or [count, ...block].
 * @param preconditioners by axis: [d, d], or [count, d, d]; axes without one stay as they are.
 */
export function emitPrecondition(
  b: GraphBuilder,
  region: Region,
  stack: string,
  preconditioners: ReadonlyMap<number, string>,
): string {
  const rank = region.block.length;
  const lead = region.count === 1 ? [] : [region.count];
  const whole = [...lead, ...region.block];
  let result = stack;
  for (const [axis, preconditioner] of preconditioners) {
    const length = region.block[axis] as number;
    const before = product(region.block.slice(0, axis));
    const after = product(region.block.slice(axis + 1));
    if (axis === rank - 1 && rank > 1) {
      const matrix = rank === 2 ? result : b.reshape(result, [...lead, before, length]);
      const multiplied = b.matMul(matrix, preconditioner);
      result = rank === 2 ? multiplied : b.reshape(multiplied, whole);
    } else if (axis === 0) {
      const matrix = rank === 2 ? result : b.reshape(result, [...lead, length, after]);
      const multiplied = b.matMul(preconditioner, matrix);
      result = rank === 2 ? multiplied : b.reshape(multiplied, whole);
    } else {
      // A middle axis: one small product for each index before it, the preconditioner broadcast over them.
      const matrices = b.reshape(result, [...lead, before, length, after]);
      const wide = lead.length > 0 ? b.unsqueeze(preconditioner, [1]) : preconditioner;
      result = b.reshape(b.matMul(wide, matrices), whole);
    }
  }
  return result;
}

function product(dims: readonly number[]): number {
  return dims.reduce((total, dim) => total * dim, 1);
}
