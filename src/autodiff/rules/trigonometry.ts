/** Trigonometric and hyperbolic functions. CUDA has no Tan, Sinh or Cosh: derivatives are written without them. */
import type { GradientContext } from "../rule.js";
import { unary } from "./elementary.js";

const square = (c: GradientContext, x: string) => c.b.mul(x, x);
const one = (c: GradientContext) => c.scalar(1, c.input(0));

export const sin = unary("Sin", (c, dy) => c.b.mul(dy, c.b.op("Cos", [c.input(0)])));
export const cos = unary("Cos", (c, dy) => c.b.neg(c.b.mul(dy, c.b.op("Sin", [c.input(0)]))));
export const tan = unary("Tan", (c, dy) => c.b.mul(dy, c.b.add(square(c, c.output()), one(c))));
export const asin = unary("Asin", (c, dy) => c.b.div(dy, c.b.sqrt(c.b.sub(one(c), square(c, c.input(0))))));
export const acos = unary("Acos", (c, dy) => c.b.neg(c.b.div(dy, c.b.sqrt(c.b.sub(one(c), square(c, c.input(0)))))));
export const atan = unary("Atan", (c, dy) => c.b.div(dy, c.b.add(square(c, c.input(0)), one(c))));

/** cosh = (e + 1/e)/2 with e = exp|x|: finite wherever sinh is, which √(1 + sinh²) is not. */
export const sinh = unary("Sinh", (c, dy) => {
  const { b } = c;
  const e = b.mul(b.exp(b.abs(c.input(0))), c.scalar(0.5, c.input(0)));
  return b.mul(dy, b.add(e, b.div(c.scalar(0.25, c.input(0)), e)));
});
/** sinh = cosh · tanh */
export const cosh = unary("Cosh", (c, dy) => c.b.mul(dy, c.b.mul(c.output(), c.b.op("Tanh", [c.input(0)]))));
export const asinh = unary("Asinh", (c, dy) => c.b.div(dy, c.b.sqrt(c.b.add(square(c, c.input(0)), one(c)))));
export const acosh = unary("Acosh", (c, dy) => c.b.div(dy, c.b.sqrt(c.b.sub(square(c, c.input(0)), one(c)))));
export const atanh = unary("Atanh", (c, dy) => c.b.div(dy, c.b.sub(one(c), square(c, c.input(0)))));
