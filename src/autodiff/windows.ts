/** Sliding windows: what convolutions and pools share, and how their gradients take windows apart and put them back. */
import { intOf, intsOf, stringOf } from "../onnx/attributes.js";
import type { Dim } from "../onnx/builder.js";
import type { NodeProto } from "../onnx/proto.js";
import type { GradientContext } from "./rule.js";
import { dimension, staticShape } from "./shapes.js";

/**
 * Windows over the spatial axes of a tensor [N, C, ...in], one for each position of [N, M, ...out]. Window `o` covers
 * the positions `o·stride + i·dilation − begin` for `i` below `kernel`; positions outside are padding.
 */
export interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  /** Padding in front, and behind as the attributes say. */
  readonly begin: readonly number[];
  readonly end: readonly number[];
  readonly in: readonly Dim[];
  readonly out: readonly Dim[];
}

/** A window whose sizes are all known. */
export interface StaticWindow extends Window {
  readonly in: readonly number[];
  readonly out: readonly number[];
}

export function isStatic(window: Window): window is StaticWindow {
  return staticShape(window.in) !== undefined && staticShape(window.out) !== undefined;
}

/** Extent of a dilated kernel along an axis. */
export function extent(window: Window, axis: number): number {
  return ((window.kernel[axis] as number) - 1) * (window.dilations[axis] as number) + 1;
}

/** The windows of a Conv or pool node over `x` that make `y`; padding that `auto_pad` leaves open is worked out. */
export function windowOf(c: GradientContext, x: string, y: string, kernel: readonly number[]): Window {
  const window = windowOfNode(c.node, kernel, { in: c.shape(x).slice(2), out: c.shape(y).slice(2) });
  if (window) return window;
  const autoPad = stringOf(c.node, "auto_pad", "NOTSET");
  throw c.error(`has auto_pad ${autoPad} over sizes that are known only at run time; fix its spatial dimensions`);
}

/** The same from the spatial sizes of both sides; undefined where the padding follows from an unknown one. */
export function windowOfNode(
  node: NodeProto,
  kernel: readonly number[],
  sizes: { readonly in: readonly Dim[]; readonly out: readonly Dim[] },
): Window | undefined {
  const spatial = kernel.length;
  const ones = Array(spatial).fill(1) as number[];
  const strides = intsOf(node, "strides") ?? ones;
  const dilations = intsOf(node, "dilations") ?? ones;
  const pads = intsOf(node, "pads") ?? (Array(2 * spatial).fill(0) as number[]);
  const autoPad = stringOf(node, "auto_pad", "NOTSET");
  let begin = pads.slice(0, spatial);
  let end = pads.slice(spatial);
  if (autoPad === "VALID") begin = end = Array(spatial).fill(0);
  if (autoPad === "SAME_UPPER" || autoPad === "SAME_LOWER") {
    const totals: number[] = [];
    for (const [axis, size] of kernel.entries()) {
      const reach = (size - 1) * (dilations[axis] as number) + 1;
      const stride = strides[axis] as number;
      const input = sizes.in[axis];
      if (stride === 1) totals.push(reach - 1);
      else if (typeof input !== "number") return undefined;
      else totals.push(Math.max((Math.ceil(input / stride) - 1) * stride + reach - input, 0));
    }
    const small = totals.map((total) => Math.floor(total / 2));
    const large = totals.map((total) => Math.ceil(total / 2));
    [begin, end] = autoPad === "SAME_UPPER" ? [small, large] : [large, small];
  }
  return { kernel, strides, dilations, begin, end, ...sizes };
}

/** What is missing behind the input for the last window to fit: negative when the windows leave positions over. */
export function shortfall(window: StaticWindow): number[] {
  return window.in.map(
    (size, axis) =>
      (window.strides[axis] as number) * ((window.out[axis] as number) - 1) +
      extent(window, axis) -
      size -
      (window.begin[axis] as number),
  );
}

/** Every position within a kernel, in row-major order. */
export function kernelOffsets(kernel: readonly number[]): number[][] {
  return kernel.reduce<number[][]>(
    (offsets, size) => offsets.flatMap((offset) => Array.from({ length: size }, (_, i) => [...offset, i])),
    [[]],
  );
}

/**
 * Pads the axes of `x` that windows lie over so that every window lies inside it; `value` fills the padding. `first` is
 * the first of these axes (1 where the batch is the last axis), `rank` the number of all axes of `x`.
 */
export function padForWindows(
  c: GradientContext,
  x: string,
  window: StaticWindow,
  { value, first = 2, rank = 2 + window.kernel.length }: { value?: string; first?: number; rank?: number } = {},
): string {
  const behind = shortfall(window).map((size) => Math.max(size, 0));
  if ([...window.begin, ...behind].every((size) => size === 0)) return x;
  const [before, after] = [first, rank - first - window.kernel.length].map((axes) => Array(axes).fill(0)) as [
    number[],
    number[],
  ];
  const pads = [...before, ...window.begin, ...after, ...before, ...behind, ...after];
  return c.b.op("Pad", [x, c.b.i64(pads), ...(value ? [value] : [])]);
}

