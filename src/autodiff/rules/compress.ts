/** Compress: the rows (or elements, without an axis) where a condition holds. */
import { intOf } from "../../onnx/attributes.js";
import { reshapeLike, zerosLike } from "../shapes.js";
import { unary } from "./elementary.js";

/** The cotangent's rows back in their places, and zeros between. */
export const compress = unary("Compress", (c, dy) => {
  const { b } = c;
  const x = c.input(0);
  const given = intOf(c.node, "axis");
  const axis = given === undefined ? 0 : c.axis(given, x);
  const kept = b.squeeze(b.op("NonZero", [c.input(1)]), [0]);
  const around = given === undefined ? [] : [...Array(c.rank(x)).keys()].filter((other) => other !== axis);
  const rows = around.length > 0 ? b.unsqueeze(kept, around) : kept;
  const places = b.expand(rows, b.shape(dy));
  const zeros = given === undefined ? b.reshape(zerosLike(c, x), [-1]) : zerosLike(c, x);
  const scattered = b.op("ScatterElements", [zeros, places, dy], { axis });
  return given === undefined ? reshapeLike(c, scattered, x) : scattered;
});
