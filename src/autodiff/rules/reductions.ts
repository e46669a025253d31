/** Reduce* operators. Axes come as an input (opset 18) or as an attribute (before). */
import { intOf, intsOf } from "../../onnx/attributes.js";
import type { GradientContext } from "../rule.js";
import { elementsPer, expandLike } from "../shapes.js";
import { sign, unary } from "./elementary.js";

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

/**
 * A rule from the cotangent and the output, both with their reduced axes put back as axes of size 1.
 * What it emits has the input's shape.
 */
function reduction(opType: string, gradient: (c: GradientContext, dy: string, y: () => string) => string) {
  return unary(opType, (c, dy) => {
    const axes = reducedAxes(c);
    return gradient(c, withAxes(c, dy, axes), () => withAxes(c, c.output(), axes));
  });
}

export const reduceSum = reduction("ReduceSum", (c, dy) => expandLike(c, dy, c.input(0)));

export const reduceMean = unary("ReduceMean", (c, dy) => {
  const axes = reducedAxes(c);
  const share = c.b.div(dy, elementsPer(c, c.input(0), c.output(), axes));
  return expandLike(c, withAxes(c, share, axes), c.input(0));
});

/** Ties share evenly, as torch.amax and torch.amin. */
function extremum(opType: string) {
  return unary(opType, (c, dy) => {
    const { b } = c;
    const x = c.input(0);
    const axes = reducedAxes(c);
    const hits = b.equal(x, withAxes(c, c.output(), axes));
    const counts = sumAlike(c, b.cast(hits, c.elemType(x)), axes);
    return b.where(hits, b.div(withAxes(c, dy, axes), counts), c.scalar(0, x));
  });
}

export const reduceMax = extremum("ReduceMax");
export const reduceMin = extremum("ReduceMin");

/** Sums over the reduced axes and keeps them. */
function sumAlike(c: GradientContext, value: string, axes: readonly number[] | undefined): string {
  if (axes) return axes.length > 0 ? c.b.reduceSum(value, axes, true) : value;
  const noop_with_empty_axes = intOf(c.node, "noop_with_empty_axes", 0);
  return c.b.op("ReduceSum", [value, c.input(1)], { keepdims: 1, noop_with_empty_axes });
}

/** The product of the others: zero where another is zero, and exact where the element itself is. */
export const reduceProd = unary("ReduceProd", (c, dy) => {
  const { b } = c;
  const x = c.input(0);
  const axes = reducedAxes(c);
  const zero = c.scalar(0, x);
  const isZero = b.equal(x, zero);
  const zeros = b.cast(isZero, c.elemType(x));
  const safe = b.where(isZero, c.scalar(1, x), x);
  const product =
    axes?.length === 0
      ? safe
      : b.op("ReduceProd", [safe, ...(axes ? [b.i64(axes)] : [c.input(1)])], {
          keepdims: 1,
          noop_with_empty_axes: axes ? undefined : intOf(c.node, "noop_with_empty_axes", 0),
        });
  const otherZeros = b.sub(sumAlike(c, zeros, axes), zeros);
  const others = b.div(b.mul(product, withAxes(c, dy, axes)), safe);
  return b.where(b.equal(otherZeros, zero), others, zero);
});

export const reduceL1 = reduction("ReduceL1", (c, dy) => c.b.mul(sign(c, c.input(0)), dy));

/** x/‖x‖, and zero at zero. */
export const reduceL2 = reduction("ReduceL2", (c, dy, y) => {
  const { b } = c;
  const x = c.input(0);
  const norm = y();
  const isZero = b.equal(norm, c.scalar(0, x));
  return b.mul(x, b.div(dy, b.where(isZero, c.scalar(1, x), norm)));
});

export const reduceSumSquare = reduction("ReduceSumSquare", (c, dy) =>
  c.b.mul(c.input(0), c.b.mul(dy, c.scalar(2, c.input(0)))),
);

export const reduceLogSum = reduction("ReduceLogSum", (c, dy, y) =>
  expandLike(c, c.b.mul(dy, c.b.exp(c.b.neg(y()))), c.input(0)),
);

export const reduceLogSumExp = reduction("ReduceLogSumExp", (c, dy, y) =>
  c.b.mul(c.b.exp(c.b.sub(c.input(0), y())), dy),
);