/** The element at `offset` of every window: a strided slice of the padded input, of the shape of the output. */
export function elementOfWindows(
  c: GradientContext,
  padded: string,
  window: StaticWindow,
  offset: readonly number[],
  first = 2,
): string {
  const starts = offset.map((i, axis) => i * (window.dilations[axis] as number));
  const ends = starts.map(
    (start, axis) => start + (window.strides[axis] as number) * ((window.out[axis] as number) - 1) + 1,
  );
  const axes = starts.map((_, axis) => axis + first);
  return c.b.slice(padded, starts, ends, axes, window.strides);
}

/** Whether windows tile the input side by side: then no position belongs to two. */
export function isTiling(window: Window): boolean {
  return window.kernel.every((size, axis) => size === window.strides[axis] && window.dilations[axis] === 1);
}

/** The part of `padded` (`padForWindows`) that tiles cover: positions that they leave over are cut off. */
export function cropToTiles(c: GradientContext, padded: string, window: StaticWindow): string {
  const { kernel, out } = window;
  if (shortfall(window).every((size) => size >= 0)) return padded;
  const covered = kernel.map((size, axis) => size * (out[axis] as number));
  const axes = kernel.map((_, axis) => axis + 2);
  return c.b.slice(padded, Array(kernel.length).fill(0), covered, axes);
}

/**
 * [N, C, ...out, kernel interleaved] → [N, C, ...in]: crops or pads what tiles cover to the size of the input.
 * @param tiled of the spatial sizes `out·kernel`.
 */
export function fitTiles(c: GradientContext, tiled: string, window: StaticWindow): string {
  const behind = shortfall(window);
  const { begin } = window;
  let x = tiled;
  const missing = behind.map((size) => Math.max(-size, 0));
  if (missing.some((size) => size > 0)) {
    x = c.b.op("Pad", [x, c.b.i64([0, 0, ...begin.map(() => 0), 0, 0, ...missing])]);
  }
  if (begin.every((size) => size === 0) && behind.every((size) => size <= 0)) return x;
  return c.b.slice(
    x,
    begin,
    begin.map((size, axis) => size + (window.in[axis] as number)),
    begin.map((_, axis) => axis + 2),
  );
}

/**
 * The adjoint of a convolution in its input: ConvTranspose of `dy` with `weights`, of the size of the convolution's
 * input whatever its windows left over.
 * @param x a forward value of the size wanted.
 */
export function transposedConvolution(
  c: GradientContext,
  dy: string,
  weights: string,
  window: Window,
  group: number,
  x: string,
): string {
  const { kernel, strides, dilations, begin } = window;
  const attributes = { kernel_shape: kernel, strides, dilations, group };
  if (isStatic(window)) {
    const behind = shortfall(window);
    const pads = [...begin, ...behind.map((size) => Math.max(size, 0))];
    const leftover = behind.map((size) => Math.max(-size, 0));
    const output_padding = leftover.some((size) => size > 0) ? leftover : undefined;
    return c.b.op("ConvTranspose", [dy, weights], { ...attributes, pads, output_padding });
  }
  // With stride 1 nothing is left over, and the padding is the attributes'.
  if (strides.every((stride) => stride === 1)) {
    return c.b.op("ConvTranspose", [dy, weights], { ...attributes, pads: [...begin, ...window.end] });
  }
  // Otherwise up to stride − 1 positions are, which only the run knows: append them all and cut to size.
  const { b } = c;
  const none = begin.map(() => 0);
  const full = b.op("ConvTranspose", [dy, weights], { ...attributes, pads: [...none, ...none] });
  const padded = b.op("Pad", [full, b.i64([0, 0, ...none, 0, 0, ...strides.map((stride) => stride - 1)])]);
  const ends = begin.map((size, axis) => b.add(dimension(c, x, axis + 2), b.i64([size])));
  const axes = begin.map((_, axis) => axis + 2);
  return b.op("Slice", [padded, b.i64([...begin]), b.concat(ends, 0), b.i64(axes)]);
}

/** The kernel's size: an attribute, or the trailing dimensions of the weights. */
export function kernelShape(c: GradientContext, weights?: string): number[] {
  const given = intsOf(c.node, "kernel_shape") ?? (weights ? staticShape(c.shape(weights).slice(2)) : undefined);
  if (!given) throw c.error("has a kernel whose size is known only at run time");
  return given;
}

export function groupOf(c: GradientContext): number {
  return groupOfNode(c.node);
}

export function groupOfNode(node: NodeProto): number {
  return intOf(node, "group", 1);
}
