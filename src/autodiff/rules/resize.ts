/**
 * Resize in every mode: along each axis the output is a matrix times the input, and the gradient its transpose. The
 * matrix is what Resize itself makes of the unit vectors: the runtime's own rounding included, and folded into a
 * constant when the session loads. Where every input is repeated a whole number of times, its copies are summed by a
 * pool instead: 2 to 7 times as fast, and of any size.
 */
import { intsOf, stringOf } from "../../onnx/attributes.js";
import { DataType } from "../../onnx/proto.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { identityMatrix } from "../shapes.js";

export const resize: GradientRule = {
  opType: "Resize",
  settings: [1, 2],
  notes:
    "no tf_crop_and_resize, no keep_aspect_ratio_policy; resized axes of known size but for nearest by whole scales",
  gradient: (c) => ({ 0: () => resizeGradient(c) }),
};

function resizeGradient(c: GradientContext): string {
  const [x, y] = [c.input(0), c.output()];
  refuse(c, "coordinate_transformation_mode", "half_pixel", "tf_crop_and_resize");
  refuse(c, "keep_aspect_ratio_policy", "stretch", "not_larger", "not_smaller");
  const rank = c.rank(x);
  const axes = (intsOf(c.node, "axes") ?? [...Array(rank).keys()]).map((axis) => c.axis(axis, x));
  const constant = c.constantNumbers(2);
  if (c.hasInput(2) && !constant && !c.hasInput(3)) throw c.error("has scales that are known only at run time");
  const scales = constant?.length ? constant : undefined;
  const repeats = repeatsOf(c, axes, scales);
  if (repeats) return sumOfCopies(c, repeats);
  let dy = c.cotangent();
  for (const [i, axis] of axes.entries()) {
    const [before, after] = [c.shape(x)[axis], c.shape(y)[axis]];
    const scale = scales?.[i];
    if (scale !== undefined ? scale === 1 : before === after && before !== null) continue;
    if (typeof before !== "number" || typeof after !== "number") {
      throw c.error(`resizes axis ${axis}, whose size is known only at run time; fix the model's spatial dimensions`);
    }
    if (before === 1 && after === 1) continue;
    // ONNX Runtime copies a tensor whose size stays, at any scale: whether it is this one hangs on the other axes.
    if (before === after) throw c.error(`resizes axis ${axis} by ${scale} to its own size, which has no gradient`);
    dy = alongAxis(c, dy, axis, unitVectorsResized(c, before, after, scale));
  }
  return dy;
}

/** How many times in a row each input stands along every axis, when it is a whole number everywhere and pools can sum it. */
function repeatsOf(
  c: GradientContext,
  axes: readonly number[],
  scales: readonly number[] | undefined,
): number[] | undefined {
  const [x, y] = [c.input(0), c.output()];
  const rank = c.rank(x);
  // The CPU has no AveragePool of float64.
  if (stringOf(c.node, "mode", "nearest") !== "nearest" || c.elemType(x) === DataType.DOUBLE || rank < 3 || rank > 5) {
    return undefined;
  }
  const repeats = c.shape(x).map((before, axis) => {
    const i = axes.indexOf(axis);
    if (i < 0) return 1;
    if (scales) return scales[i] as number;
    const after = c.shape(y)[axis];
    if (before === after && before !== null) return 1;
    return typeof before === "number" && typeof after === "number" ? after / before : 0;
  });
  const isWhole = repeats.every((count) => count >= 1 && Number.isInteger(count));
  const mapping = stringOf(c.node, "coordinate_transformation_mode", "half_pixel");
  const rounding = stringOf(c.node, "nearest_mode", "round_prefer_floor");
  const largest = Math.max(...repeats);
  // Copy i of k lies i/k past its source, or (i + 1/2)/k − 1/2 from it, which is less than a half.
  const isAsymmetric = mapping === "asymmetric";
  const staysInBlock = isAsymmetric
    ? rounding === "floor" || (rounding === "round_prefer_floor" && largest <= 2)
    : mapping.includes("half_pixel") && rounding.startsWith("round");
  return isWhole && staysInBlock && repeats[0] === 1 && repeats[1] === 1 ? repeats : undefined;
}

function sumOfCopies(c: GradientContext, repeats: readonly number[]): string {
  const count = repeats.reduce((product, repeat) => product * repeat, 1);
  if (count === 1) return c.cotangent();
  const kernel = repeats.slice(2);
  const mean = c.b.op("AveragePool", [c.cotangent()], { kernel_shape: kernel, strides: kernel });
  return c.b.mul(mean, c.scalar(count, c.input(0)));
}

function refuse(c: GradientContext, attribute: string, fallback: string, ...values: string[]): void {
  const value = stringOf(c.node, attribute, fallback);
  if (values.includes(value)) throw c.error(`has ${attribute} '${value}', which has no gradient`);
}

/** [before, after]: row `i` is what becomes of a one at position `i`. */
function unitVectorsResized(c: GradientContext, before: number, after: number, scale: number | undefined): string {
  const { b } = c;
  const type = c.elemType(c.input(0));
  const units = b.reshape(identityMatrix(c, before, type), [1, 1, before, before]);
  const size = scale === undefined ? ["", b.i64([1, 1, before, after])] : [b.f32([1, 1, 1, scale])];
  const [resized] = b.node("Resize", [units, "", ...size], {});
  const kept = c.node.attribute.filter(({ name }) => name !== "axes");
  b.graph.node.at(-1)?.attribute.push(...kept);
  return b.reshape(resized as string, [before, after]);
}

/** Multiplies [..., after, ...] by the transpose of `matrix`, [before, after], along `axis`. */
function alongAxis(c: GradientContext, dy: string, axis: number, matrix: string): string {
  const { b } = c;
  const rank = c.rank(c.input(0));
  if (axis === rank - 2) return b.matMul(matrix, dy);
  const columns = b.transpose(matrix, [1, 0]);
  if (axis === rank - 1) return b.matMul(dy, columns);
  const order = [...[...Array(rank).keys()].filter((other) => other !== axis), axis];
  const turned = b.matMul(b.transpose(dy, order), columns);
  return b.transpose(
    turned,
    order.map((_, position) => order.indexOf(position)),
  );
}
