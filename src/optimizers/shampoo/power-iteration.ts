/**
 * Power iterations on symmetric matrices. Vectors are rows: ONNX Runtime's product with a column in float32 has other
 * last bits on other numbers of threads.
 */
import type { GraphBuilder } from "../../onnx/builder.js";
import { type Arithmetic, any } from "./arithmetic.js";
import { emitLoop, emitUnrolled } from "./loop.js";
import { randomVector } from "./random-vector.js";

const MOST_ROUNDS = 25;
/** Rounds where none can be saved. */
const UNROLLED_ROUNDS = 12;
/** Rounds for a norm from below. */
const NORM_ROUNDS = 6;

/**
 * A row along the eigenvector of the largest eigenvalue, [count, 1, d], by power iteration.
 * @param tolerance the relative change of the eigenvalue at which it ends.
 */
export function emitTopEigenvector(
  b: GraphBuilder,
  a: Arithmetic,
  matrix: string,
  tolerance: number,
  unrolled = false,
): string {
  const repeat = unrolled ? emitUnrolled : emitLoop;
  const { vector } = repeat(
    b,
    unrolled ? UNROLLED_ROUNDS : MOST_ROUNDS,
    {
      vector: { value: b.mul(a.filled(b, 1), startRow(b, a)), type: a.vectors },
      stretch: { value: a.filled(b, 0), type: a.scalars },
    },
    (inner, { vector, stretch }) => {
      const next = emitRound(inner, a, matrix, vector);
      const change = inner.abs(inner.sub(next.stretch, stretch));
      const moving = inner.greater(change, inner.mul(next.stretch, a.constant(inner, tolerance)));
      return { again: any(inner, moving), values: next };
    },
  );
  return vector;
}

/** ‖H‖₂ from below, [count, 1, 1], by a few power iterations. */
export function emitNormFromBelow(b: GraphBuilder, a: Arithmetic, h: string): string {
  let now = { vector: startRow(b, a), stretch: "" };
  for (let round = 0; round < NORM_ROUNDS; round++) now = emitRound(b, a, h, now.vector);
  return now.stretch;
}

function emitRound(b: GraphBuilder, a: Arithmetic, matrix: string, vector: string) {
  const product = b.matMul(vector, matrix);
  const stretch = b.max(b.reduce("ReduceL2", product, a.count === undefined ? [0, 1] : [1, 2], true), a.tiny(b));
  return { vector: b.div(product, stretch), stretch };
}

function startRow(b: GraphBuilder, a: Arithmetic): string {
  return a.constant(b, randomVector(a.size), a.count === undefined ? [1, a.size] : [1, 1, a.size]);
}
