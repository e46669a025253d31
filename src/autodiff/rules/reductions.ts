/** Reduce* operators. Axes come as an input (opset 18) or as an attribute (before). */
import { intOf, intsOf } from "../../onnx/attributes.js";
import type { GradientContext } from "../rule.js";
import { elementsPer, expandLike } from "../shapes.js";
import { unary } from "./elementary.js";

/** The reduced axes counted from the front; undefined when they are known only at run time. */
function reducedAxes(c: GradientContext): number[] | undefined {
  const x = c.input(0);
  if (c.hasInput(1) && !c.constantNumbers(1)) return undefined;
  const axes = c.constantNumbers(1) ?? intsOf(c.node, "axes") ?? [];
  if (axes.length > 0) return axes.map((axis) => c.axis(axis, x));
  const none = intOf(c.node, "noop_with_empty_axes", 0) === 1;
  return none ? [] : [...Array(c.rank(x)).keys()];
}

/** A value of the output's shape with the reduced axes put back as axes of size 1, so that it broadcasts against x. */
function withAxes(c: GradientContext, value: string, axes: readonly number[] | undefined): string {
  const { b } = c;
  if (intOf(c.node, "keepdims", 1) === 1 || axes?.length === 0) return value;
  if (axes) return c.rank(c.output()) === 0 ? value : b.unsqueeze(value, axes);
  const noop = intOf(c.node, "noop_with_empty_axes", 0);
  const kept = b.op("ReduceSum", [c.input(0), c.input(1)], { keepdims: 1, noop_with_empty_axes: noop });
  return b.op("Reshape", [value, b.shape(kept)], { allowzero: 1 });
}

export const reduceSum = unary("ReduceSum", (c, dy) => expandLike(c, withAxes(c, dy, reducedAxes(c)), c.input(0)));

export const reduceMean = unary("ReduceMean", (c, dy) => {
  const axes = reducedAxes(c);
  const share = c.b.div(dy, elementsPer(c, c.input(0), c.output(), axes));
  return expandLike(c, withAxes(c, share, axes), c.input(0));
});
