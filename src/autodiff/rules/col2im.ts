/** Col2Im: columns of windows added up into an image (torch.nn.Fold). */
import { intsOf } from "../../onnx/attributes.js";
import type { GradientContext } from "../rule.js";
import { elementOfWindows, kernelOffsets, padForWindows, type StaticWindow } from "../windows.js";
import { unary } from "./elementary.js";

/** The windows of the cotangent, as columns: [N, C, ...image] → [N, C·kernel, L]. */
export const col2Im = unary("Col2Im", (c, dy) => {
  const { b } = c;
  const window = windowOfColumns(c);
  const channels = c.shape(c.output())[1];
  if (typeof channels !== "number") throw c.error("has a number of channels known only at run time");
  const padded = padForWindows(c, dy, window);
  const elements = kernelOffsets(window.kernel).map((offset) => {
    const element = elementOfWindows(c, padded, window, offset);
    return b.reshape(element, [-1, channels, 1, product(window.out)]);
  });
  const columns = b.concat(elements, 2);
  return b.reshape(columns, [-1, channels * elements.length, product(window.out)]);
});

function windowOfColumns(c: GradientContext): StaticWindow {
  const image = c.constantNumbers(1);
  const kernel = c.constantNumbers(2);
  if (!image || !kernel) throw c.error("has an image or block size known only at run time");
  const ones = image.map(() => 1);
  const strides = intsOf(c.node, "strides") ?? ones;
  const dilations = intsOf(c.node, "dilations") ?? ones;
  const pads = intsOf(c.node, "pads") ?? [...ones, ...ones].map(() => 0);
  const [begin, end] = [pads.slice(0, image.length), pads.slice(image.length)];
  const out = image.map((size, axis) => {
    const reach = ((kernel[axis] as number) - 1) * (dilations[axis] as number) + 1;
    const padded = size + (begin[axis] as number) + (end[axis] as number);
    return Math.floor((padded - reach) / (strides[axis] as number)) + 1;
  });
  return { kernel, strides, dilations, begin, end, in: image, out };
}

const product = (sizes: readonly number[]) => sizes.reduce((total, size) => total * size, 1);
