/** Operators of ONNX Runtime's own domain that appear in exported and optimised models. */
import { floatOf, intOf } from "../../onnx/attributes.js";
import { reduceToShape } from "../broadcast.js";
import { type GradientContext, type GradientRule, once } from "../rule.js";
import { geluSlope, geluTanhSlope, swishSlope } from "./activations.js";

const MICROSOFT = "com.microsoft";

export const microsoftGelu: GradientRule = {
  opType: "Gelu",
  domain: MICROSOFT,
  gradient: (c) => ({ 0: () => c.b.mul(c.cotangent(), geluSlope(c, c.input(0))) }),
};

/** x·σ(αx) */
export const quickGelu: GradientRule = {
  opType: "QuickGelu",
  domain: MICROSOFT,
  gradient: (c) => ({
    0: () => c.b.mul(c.cotangent(), swishSlope(c, c.input(0), c.output(), floatOf(c.node, "alpha", 1.702))),
  }),
};

/** An activation of x + bias, the bias left out or along the last axis. */
function biased(opType: string, slope: (c: GradientContext, x: string) => string): GradientRule {
  return {
    opType,
    domain: MICROSOFT,
    gradient: (c) => {
      const dx = once(() => {
        const x = c.hasInput(1) ? c.b.add(c.input(0), c.input(1)) : c.input(0);
        return c.b.mul(c.cotangent(), slope(c, x));
      });
      return { 0: dx, 1: () => reduceToShape(c, dx(), c.input(1), c.output()) };
    },
  };
}

export const biasGelu = biased("BiasGelu", geluSlope);
export const fastGelu = biased("FastGelu", geluTanhSlope);

/** d(X⁻¹) = −X⁻¹ · dX · X⁻¹ */
export const inverse: GradientRule = {
  opType: "Inverse",
  domain: MICROSOFT,
  gradient: (c) => ({
    0: () => {
      const { b } = c;
      const rank = c.rank(c.output());
      const axes = [...Array(rank).keys()];
      const transposed = b.transpose(c.output(), [...axes.slice(0, -2), rank - 1, rank - 2]);
      return b.neg(b.matMul(b.matMul(transposed, c.cotangent()), transposed));
    },
  }),
};

/** Y = α · A′ · B′, the last two axes of either transposed or not. */
export const fusedMatMul: GradientRule = {
  opType: "FusedMatMul",
  domain: MICROSOFT,
  notes: "no transBatchA, transBatchB; ranks of 2 and more",
  gradient: (c) => {
    const { b } = c;
    const [A, B] = [c.input(0), c.input(1)];
    if (intOf(c.node, "transBatchA", 0) || intOf(c.node, "transBatchB", 0)) throw c.error("transposes its batch axes");
    if (c.rank(A) < 2 || c.rank(B) < 2) throw c.error("multiplies a vector");
    const [transA, transB] = [intOf(c.node, "transA", 0) === 1, intOf(c.node, "transB", 0) === 1];
    const alpha = floatOf(c.node, "alpha", 1);
    const dy = once(() => (alpha === 1 ? c.cotangent() : b.mul(c.cotangent(), c.scalar(alpha, c.output()))));
    const turned = (x: string, rank: number, turn: boolean) => {
      if (!turn) return x;
      const perm = [...Array(rank).keys()];
      return b.transpose(x, [...perm.slice(0, -2), rank - 1, rank - 2]);
    };
    const [rankA, rankB, rank] = [c.rank(A), c.rank(B), c.rank(c.output())];
    return {
      0: () => {
        const dA = transA
          ? b.matMul(turned(B, rankB, transB), turned(dy(), rank, true))
          : b.matMul(dy(), turned(B, rankB, !transB));
        return reduceToShape(c, dA, A, c.output(), 2);
      },
      1: () => {
        const dB = transB
          ? b.matMul(turned(dy(), rank, true), turned(A, rankA, transA))
          : b.matMul(turned(A, rankA, !transA), dy());
        return reduceToShape(c, dB, B, c.output(), 2);
      },
    };
  },
};
