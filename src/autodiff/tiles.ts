/** Windows that tile the input side by side: values for each window, brought to the positions that it covers. */
import { DataType } from "../onnx/proto.js";
import type { GradientContext } from "./rule.js";
import type { StaticWindow } from "./windows.js";

/** About this many columns make a product of matrices efficient without arithmetic of weight. */
const MOST_COLUMNS = 128;

/** Whether `repeatOverTiles` is a Resize, which copies several times as fast as Expand. Its kernels are float32's alone. */
export function canResize(c: GradientContext, x: string, window: StaticWindow): boolean {
  return c.elemType(x) === DataType.FLOAT && window.kernel.length <= 2;
}

/** [N, C, ...out] → [N, C, ...out · kernel]: every value at all positions of its window. */
export function repeatOverTiles(c: GradientContext, value: string, window: StaticWindow): string {
  const { b } = c;
  const { kernel, out } = window;
  const sizes = kernel.map((size, axis) => size * (out[axis] as number));
  const apart = (dims: readonly number[]) => b.op("Reshape", [value, b.i64([0, 0, ...dims])]);
  if (canResize(c, c.input(0), window)) {
    const flat = kernel.length === 1;
    const scales = b.f32([1, 1, ...(flat ? [1] : []), ...kernel]);
    const repeated = b.op("Resize", [flat ? apart([1, ...out]) : value, "", scales], {
      mode: "nearest",
      nearest_mode: "floor",
      coordinate_transformation_mode: "asymmetric",
    });
    return flat ? b.op("Reshape", [repeated, b.i64([0, 0, ...sizes])]) : repeated;
  }
  const filled = b.expand(apart(out.flatMap((size) => [size, 1])), [
    1,
    1,
    ...kernel.flatMap((size, axis) => [out[axis] as number, size]),
  ]);
  return b.op("Reshape", [filled, b.i64([0, 0, ...sizes])]);
}

/**
 * Of the true elements of a mask [N, C, ...out · kernel] the first of every window, in row-major order. Over one or two
 * spatial axes. Less those before it in its window, an element is positive only where it is true and the first: a product
 * with a constant, over the rows of windows or parts of them.
 */
export function firstOfTiles(c: GradientContext, mask: string, window: StaticWindow, channels: number): string {
  const { b } = c;
  const type = c.elemType(c.input(0));
  const [kernel, out] = [window.kernel, window.out].map((sizes) => (sizes.length === 1 ? [1, ...sizes] : sizes));
  const [height, width] = kernel as [number, number];
  const [rows, across] = out as [number, number];
  const parts = partsOf(across, MOST_COLUMNS / (height * width));
  const columns = (across / parts) * width;
  const lead = parts === 1 ? [-1] : [-1, height, parts];
  let flat = b.reshape(b.cast(mask, type), parts === 1 ? [-1, height * columns] : [...lead, columns]);
  if (parts > 1) flat = b.reshape(b.transpose(flat, [0, 2, 1, 3]), [-1, height * columns]);
  let first = b.matMul(
    flat,
    b.constant(type, lessThoseBefore(height, width, columns), [height * columns, height * columns]),
  );
  if (parts > 1) first = b.transpose(b.reshape(first, [-1, parts, height, columns]), [0, 2, 1, 3]);
  const sizes = window.kernel.length === 1 ? [across * width] : [rows * height, across * width];
  return b.greater(b.reshape(first, [-1, channels, ...sizes]), b.constant(type, 0));
}

/** The fewest equal parts of `length` of at most `most` each. */
function partsOf(length: number, most: number): number {
  for (let parts = 1; parts < length; parts++) if (length % parts === 0 && length / parts <= most) return parts;
  return length;
}

/** Rows of windows, [height, columns] flat: one on the diagonal, minus one from every earlier position of the same window. */
function lessThoseBefore(height: number, width: number, columns: number): number[] {
  const size = height * columns;
  const weights = Array<number>(size * size).fill(0);
  for (let column = 0; column < columns; column++) {
    const first = column - (column % width);
    for (let row = 0; row < height; row++) {
      const to = row * columns + column;
      weights[to * size + to] = 1;
      for (let earlier = 0; earlier < row * width + (column % width); earlier++) {
        const from = Math.floor(earlier / width) * columns + first + (earlier % width);
        weights[from * size + to] = -1;
      }
    }
  }
  return weights;
}
