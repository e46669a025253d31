/**
 * The gradient of a convolution's weights. No operator of ONNX computes it, and asking Conv itself, with batch and
 * channels exchanged, is two to four times slower on the CPU than laying the windows out for matrix products
 * (docs/performance.md has the times of each way by shape).
 */
import { elementCount } from "../onnx/tensor.js";
import type { GradientContext } from "./rule.js";
import { staticShape } from "./shapes.js";
import { isSmall, smallWeights } from "./small-maps.js";
import {
  cropToTiles,
  elementOfWindows,
  isStatic,
  isTiling,
  kernelOffsets,
  padForWindows,
  type StaticWindow,
  shortfall,
  type Window,
} from "./windows.js";

/** Above this many kernel positions one slice for each makes too many nodes. */
const MOST_SLICES = 49;
/** Up to this many kernel positions, and from this many channels on, a product for each position needs no columns. */
const MOST_PRODUCTS = 25;
const LEAST_CHANNELS = 32;
/** Up to this many positions of the output, slices are copied in longer runs when the batch is the last axis. */
const SMALL_OUTPUT = 64;
/** Rows up to this long are shifted by a product. */
const LONGEST_ROW = 64;
/** Up to this many positions, one product with columns of the whole map is quickest. */
const FEW_POSITIONS = 4;

export interface ConvolutionWeights {
  /** [N, C, ...in] */
  readonly x: string;
  /** [N, M, ...out]: the cotangent of the output. */
  readonly dy: string;
  /** [M, C/group, ...kernel] */
  readonly weights: string;
  readonly window: Window;
  readonly group: number;
}

/** dW[m, c, i] = Σ over n and o of dy[n, m, o] · x[n, c, o·stride + i·dilation − begin], of the shape of the weights. */
export function convolutionWeights(c: GradientContext, given: ConvolutionWeights): string {
  const { window, group } = given;
  const dims = staticShape(c.shape(given.weights));
  const positions = window.kernel.reduce((product, size) => product * size, 1);
  if (!dims || !isStatic(window)) return byConvolution(c, given);
  if (isSmall(window, group) && elementCount(window.out) <= FEW_POSITIONS) {
    return smallWeights(c.b, { elemType: c.elemType(given.weights), dims, window }, { x: given.x, dy: given.dy });
  }
  const isPoint = positions === 1 && window.strides.every((s) => s === 1) && window.begin.every((p) => p === 0);
  if (isPoint && group === 1 && shortfall(window).every((size) => size === 0)) return byPoints(c, given);
  if (isTiling(window) && window.begin.every((size) => size === 0) && shortfall(window).every((size) => size <= 0)) {
    return byColumns(c, given, window, dims, tiledColumns(c, given, window, dims));
  }
  if (positions > MOST_SLICES) return byConvolution(c, given);
  if (dims[1] === 1 && dims[0] === group) return byOffset(c, given, window);
  if (group === 1 && positions <= MOST_PRODUCTS && (dims[1] as number) >= LEAST_CHANNELS) {
    return canShift(window) ? byShifts(c, given, window, dims) : byProducts(c, given, window, dims);
  }
  return byColumns(c, given, window, dims, slicedColumns(c, given, window, dims));
}

/** A 1×1 convolution: one product of matrices for each example, summed. */
function byPoints(c: GradientContext, { x, dy, weights }: ConvolutionWeights): string {
  const { b } = c;
  const flat = (value: string) => b.op("Reshape", [value, b.i64([0, 0, -1])]);
  const products = b.matMul(flat(dy), b.transpose(flat(x), [0, 2, 1]));
  return b.reshape(b.reduceSum(products, [0], false), staticShape(c.shape(weights)) as number[]);
}

/** A depthwise convolution: an elementwise product and a sum for each kernel position. */
function byOffset(c: GradientContext, { x, dy, weights }: ConvolutionWeights, window: StaticWindow): string {
  const { b } = c;
  const padded = padForWindows(c, x, window);
  const axes = [0, ...window.kernel.map((_, axis) => axis + 2)];
  const sums = kernelOffsets(window.kernel).map((offset) =>
    b.unsqueeze(b.reduceSum(b.mul(elementOfWindows(c, padded, window, offset), dy), axes, false), [1]),
  );
  return b.reshape(b.concat(sums, 1), staticShape(c.shape(weights)) as number[]);
}

/** Whether rows are short enough for `byShifts`, and the windows are at every position of them but those at the ends. */
function canShift({ kernel, strides, in: input, out }: StaticWindow): boolean {
  const [width, positions] = [input.at(-1) as number, out.at(-1) as number];
  return (kernel.at(-1) as number) > 1 && strides.at(-1) === 1 && width <= LONGEST_ROW && 4 * width <= 5 * positions;
}

