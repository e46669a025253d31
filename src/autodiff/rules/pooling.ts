/** Pools over sliding windows, and over all positions. */
import { intOf } from "../../onnx/attributes.js";
import { DataType } from "../../onnx/proto.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { elementsPer, expandLike, reshapeLike, zerosLike } from "../shapes.js";
import { canResize, firstOfTiles, repeatOverTiles } from "../tiles.js";
import {
  cropToTiles,
  elementOfWindows,
  fitTiles,
  isStatic,
  isTiling,
  kernelOffsets,
  kernelShape,
  padForWindows,
  type StaticWindow,
  transposedConvolution,
  windowOf,
} from "../windows.js";
import { sign, unary } from "./elementary.js";

/** Below every number of the type: finite, since not every device pads with infinities. */
const LOWEST: Partial<Record<DataType, number>> = {
  [DataType.FLOAT]: -3.4028234663852886e38,
  [DataType.DOUBLE]: -Number.MAX_VALUE,
};

/** To the first maximum of every window in row-major order, as PyTorch. The Indices output fails on WebGPU. */
export const maxPool: GradientRule = {
  opType: "MaxPool",
  notes: "known spatial sizes",
  gradient: (c) => ({ 0: () => maxPoolGradient(c) }),
};

function maxPoolGradient(c: GradientContext): string {
  const { b } = c;
  const [x, y] = [c.input(0), c.output()];
  const window = staticWindow(c);
  const zero = c.scalar(0, x);
  const lowest = LOWEST[c.elemType(x)];
  if (lowest === undefined) throw c.error("has elements of a type other than float and double");
  const padded = padForWindows(c, x, window, { value: c.scalar(lowest, x) });
  if (isTiling(window) && canResize(c, x, window)) {
    const isMaximum = b.equal(cropToTiles(c, padded, window), repeatOverTiles(c, y, window));
    const isFirst = firstOfTiles(c, isMaximum, window, channelsOf(c));
    return fitTiles(c, b.where(isFirst, repeatOverTiles(c, c.cotangent(), window), zero), window);
  }
  const offsets = kernelOffsets(window.kernel);
  // What no earlier position of the window has claimed.
  let remaining = c.cotangent();
  const parts = offsets.map((offset, i) => {
    const isMaximum = b.equal(elementOfWindows(c, padded, window, offset), y);
    const part = b.where(isMaximum, remaining, zero);
    if (i < offsets.length - 1) remaining = b.where(isMaximum, zero, remaining);
    return part;
  });
  return foldWindows(c, parts, window);
}

/** Adds up `parts`, one of shape [N, C, ...out] for each kernel position, at their places in [N, C, ...in]. */
function foldWindows(c: GradientContext, parts: readonly string[], window: StaticWindow): string {
  const { b } = c;
  const { kernel, out } = window;
  const channels = channelsOf(c);
  if (parts.length === 1 && isTiling(window)) return fitTiles(c, parts[0] as string, window);
  const stacked = b.concat(
    parts.map((part) => b.unsqueeze(part, [2])),
    2,
  );
  if (isTiling(window)) {
    const apart = b.reshape(stacked, [-1, channels, ...kernel, ...out]);
    const rank = kernel.length;
    const perm = [0, 1, ...kernel.flatMap((_, axis) => [2 + rank + axis, 2 + axis])];
    const sizes = kernel.map((size, axis) => size * (out[axis] as number));
    return fitTiles(c, b.reshape(b.transpose(apart, perm), [-1, channels, ...sizes]), window);
  }
  // Every position is a channel of its own, which one weight puts in its place.
  const images = b.reshape(stacked, [-1, parts.length, ...out]);
  const places = Array.from({ length: parts.length ** 2 }, (_, i) => (i % (parts.length + 1) === 0 ? 1 : 0));
  const weights = b.constant(c.elemType(c.input(0)), places, [parts.length, 1, ...kernel]);
  return reshapeLike(c, transposedConvolution(c, images, weights, window, 1, c.input(0)), c.input(0));
}

export const averagePool: GradientRule = {
  opType: "AveragePool",
  notes: "known spatial sizes",
  gradient: (c) => ({
    0: () => {
      const window = staticWindow(c);
      const shares = c.b.mul(c.cotangent(), reciprocalCounts(c, window));
      return spreadOverWindows(c, shares, window);
    },
  }),
};

