/**
 * Resize in every mode: along each axis the output is a matrix times the input, with the weights that ONNX's
 * specification gives; the gradient is its transpose.
 */
import { floatOf, intOf, intsOf, stringOf } from "../../onnx/attributes.js";
import type { GradientContext, GradientRule } from "../rule.js";

export const resize: GradientRule = {
  opType: "Resize",
  notes: "no antialias, no tf_crop_and_resize; resized axes of known size",
  gradient: (c) => ({ 0: () => resizeGradient(c) }),
};

function resizeGradient(c: GradientContext): string {
  const [x, y] = [c.input(0), c.output()];
  if (intOf(c.node, "antialias", 0) === 1) throw c.error("resizes with antialias, which has no gradient");
  const rank = c.rank(x);
  const axes = (intsOf(c.node, "axes") ?? [...Array(rank).keys()]).map((axis) => c.axis(axis, x));
  const scales = c.hasInput(2) ? c.constantNumbers(2) : undefined;
  let dy = c.cotangent();
  for (const [i, axis] of axes.entries()) {
    const [before, after] = [c.shape(x)[axis], c.shape(y)[axis]];
    const isUnchanged = scales?.length ? scales[i] === 1 : before === after && before !== null;
    if (isUnchanged) continue;
    if (typeof before !== "number" || typeof after !== "number") {
      throw c.error(`resizes axis ${axis}, whose size is known only at run time; fix the model's spatial dimensions`);
    }
    dy = alongAxis(
      c,
      dy,
      axis,
      before,
      resizeWeights(c, before, after, scales?.length ? (scales[i] as number) : after / before),
    );
  }
  return dy;
}

/** Multiplies [..., after, ...] by the transpose of `weights`, [after][before], along `axis`. */
function alongAxis(c: GradientContext, dy: string, axis: number, before: number, weights: readonly number[][]): string {
  const { b } = c;
  const type = c.elemType(c.input(0));
  const rank = c.rank(c.input(0));
  const rows = b.constant(type, weights.flat(), [weights.length, before]);
  if (axis === rank - 1) return b.matMul(dy, rows);
  if (axis === rank - 2) return b.matMul(b.transpose(rows, [1, 0]), dy);
  const last = [...Array(rank).keys()].filter((other) => other !== axis);
  const turned = b.matMul(b.transpose(dy, [...last, axis]), rows);
  const order = [...last, axis];
  return b.transpose(
    turned,
    order.map((_, position) => order.indexOf(position)),
  );
}

/** Which inputs make each output along one axis, and with what weight. */
function resizeWeights(c: GradientContext, before: number, after: number, scale: number): number[][] {
  const mode = stringOf(c.node, "mode", "nearest");
  return Array.from({ length: after }, (_, position) => {
    const row = Array(before).fill(0) as number[];
    const at = sourceCoordinate(c, position, before, after, scale);
    const clamp = (index: number) => Math.min(Math.max(index, 0), before - 1);
    if (mode === "nearest") row[clamp(nearest(c, at))] = 1;
    else if (mode === "linear") {
      const inside = Math.min(Math.max(at, 0), before - 1);
      const low = Math.floor(inside);
      const fraction = inside - low;
      row[low] = 1 - fraction;
      if (fraction > 0) row[low + 1] = fraction;
    } else if (mode === "cubic") {
      for (const [index, weight] of cubic(c, at, before)) row[clamp(index)] = (row[clamp(index)] as number) + weight;
    } else throw c.error(`has the unknown mode '${mode}'`);
    return row;
  });
}

/**
 * Where output `position` lies in the input (Resize, "coordinate_transformation_mode"), in float32 step by step as the
 * runtime computes it: `nearest` turns on its last bit.
 */
function sourceCoordinate(c: GradientContext, position: number, before: number, after: number, scale: number): number {
  const f = Math.fround;
  const halfPixel = () => f(f((position + 0.5) / f(scale)) - 0.5);
  const transformation = stringOf(c.node, "coordinate_transformation_mode", "half_pixel");
  switch (transformation) {
    case "half_pixel":
      return halfPixel();
    case "half_pixel_symmetric": {
      const adjustment = f(after / f(f(scale) * before));
      const offset = f((before / 2) * f(1 - adjustment));
      return f(f(offset + f((position + 0.5) / f(scale))) - 0.5);
    }
    case "pytorch_half_pixel":
      return after > 1 ? halfPixel() : 0;
    case "align_corners":
      return after > 1 ? f((position * (before - 1)) / (after - 1)) : 0;
    case "asymmetric":
      return f(position / f(scale));
    default:
      throw c.error(`has the coordinate transformation '${transformation}', which has no gradient`);
  }
}

function nearest(c: GradientContext, x: number): number {
  switch (stringOf(c.node, "nearest_mode", "round_prefer_floor")) {
    case "floor":
      return Math.floor(x);
    case "ceil":
      return Math.ceil(x);
    case "round_prefer_ceil":
      return Math.floor(x + 0.5);
    default:
      return Math.ceil(x - 0.5);
  }
}

/** Keys' cubic convolution: four neighbours and their weights, those outside repeating the edge or left out. */
function cubic(c: GradientContext, at: number, before: number): [number, number][] {
  const a = floatOf(c.node, "cubic_coeff_a", -0.75);
  const low = Math.floor(at);
  const t = at - low;
  const near = (d: number) => ((a + 2) * d - (a + 3)) * d * d + 1;
  const far = (d: number) => ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  const weights: [number, number][] = [
    [low - 1, far(1 + t)],
    [low, near(t)],
    [low + 1, near(1 - t)],
    [low + 2, far(2 - t)],
  ];
  if (intOf(c.node, "exclude_outside", 0) === 0) return weights;
  const inside = weights.filter(([index]) => index >= 0 && index < before);
  const total = inside.reduce((sum, [, weight]) => sum + weight, 0);
  return inside.map(([index, weight]) => [index, weight / total]);
}