/**
 * One product for each kernel position, [M, N · rows · in] · [N · rows · in, C]. An offset along the last axis shifts the
 * cotangent, which a product with a constant does, one along the others is a slice of the input that copies whole rows:
 * of a 3×3 kernel two copies of each instead of nine.
 */
function byShifts(
  c: GradientContext,
  { x, dy }: ConvolutionWeights,
  window: StaticWindow,
  dims: readonly number[],
): string {
  const { b } = c;
  const [m, channels] = [dims[0] as number, dims[1] as number];
  const perm = [1, 0, ...window.kernel.map((_, axis) => axis + 2)];
  const last = window.kernel.length - 1;
  const [images, cotangent] = [b.transpose(x, perm), b.transpose(dy, perm)];
  const shifted = Array.from({ length: window.kernel[last] as number }, (_, i) => {
    const by = i * (window.dilations[last] as number) - (window.begin[last] as number);
    return b.reshape(shiftRows(c, cotangent, window, by), [m, -1]);
  });
  const rows = leadingAxes(window);
  const padded = padForWindows(c, images, rows, { rank: perm.length });
  const products = kernelOffsets(rows.kernel).flatMap((offset) => {
    const whole = rows.begin.every(
      (size, axis) =>
        size === (offset[axis] as number) * (rows.dilations[axis] as number) &&
        rows.in[axis] === rows.out[axis] &&
        rows.strides[axis] === 1,
    );
    const slice = b.reshape(whole ? images : elementOfWindows(c, padded, rows, offset), [channels, -1]);
    return shifted.map((part) => b.unsqueeze(b.gemm(part, slice, { transB: true }), [2]));
  });
  return b.reshape(b.concat(products, 2), dims);
}

/** Rows of `x`, its last axis, as long as the input's, moved to the right by `by`. */
function shiftRows(c: GradientContext, x: string, window: StaticWindow, by: number): string {
  const [width, positions] = [window.in.at(-1) as number, window.out.at(-1) as number];
  if (by === 0 && width === positions) return x;
  const places = Array.from({ length: positions * width }, (_, i) =>
    i % width === Math.floor(i / width) + by ? 1 : 0,
  );
  return c.b.matMul(x, c.b.constant(c.elemType(c.output()), places, [positions, width]));
}

/** A window without its last axis. */
function leadingAxes(window: StaticWindow): StaticWindow {
  const { kernel, strides, dilations, begin, end, in: input, out } = window;
  const cut = (sizes: readonly number[]) => sizes.slice(0, -1);
  return {
    ...{ kernel: cut(kernel), strides: cut(strides), dilations: cut(dilations) },
    ...{ begin: cut(begin), end: cut(end), in: cut(input), out: cut(out) },
  };
}

/** One product for each kernel position, [M, N · out] · [N · out, C], of a slice of the input: nothing is copied twice. */
function byProducts(
  c: GradientContext,
  { x, dy, weights }: ConvolutionWeights,
  window: StaticWindow,
  dims: readonly number[],
): string {
  const { b } = c;
  const [m, channels] = [dims[0] as number, dims[1] as number];
  const spatial = window.kernel.map((_, axis) => axis + 2);
  const batchLast = window.out.reduce((product, size) => product * size, 1) <= SMALL_OUTPUT;
  const perm = batchLast ? [1, ...spatial, 0] : [1, 0, ...spatial];
  const first = batchLast ? 1 : 2;
  const padded = padForWindows(c, b.transpose(x, perm), window, { first });
  const rows = b.reshape(b.transpose(dy, perm), [m, -1]);
  const products = kernelOffsets(window.kernel).map((offset) => {
    const slice = b.reshape(elementOfWindows(c, padded, window, offset, first), [channels, -1]);
    return b.unsqueeze(b.gemm(rows, slice, { transB: true }), [2]);
  });
  return b.reshape(b.concat(products, 2), c.shape(weights) as number[]);
}

