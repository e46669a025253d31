/** Statistics: for each preconditioned axis of a block, the Gram matrix of the gradient over all other axes. */
import type { GraphBuilder } from "../../onnx/builder.js";
import { accumulate } from "../common.js";
import type { Region } from "./blocking.js";

/**
 * S ← decay·S + weight·Gram(g) for one axis.
 * @param stack the gradient's blocks: [...block], or [count, ...block].
 * @param statistics [d, d], or [count, d, d], d the length of the axis.
 */
export function emitStatistics(
  b: GraphBuilder,
  region: Region,
  axis: number,
  stack: string,
  statistics: string,
  decay: number,
  weight: number,
): string {
  const { side, matrix } = unfold(b, region, axis, stack);
  if (region.count === 1) {
    // One pass over the statistics: the product lands on top of the scaled old value.
    return b.gemm(matrix, matrix, {
      c: statistics,
      transA: side === "right",
      transB: side === "left",
      alpha: weight,
      beta: decay,
    });
  }
  const transposed = b.transpose(matrix, [0, 2, 1]);
  const gram = side === "left" ? b.matMul(matrix, transposed) : b.matMul(transposed, matrix);
  return accumulate(b, statistics, gram, decay, weight);
}

/**
 * The stack as matrices whose Gram matrix is wanted: [d, rest] (side left: A·Aᵀ) or [rest, d] (side right: Aᵀ·A), with
 * the count in front when there is more than one.
 */
function unfold(
  b: GraphBuilder,
  region: Region,
  axis: number,
  stack: string,
): { side: "left" | "right"; matrix: string } {
  const rank = region.block.length;
  const length = region.block[axis] as number;
  const rest = region.block.reduce((product, dim) => product * dim, 1) / length;
  const lead = region.count === 1 ? [] : [region.count];
  if (rank === 2) return { side: axis === 0 ? "left" : "right", matrix: stack };
  if (axis === rank - 1 && rank > 1) return { side: "right", matrix: b.reshape(stack, [...lead, rest, length]) };
  let ordered = stack;
  if (axis > 0) {
    const offset = lead.length;
    const others = Array.from({ length: rank }, (_, i) => i).filter((i) => i !== axis);
    ordered = b.transpose(stack, [...lead.map(() => 0), axis + offset, ...others.map((i) => i + offset)]);
  }
  return { side: "left", matrix: b.reshape(ordered, [...lead, length, rest]) };
}
