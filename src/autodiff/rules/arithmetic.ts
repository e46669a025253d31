/** Add, Sub, Mul, Div, Neg, Mod: elementwise with broadcasting. */
import { reduceToShape } from "../broadcast.js";
import { type GradientContext, type GradientRule, once } from "../rule.js";

/** Sums a cotangent of the output's shape down to input `i`. */
const to = (c: GradientContext, i: number, cotangent: string) => reduceToShape(c, cotangent, c.input(i), c.output());

export const add: GradientRule = {
  opType: "Add",
  gradient: (c) => ({
    0: () => to(c, 0, c.cotangent()),
    1: () => to(c, 1, c.cotangent()),
  }),
};

export const sub: GradientRule = {
  opType: "Sub",
  gradient: (c) => ({
    0: () => to(c, 0, c.cotangent()),
    1: () => c.b.neg(to(c, 1, c.cotangent())),
  }),
};

export const mul: GradientRule = {
  opType: "Mul",
  gradient: (c) => ({
    0: () => to(c, 0, c.b.mul(c.cotangent(), c.input(1))),
    1: () => to(c, 1, c.b.mul(c.cotangent(), c.input(0))),
  }),
};

export const div: GradientRule = {
  opType: "Div",
  gradient: (c) => {
    const quotient = once(() => c.b.div(c.cotangent(), c.input(1)));
    return {
      0: () => to(c, 0, quotient()),
      // d(a/b)/db = −(a/b)/b
      1: () => c.b.neg(to(c, 1, c.b.mul(quotient(), c.output()))),
    };
  },
};

export const neg: GradientRule = {
  opType: "Neg",
  gradient: (c) => ({ 0: () => c.b.neg(c.cotangent()) }),
};

/** a − b·trunc(a/b) (fmod; floats have no other Mod): the quotient is constant between its jumps. */
export const mod: GradientRule = {
  opType: "Mod",
  gradient: (c) => ({
    0: () => to(c, 0, c.cotangent()),
    1: () => to(c, 1, c.b.mul(c.cotangent(), c.b.div(c.b.sub(c.output(), c.input(0)), c.input(1)))),
  }),
};
