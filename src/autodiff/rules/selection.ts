/** Operators that choose among values or join several: Where, Clip, Min, Max, Sum, Mean. */
import { reduceToShape } from "../broadcast.js";
import { type GradientContext, type GradientRule, once } from "../rule.js";

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

/** Each operand that attains the extremum gets an even share, as torch.maximum and torch.minimum. */
function extremum(opType: string): GradientRule {
  return {
    opType,
    gradient: (c) => {
      const { b } = c;
      const y = c.output();
      if (c.node.input.length === 1) return { 0: () => c.cotangent() };
      const hits = c.node.input.map((x) => once(() => b.cast(b.equal(x, y), c.elemType(y))));
      const share = once(() =>
        b.div(
          c.cotangent(),
          hits.map((hit) => hit()).reduce((sum, hit) => b.add(sum, hit)),
        ),
      );
      return forEachInput(c, (i) => b.mul(share(), (hits[i] as () => string)()));
    },
  };
}

export const max = extremum("Max");
export const min = extremum("Min");

export const sum: GradientRule = { opType: "Sum", gradient: (c) => forEachInput(c, () => c.cotangent()) };

export const mean: GradientRule = {
  opType: "Mean",
  gradient: (c) => {
    const share = once(() => c.b.mul(c.cotangent(), c.scalar(1 / c.node.input.length, c.output())));
    return forEachInput(c, share);
  },
};

/** A thunk for every input, whose value is summed down to the input's shape. */
function forEachInput(c: GradientContext, cotangent: (i: number) => string): Record<number, () => string> {
  return Object.fromEntries(c.node.input.map((x, i) => [i, () => reduceToShape(c, cotangent(i), x, c.output())]));
}
