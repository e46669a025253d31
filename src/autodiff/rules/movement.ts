/** Operators that pass values on unchanged, in another type, shape or order. */
import { intsOf } from "../../onnx/attributes.js";
import { reduceToShape } from "../broadcast.js";
import type { GradientRule } from "../rule.js";
import { reshapeLike } from "../shapes.js";
import { unary } from "./elementary.js";

export const identity = unary("Identity", (_, dy) => dy);

/** Between floating-point types only; a cast to an integer ends differentiation. */
export const cast = unary("Cast", (c, dy) => c.b.cast(dy, c.elemType(c.input(0))));
export const castLike = unary("CastLike", (c, dy) => c.b.cast(dy, c.elemType(c.input(0))));

export const reshape = unary("Reshape", (c, dy) => reshapeLike(c, dy, c.input(0)));
export const flatten = unary("Flatten", (c, dy) => reshapeLike(c, dy, c.input(0)));
export const squeeze = unary("Squeeze", (c, dy) => reshapeLike(c, dy, c.input(0)));
export const unsqueeze = unary("Unsqueeze", (c, dy) => reshapeLike(c, dy, c.input(0)));

export const transpose = unary("Transpose", (c, dy) => {
  const rank = c.rank(c.input(0));
  const perm = intsOf(c.node, "perm") ?? [...Array(rank).keys()].reverse();
  const inverse = perm.map((_, axis) => perm.indexOf(axis));
  return c.b.transpose(dy, inverse);
});

export const expand: GradientRule = {
  opType: "Expand",
  gradient: (c) => ({ 0: () => reduceToShape(c, c.cotangent(), c.input(0), c.output()) }),
};
