/** Conv and ConvTranspose, over any number of spatial axes. */
import { intsOf, stringOf } from "../../onnx/attributes.js";
import { convolutionInput } from "../convolution-input.js";
import { convolutionWeights } from "../convolution-weights.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { groupOf, isStatic, kernelShape, shortfall, type Window, windowOf } from "../windows.js";

export const conv: GradientRule = {
  opType: "Conv",
  notes: "auto_pad SAME_* with strides needs known spatial sizes",
  gradient: (c) => {
    const [x, weights] = [c.input(0), c.input(1)];
    const window = windowOf(c, x, c.output(), kernelShape(c, weights));
    return {
      0: () => convolutionInput(c, { x, dy: c.cotangent(), weights, window, group: groupOf(c) }),
      1: () => convolutionWeights(c, { x, dy: c.cotangent(), weights, window, group: groupOf(c) }),
      2: () => biasGradient(c),
    };
  },
};

/** The adjoint of a convolution from Y to X: what is Conv's output here is the input X. */
export const convTranspose: GradientRule = {
  opType: "ConvTranspose",
  notes: "auto_pad and output_shape need known spatial sizes",
  gradient: (c) => {
    const [x, weights] = [c.input(0), c.input(1)];
    const window = transposedWindow(c, kernelShape(c, weights));
    return {
      0: () => convolved(c, weights, window),
      1: () =>
        convolutionWeights(c, {
          x: c.cotangent(),
          dy: x,
          weights,
          window,
          group: groupOf(c),
        }),
      2: () => biasGradient(c),
    };
  },
};

/** Sums over everything but the channels. */
function biasGradient(c: GradientContext): string {
  const axes = [...Array(c.rank(c.output())).keys()].filter((axis) => axis !== 1);
  return c.b.reduceSum(c.cotangent(), axes, false);
}

function transposedWindow(c: GradientContext, kernel: readonly number[]): Window {
  const spatial = kernel.length;
  const ones = Array(spatial).fill(1) as number[];
  const zeros = Array(spatial).fill(0) as number[];
  const strides = intsOf(c.node, "strides") ?? ones;
  const dilations = intsOf(c.node, "dilations") ?? ones;
  const pads = intsOf(c.node, "pads") ?? [...zeros, ...zeros];
  const sizes = { in: c.shape(c.output()).slice(2), out: c.shape(c.input(0)).slice(2) };
  const window = { kernel, strides, dilations, begin: pads.slice(0, spatial), end: pads.slice(spatial), ...sizes };
  const autoPad = stringOf(c.node, "auto_pad", "NOTSET");
  if (autoPad === "VALID") return { ...window, begin: zeros, end: zeros };
  if (autoPad === "NOTSET" && !intsOf(c.node, "output_shape")) return window;
  // The output's size is given; the padding follows from it (ONNX's ConvTranspose, "auto_pad" and "output_shape").
  const outputPadding = intsOf(c.node, "output_padding") ?? zeros;
  const bare = { ...window, begin: zeros, end: zeros };
  if (!isStatic(bare)) throw c.error("has padding that follows from sizes known only at run time; fix its dimensions");
  const totals = shortfall(bare).map((size, axis) => Math.max(size + (outputPadding[axis] as number), 0));
  const small = totals.map((total) => Math.floor(total / 2));
  const large = totals.map((total) => Math.ceil(total / 2));
  const [begin, end] = autoPad === "SAME_UPPER" ? [small, large] : [large, small];
  return { ...window, begin, end };
}

function convolved(c: GradientContext, weights: string, window: Window): string {
  const { kernel, strides, dilations, begin, end } = window;
  const behind = isStatic(window) ? shortfall(window).map((size) => Math.max(size, 0)) : end;
  const dx = c.b.op("Conv", [c.cotangent(), weights], {
    kernel_shape: kernel,
    strides,
    dilations,
    pads: [...begin, ...behind],
    group: groupOf(c),
  });
  // Output padding of a stride or more makes windows that the forward pass has not.
  const padding = intsOf(c.node, "output_padding") ?? [];
  if (padding.every((size, axis) => size < (strides[axis] as number))) return dx;
  const { b } = c;
  const axes = kernel.map((_, axis) => axis + 2);
  const sizes = b.op("Shape", [c.input(0)], { start: 2 });
  return b.op("Slice", [dx, b.i64(axes.map(() => 0)), sizes, b.i64(axes)]);
}
