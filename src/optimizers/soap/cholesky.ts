/** The inverse of a Cholesky factor from elementary operators: ONNX has no factorisations. */
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";

/** Sizes up to which a block is eliminated column by column. */
const BASE = 16;

/**
 * L⁻¹ of A = LLᵀ, by halves:
 *
 *     L₁₁⁻¹ = chol⁻¹(A₁₁)    L₂₁ = A₂₁L₁₁⁻ᵀ    L₂₂⁻¹ = chol⁻¹(A₂₂ − L₂₁L₂₁ᵀ)    (L⁻¹)₂₁ = −L₂₂⁻¹L₂₁L₁₁⁻¹
 *
 * so that all but blocks of 16 are matrix products (Golub and Van Loan, Matrix Computations, 4.2).
 * @param a symmetric, positive definite: float64 [count, size, size]. Anything else gives values that are not numbers.
 */
export function emitCholeskyInverse(b: GraphBuilder, a: string, size: number): string {
  if (size <= BASE) return emitElimination(b, a, size);
  const half = BASE * 2 ** Math.ceil(Math.log2(size / BASE) - 1);
  const part = (rows: [number, number], columns: [number, number]) =>
    b.slice(a, [rows[0], columns[0]], [rows[1], columns[1]], [1, 2]);
  const rest = size - half;
  const first = emitCholeskyInverse(b, part([0, half], [0, half]), half);
  const below = b.matMul(part([half, size], [0, half]), transpose(b, first));
  const schur = b.sub(part([half, size], [half, size]), b.matMul(below, transpose(b, below)));
  const second = emitCholeskyInverse(b, schur, rest);
  const corner = b.neg(b.matMul(second, b.matMul(below, first)));
  const top = b.op("Pad", [first, b.i64([0, 0, 0, 0, 0, rest])]);
  return b.concat([top, b.concat([corner, second], 2)], 1);
}

/** Gauss elimination of [A | I] without pivots: D⁻¹ᐟ²·(what was I), D the pivots. */
function emitElimination(b: GraphBuilder, a: string, size: number): string {
  const identity = b.initializer("identity", DataType.DOUBLE, [1, size, size], identityData(size));
  // [A | I], the identity made to fit the count.
  let augmented = b.concat([a, b.add(b.mul(a, b.f64(0)), identity)], 2);
  for (let k = 0; k < size - 1; k++) {
    const column = b.slice(augmented, [k], [k + 1], [2]);
    const row = b.slice(augmented, [k], [k + 1], [1]);
    const pivot = b.slice(row, [k], [k + 1], [2]);
    const below = b.initializer(
      "below",
      DataType.DOUBLE,
      [1, size, 1],
      Float64Array.from({ length: size }, (_, i) => (i > k ? 1 : 0)),
    );
    augmented = b.sub(augmented, b.mul(b.mul(column, b.div(below, pivot)), row));
  }
  const left = b.slice(augmented, [0], [size], [2]);
  const pivots = b.reduceSum(b.mul(left, identity), [2], true);
  return b.div(b.slice(augmented, [size], [2 * size], [2]), b.sqrt(pivots));
}

function transpose(b: GraphBuilder, x: string): string {
  return b.transpose(x, [0, 2, 1]);
}

export function identityData(size: number): Float64Array {
  const data = new Float64Array(size * size);
  for (let i = 0; i < size; i++) data[i * (size + 1)] = 1;
  return data;
}
