/** Gemm and MatMul. Weight gradients are one Gemm over all rows of the batch, with flags in place of Transpose nodes. */
import { floatOf, intOf } from "../../onnx/attributes.js";
import { reduceToShape } from "../broadcast.js";
import { type GradientContext, type GradientRule, once } from "../rule.js";
import { reshapeLike } from "../shapes.js";

/** Y = α·A′·B′ + β·C, where A′ and B′ may be transposed. */
export const gemm: GradientRule = {
  opType: "Gemm",
  gradient: (c) => {
    const { b } = c;
    const [A, B] = [c.input(0), c.input(1)];
    const [transA, transB] = [intOf(c.node, "transA", 0) === 1, intOf(c.node, "transB", 0) === 1];
    const factor = floatOf(c.node, "alpha", 1);
    const alpha = factor === 1 ? {} : { alpha: factor };
    return {
      0: () =>
        transA
          ? b.gemm(B, c.cotangent(), { transA: transB, transB: true, ...alpha })
          : b.gemm(c.cotangent(), B, { transB: !transB, ...alpha }),
      1: () =>
        transB
          ? b.gemm(c.cotangent(), A, { transA: true, transB: transA, ...alpha })
          : b.gemm(A, c.cotangent(), { transA: !transA, ...alpha }),
      2: () => {
        const beta = floatOf(c.node, "beta", 1);
        const summed = reduceToShape(c, c.cotangent(), c.input(2), c.output());
        return beta === 1 ? summed : b.mul(summed, c.scalar(beta, c.input(2)));
      },
    };
  },
};

export const matMul: GradientRule = {
  opType: "MatMul",
  gradient: (c) => {
    const [rankA, rankB] = [c.rank(c.input(0)), c.rank(c.input(1))];
    if (rankA === 1 && rankB === 1) return dotProduct(c);
    if (rankB === 1) return matrixVector(c);
    if (rankA === 1) return vectorMatrix(c, rankB);
    if (rankB === 2) return rowsTimesMatrix(c, rankA);
    return batched(c, rankA, rankB);
  },
};

/** [K]·[K] → scalar. */
function dotProduct(c: GradientContext): Record<number, () => string> {
  return {
    0: () => c.b.mul(c.cotangent(), c.input(1)),
    1: () => c.b.mul(c.cotangent(), c.input(0)),
  };
}

/** [...,K]·[K,N]: a two-dimensional product of all rows. */
function rowsTimesMatrix(c: GradientContext, rankA: number): Record<number, () => string> {
  const { b } = c;
  const rows = (x: string) => (rankA === 2 ? x : b.op("Flatten", [x], { axis: rankA - 1 }));
  const dy = once(() => rows(c.cotangent()));
  return {
    0: () => {
      const dA = b.gemm(dy(), c.input(1), { transB: true });
      return rankA === 2 ? dA : reshapeLike(c, dA, c.input(0));
    },
    1: () => b.gemm(rows(c.input(0)), dy(), { transA: true }),
  };
}

/** [...,M,K]·[K] → [...,M] */
function matrixVector(c: GradientContext): Record<number, () => string> {
  const { b } = c;
  const column = once(() => b.unsqueeze(c.cotangent(), [-1]));
  return {
    0: () => b.mul(column(), c.input(1)),
    1: () => {
      const all = [...Array(c.rank(c.input(0)) - 1).keys()];
      return b.reduceSum(b.mul(column(), c.input(0)), all, false);
    },
  };
}

/** [K]·[...,K,N] → [...,N] */
function vectorMatrix(c: GradientContext, rankB: number): Record<number, () => string> {
  const { b } = c;
  const row = once(() => b.unsqueeze(c.cotangent(), [-2]));
  return {
    0: () => {
      const others = [...Array(rankB).keys()].filter((axis) => axis !== rankB - 2);
      return b.reduceSum(b.mul(row(), c.input(1)), others, false);
    },
    1: () => b.mul(b.unsqueeze(c.input(0), [-1]), row()),
  };
}

/** Stacks of matrices, whose leading axes broadcast. */
function batched(c: GradientContext, rankA: number, rankB: number): Record<number, () => string> {
  const { b } = c;
  return {
    0: () => {
      const dA = b.matMul(c.cotangent(), swapLast(c, c.input(1), rankB));
      return reduceStack(c, dA, c.input(0));
    },
    1: () => {
      const dB = b.matMul(swapLast(c, c.input(0), rankA), c.cotangent());
      return reduceStack(c, dB, c.input(1));
    },
  };
}

function swapLast(c: GradientContext, x: string, rank: number): string {
  const perm = [...Array(rank).keys()];
  perm.push(...(perm.splice(rank - 2).reverse() as [number, number]));
  return c.b.transpose(x, perm);
}

/** Sums over the leading axes along which `like` was broadcast: the product's stack is the output's. */
function reduceStack(c: GradientContext, product: string, like: string): string {
  return reduceToShape(c, product, like, c.output(), 2);
}