/** Windows as columns, [group, positions · C/group, N · out], times the cotangent, [group, M/group, N · out]. */
function byColumns(
  c: GradientContext,
  { dy, weights, group }: ConvolutionWeights,
  window: Window,
  dims: readonly number[],
  columns: string,
): string {
  const { b } = c;
  const [m, channels] = [dims[0] as number, dims[1] as number];
  const positions = window.kernel.reduce((product, size) => product * size, 1);
  const spatial = window.kernel.map((_, axis) => axis + 2);
  const rows = b.transpose(dy, [1, 0, ...spatial]);
  if (group === 1) {
    const product = b.gemm(b.reshape(rows, [m, -1]), columns, { transB: true });
    const apart = b.transpose(b.reshape(product, [m, positions, channels]), [0, 2, 1]);
    return b.reshape(apart, c.shape(weights) as number[]);
  }
  const product = b.matMul(b.reshape(rows, [group, m / group, -1]), b.transpose(columns, [0, 2, 1]));
  const apart = b.transpose(b.reshape(product, [m, positions, channels]), [0, 2, 1]);
  return b.reshape(apart, c.shape(weights) as number[]);
}

/** One strided slice for each kernel position, taken from [C, N, ...in] so that each is laid out as rows. */
function slicedColumns(
  c: GradientContext,
  { x, group }: ConvolutionWeights,
  window: StaticWindow,
  dims: readonly number[],
): string {
  const { b } = c;
  const spatial = window.kernel.map((_, axis) => axis + 2);
  const padded = padForWindows(c, b.transpose(x, [1, 0, ...spatial]), window);
  const offsets = kernelOffsets(window.kernel);
  const slices = offsets.map((offset) => elementOfWindows(c, padded, window, offset));
  const channels = (dims[1] as number) * group;
  if (group === 1) return b.reshape(b.concat(slices, 0), [offsets.length * channels, -1]);
  const grouped = slices.map((slice) => b.reshape(slice, [group, channels / group, -1]));
  return b.concat(grouped, 1);
}

/** Windows side by side: a reshape and a transposition. Positions that the windows leave over are cut off. */
function tiledColumns(
  c: GradientContext,
  { x, group }: ConvolutionWeights,
  window: StaticWindow,
  dims: readonly number[],
): string {
  const { b } = c;
  const { kernel, out } = window;
  const cut = cropToTiles(c, x, window);
  const channels = (dims[1] as number) * group;
  const interleaved = kernel.flatMap((size, axis) => [out[axis] as number, size]);
  const tiles = b.reshape(cut, [-1, channels, ...interleaved]);
  const outAxes = kernel.map((_, axis) => 2 + 2 * axis);
  const kernelAxes = kernel.map((_, axis) => 3 + 2 * axis);
  const positions = kernel.reduce((product, size) => product * size, 1);
  if (group === 1) {
    return b.reshape(b.transpose(tiles, [...kernelAxes, 1, 0, ...outAxes]), [positions * channels, -1]);
  }
  const grouped = b.reshape(tiles, [-1, group, channels / group, ...interleaved]);
  const later = (axes: readonly number[]) => axes.map((axis) => axis + 1);
  const columns = b.transpose(grouped, [1, ...later(kernelAxes), 2, 0, ...later(outAxes)]);
  return b.reshape(columns, [group, (positions * channels) / group, -1]);
}

/**
 * Conv itself, with batch and channels exchanged, and stride and dilation: for large kernels, and for sizes known only
 * at run time. With groups, the batch takes the place of the channels of a group.
 */
function byConvolution(c: GradientContext, given: ConvolutionWeights): string {
  const { b } = c;
  const { x, dy, weights, window, group } = given;
  const spatial = window.kernel.map((_, axis) => axis + 2);
  const kernels = b.transpose(dy, [1, 0, ...spatial]);
  let images: string;
  if (group === 1) images = b.transpose(x, [1, 0, ...spatial]);
  else {
    // [N, C, ...] → [N, group, C/group, ...] → [C/group, group · N, ...]
    const channels = c.shape(weights)[1];
    if (typeof channels !== "number") throw c.error("has groups and a number of channels known only at run time");
    const sizes = b.op("Shape", [x], { start: 2 });
    const split = b.reshape(x, b.concat([b.i64([0, group, channels]), sizes], 0));
    const turned = b.transpose(split, [2, 1, 0, ...spatial.map((axis) => axis + 1)]);
    images = b.reshape(turned, b.concat([b.i64([channels, -1]), sizes], 0));
  }
  const full = b.op("Conv", [images, kernels], {
    strides: window.dilations,
    dilations: window.strides,
    pads: [...window.begin, ...(isStatic(window) ? shortfall(window).map((size) => Math.max(size, 0)) : window.end)],
    group,
  });
  // Positions that the windows left over lengthen the result.
  const cut = b.slice(
    full,
    spatial.map(() => 0),
    window.kernel,
    spatial,
  );
  return b.transpose(cut, [1, 0, ...spatial]);
}
