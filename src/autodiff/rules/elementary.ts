/** Elementary functions of one argument, and Pow. */
import type { DataType } from "../../onnx/proto.js";
import { reduceToShape } from "../broadcast.js";
import type { GradientContext, GradientRule } from "../rule.js";

/** A rule for `y = f(x)`: `derivative` emits the cotangent of x from that of y. */
export function unary(opType: string, derivative: (c: GradientContext, dy: string) => string): GradientRule {
  return { opType, gradient: (c) => ({ 0: () => derivative(c, c.cotangent()) }) };
}

/** −1, 0 or 1. Sign itself has no kernel on WebGPU. */
export function sign(c: GradientContext, x: string): string {
  const { b } = c;
  const zero = c.scalar(0, x);
  const negative = b.where(b.less(x, zero), c.scalar(-1, x), zero);
  return b.where(b.greater(x, zero), c.scalar(1, x), negative);
}

/** Zero at zero, as in PyTorch. */
export const abs = unary("Abs", (c, dy) => {
  const zero = c.scalar(0, c.input(0));
  const left = c.b.where(c.b.less(c.input(0), zero), c.b.neg(dy), zero);
  return c.b.where(c.b.greater(c.input(0), zero), dy, left);
});

export const exp = unary("Exp", (c, dy) => c.b.mul(dy, c.output()));

export const log = unary("Log", (c, dy) => c.b.div(dy, c.input(0)));

export const sqrt = unary("Sqrt", (c, dy) => c.b.div(c.b.mul(dy, c.scalar(0.5, c.output())), c.output()));

export const reciprocal = unary("Reciprocal", (c, dy) => c.b.neg(c.b.mul(dy, c.b.mul(c.output(), c.output()))));

/** erf′(x) = 2/√π · exp(−x²) */
export const erf = unary("Erf", (c, dy) => {
  const x = c.input(0);
  const density = c.b.exp(c.b.neg(c.b.mul(x, x)));
  return c.b.mul(dy, c.b.mul(density, c.scalar(2 / Math.sqrt(Math.PI), x)));
});

export const pow: GradientRule = {
  opType: "Pow",
  gradient: (c) => ({
    0: () => reduceToShape(c, c.b.mul(c.cotangent(), powerDerivative(c)), c.input(0), c.output()),
    1: () => {
      // d(x^p)/dp = x^p · ln x, and 0 at x = 0, where x^p · ln x has that limit for p > 0.
      const { b } = c;
      const x = c.input(0);
      const safe = b.where(b.equal(x, c.scalar(0, x)), c.scalar(1, x), x);
      return reduceToShape(c, b.mul(c.cotangent(), b.mul(c.output(), b.log(safe))), c.input(1), c.output());
    },
  }),
};

/** p · x^(p−1), without Pow for the small powers that losses and norms use. */
function powerDerivative(c: GradientContext): string {
  const { b } = c;
  const x = c.input(0);
  const constant = c.constantNumbers(1);
  if (constant?.length === 1) {
    const p = constant[0] as number;
    if (p === 1) return c.scalar(1, x);
    if (p === 2) return b.mul(x, c.scalar(2, x));
    if (p === 3) return b.mul(b.mul(x, x), c.scalar(3, x));
    return b.mul(b.pow(x, c.scalar(p - 1, x)), c.scalar(p, x));
  }
  const type: DataType = c.elemType(x);
  const p = c.elemType(c.input(1)) === type ? c.input(1) : b.cast(c.input(1), type);
  // Where p = 0 the derivative is 0, also at x = 0, where x^(p−1) is infinite.
  const zero = c.scalar(0, x);
  const product = b.mul(b.pow(x, b.sub(p, c.scalar(1, x))), p);
  return b.where(b.equal(p, zero), zero, product);
}
