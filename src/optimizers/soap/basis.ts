/**
 * The eigenbasis of statistics, tracked by one step of orthogonal iteration at each refresh (Vyas et al. 2024, SOAP):
 * the columns of Q are sorted by their eigenvalue estimates, and Q ← the orthogonal factor of S·Q. The factor comes from
 * CholeskyQR (Stathopoulos and Wu 2002) in float64: (SQ)ᵀSQ = LLᵀ, Q ← SQ·L⁻ᵀ, and a step of Newton and Schulz, which
 * squares the error of the orthogonality. A ridge of 10⁻⁶ bounds the condition number of what is factored.
 */
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import { emitCholeskyInverse, identityData } from "./cholesky.js";

/** Of the mean of the eigenvalues times their number: the trace. */
const RIDGE = 1e-6;

export interface EmittedBasis {
  /** float32 [count, size, size]; the basis as it was where the factorisation failed. */
  readonly basis: string;
  /** int64 [count, size]: which column of the old basis each of the new one came from. */
  readonly order: string;
  /** max|QᵀQ − I|: float32 [count]. */
  readonly residual: string;
  /** Whether the factorisation failed: bool [count]. Statistics of zeros keep their basis and fail nothing. */
  readonly failed: string;
}

/**
 * @param statistics symmetric, positive semidefinite: float32 [count, size, size].
 * @param basis orthogonal, of the same shape.
 */
export function emitBasis(b: GraphBuilder, statistics: string, basis: string, size: number): EmittedBasis {
  const t = (x: string) => b.transpose(x, [0, 2, 1]);
  const identity = b.initializer("identity", DataType.DOUBLE, [1, size, size], identityData(size));
  const s = b.cast(statistics, DataType.DOUBLE);
  const trace = b.reduceSum(b.mul(s, identity), [1, 2], true);
  const isZero = b.equal(trace, b.f64(0));
  const scaled = b.add(b.div(s, b.where(isZero, b.f64(1), trace)), b.mul(identity, b.f64(RIDGE)));
  const old = b.cast(basis, DataType.DOUBLE);
  const product = b.matMul(scaled, old);
  const estimates = b.cast(b.reduceSum(b.mul(product, old), [1], false), DataType.FLOAT);
  const [, order] = b.node("TopK", [estimates, b.i64([size])], { outputs: 2, attributes: { axis: -1 } }) as [
    string,
    string,
  ];
  const columns = b.expand(b.unsqueeze(order, [1]), b.shape(product));
  const sorted = b.op("GatherElements", [product, columns], { axis: 2 });
  // Columns of unit length: factoring does not care, and rounding does.
  const lengths = b.sqrt(b.reduceSum(b.mul(sorted, sorted), [1], true));
  const unit = b.div(sorted, lengths);
  const inverse = emitCholeskyInverse(b, b.matMul(t(unit), unit), size);
  const first = b.matMul(unit, t(inverse));
  const correction = b.sub(b.mul(identity, b.f64(1.5)), b.mul(b.matMul(t(first), first), b.f64(0.5)));
  const second = b.matMul(first, correction);
  const error = b.reduce("ReduceMax", b.abs(b.sub(b.matMul(t(second), second), identity)), [1, 2], true);
  const works = b.op("And", [b.less(error, b.f64(1e-3)), b.op("Not", [isZero])]);
  const places = b.i64(
    Array.from({ length: size }, (_, i) => i),
    [1, size],
  );
  return {
    basis: b.where(works, b.cast(second, DataType.FLOAT), basis),
    order: b.where(b.squeeze(works, [2]), order, places),
    residual: b.squeeze(b.cast(error, DataType.FLOAT), [1, 2]),
    failed: b.squeeze(b.op("Not", [b.op("Or", [works, isZero])]), [1, 2]),
  };
}
