/** Operators that choose among values: Where, Clip, Min, Max. */
import { reduceToShape } from "../broadcast.js";
import type { GradientRule } from "../rule.js";

export const where: GradientRule = {
  opType: "Where",
  gradient: (c) => {
    const zero = c.scalar(0, c.output());
    const to = (i: number, cotangent: string) => reduceToShape(c, cotangent, c.input(i), c.output());
    return {
      1: () => to(1, c.b.where(c.input(0), c.cotangent(), zero)),
      2: () => to(2, c.b.where(c.input(0), zero, c.cotangent())),
    };
  },
};

/** One inside the interval and at its ends, where the output is the input. A trainable bound gets what was clipped at it. */
export const clip: GradientRule = {
  opType: "Clip",
  gradient: (c) => {
    const { b } = c;
    const [x, y] = [c.input(0), c.output()];
    const zero = c.scalar(0, x);
    const total = (masked: string) => b.reduceSum(masked, undefined, false);
    return {
      0: () => b.where(b.equal(x, y), c.cotangent(), zero),
      1: () => total(b.where(b.less(x, c.input(1)), c.cotangent(), zero)),
      2: () => total(b.where(b.greater(x, c.input(2)), c.cotangent(), zero)),
    };
  },
};