/** Adds every element of [N, C, ...out] to all positions of its window in [N, C, ...in]. */
function spreadOverWindows(c: GradientContext, value: string, window: StaticWindow): string {
  const { b } = c;
  const { kernel, out } = window;
  if (isTiling(window)) return fitTiles(c, repeatOverTiles(c, value, window), window);
  const images = b.reshape(value, [-1, 1, ...out]);
  const ones = b.constant(c.elemType(c.input(0)), Array(kernel.reduce((n, size) => n * size, 1)).fill(1), [
    1,
    1,
    ...kernel,
  ]);
  return reshapeLike(c, transposedConvolution(c, images, ones, window, 1, c.input(0)), c.input(0));
}

/** One over the number of positions that each window averages, of shape [1, 1, ...out]. */
function reciprocalCounts(c: GradientContext, window: StaticWindow): string {
  const includesPadding = intOf(c.node, "count_include_pad", 0) === 1;
  const perAxis = window.kernel.map((size, axis) => {
    const [begin, input] = [window.begin[axis] as number, window.in[axis] as number];
    const [stride, dilation] = [window.strides[axis] as number, window.dilations[axis] as number];
    // Positions that a window has beyond the padding (ceil_mode) never count.
    const low = includesPadding ? -begin : 0;
    const high = includesPadding ? input + (window.end[axis] as number) : input;
    return Array.from({ length: window.out[axis] as number }, (_, o) => {
      const positions = Array.from({ length: size }, (_, i) => o * stride + i * dilation - begin);
      return positions.filter((p) => p >= low && p < high).length;
    });
  });
  const counts = perAxis.reduce<number[]>((all, axis) => all.flatMap((n) => axis.map((m) => n * m)), [1]);
  const type = c.elemType(c.input(0));
  if (counts.every((count) => count === counts[0])) return c.b.constant(type, 1 / (counts[0] as number));
  return c.b.constant(
    type,
    counts.map((count) => 1 / count),
    [1, 1, ...window.out],
  );
}

/** y = (Σ|x|ᵖ)^(1/p) over every window: dx = sign(x)·|x|^(p−1) · Σ over its windows of dy·y^(1−p). */
export const lpPool: GradientRule = {
  opType: "LpPool",
  notes: "known spatial sizes",
  gradient: (c) => ({
    0: () => {
      const { b } = c;
      const [x, y] = [c.input(0), c.output()];
      const p = intOf(c.node, "p", 2);
      const zero = c.scalar(0, x);
      if (p === 1) return b.mul(spreadOverWindows(c, c.cotangent(), staticWindow(c)), sign(c, x));
      // A window of zeros has no slope: y^(1−p) is infinite there.
      const scale = p === 2 ? b.div(c.cotangent(), y) : b.div(c.cotangent(), b.pow(y, c.scalar(p - 1, x)));
      const spread = spreadOverWindows(c, b.where(b.equal(y, zero), zero, scale), staticWindow(c));
      if (p === 2) return b.mul(spread, x);
      return b.mul(b.mul(spread, sign(c, x)), b.pow(b.abs(x), c.scalar(p - 1, x)));
    },
  }),
};

export const globalAveragePool = unary("GlobalAveragePool", (c, dy) => {
  const x = c.input(0);
  const spatial = [...Array(c.rank(x)).keys()].slice(2);
  return expandLike(c, c.b.div(dy, elementsPer(c, x, c.output(), spatial)), x);
});

/** To the first maximum of every channel. */
export const globalMaxPool = unary("GlobalMaxPool", (c, dy) => {
  const { b } = c;
  const x = c.input(0);
  const flat = (value: string) => b.op("Reshape", [value, b.i64([0, 0, -1])]);
  const rows = flat(x);
  const first = b.op("ArgMax", [rows], { axis: 2 });
  const zeros = flat(zerosLike(c, x));
  return reshapeLike(c, b.op("ScatterElements", [zeros, first, flat(dy)], { axis: 2 }), x);
});

function channelsOf(c: GradientContext): number {
  const channels = c.shape(c.input(0))[1];
  if (typeof channels !== "number") throw c.error("has a number of channels known only at run time");
  return channels;
}

function staticWindow(c: GradientContext): StaticWindow {
  const window = windowOf(c, c.input(0), c.output(), kernelShape(c));
  if (!isStatic(window)) {
    throw c.error("pools over sizes that are known only at run time; fix the model's spatial dimensions");
  }
  return window;
}
