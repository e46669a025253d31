/**
 * The gradient of a convolution's input. ConvTranspose is its definition, but with stride 1 it is a convolution itself,
 * with its kernels turned around, and that is up to twice as fast on the CPU (docs/performance.md has the times by shape).
 */
import { elementCount } from "../onnx/tensor.js";
import type { GradientContext } from "./rule.js";
import { staticShape } from "./shapes.js";
import { isSmall, smallInput } from "./small-maps.js";
import { extent, isStatic, shortfall, transposedConvolution, type Window } from "./windows.js";

/**
 * A convolution lays out windows over the M channels of the cotangent where ConvTranspose adds up windows of C channels:
 * with many times more channels to read than to write, the latter is faster.
 */
const MOST_CHANNELS_READ = 8;
/** Kernels up to this many positions are turned by a product. */
const LONGEST_REVERSED = 49;

export interface ConvolutionInput {
  /** [N, C, ...in]: a value of the shape wanted. */
  readonly x: string;
  /** [N, M, ...out]: the cotangent of the output. */
  readonly dy: string;
  /** [M, C/group, ...kernel] */
  readonly weights: string;
  readonly window: Window;
  readonly group: number;
}

/** dx[n, c, p] = Σ over m and i of dy[n, m, p + begin − i·dilation] · W[m, c, i], of the shape of x. */
export function convolutionInput(c: GradientContext, given: ConvolutionInput): string {
  const { x, dy, weights, window, group } = given;
  const dims = staticShape(c.shape(weights));
  if (dims && isSmall(window, group)) {
    return smallInput(c.b, { elemType: c.elemType(weights), dims, window }, { dy, weights });
  }
  const pads = dims && turnedPads(window);
  if (!dims || !pads || (dims[0] as number) > MOST_CHANNELS_READ * (dims[1] as number) * group) {
    return transposedConvolution(c, dy, weights, window, group, x);
  }
  return c.b.op("Conv", [dy, turned(c, weights, dims, group)], {
    kernel_shape: window.kernel,
    dilations: window.dilations,
    pads,
    group,
  });
}

/** The padding that makes the turned convolution's output as large as x; undefined where that would be negative. */
function turnedPads(window: Window): number[] | undefined {
  if (!window.strides.every((stride) => stride === 1)) return undefined;
  const end = isStatic(window) ? shortfall(window) : window.end;
  const pads = [window.begin, end].flatMap((sizes) => sizes.map((size, axis) => extent(window, axis) - 1 - size));
  return pads.every((size) => size >= 0) ? pads : undefined;
}

/** [M, C/group, ...kernel] → [C, M/group, ...kernel], the kernels turned around. */
function turned(c: GradientContext, weights: string, dims: readonly number[], group: number): string {
  const { b } = c;
  const [m, channels, ...kernel] = dims as [number, number, ...number[]];
  const axes = kernel.map((_, axis) => axis + 2);
  const positions = elementCount(kernel);
  const flipped =
    positions === 1 ? weights : b.reshape(reversedRows(c, b.reshape(weights, [m * channels, -1]), positions), dims);
  if (group === 1) return b.transpose(flipped, [1, 0, ...axes]);
  if (channels === 1 && m === group) return flipped;
  const split = b.reshape(flipped, [group, m / group, channels, ...kernel]);
  const swapped = b.transpose(split, [0, 2, 1, ...axes.map((axis) => axis + 1)]);
  return b.reshape(swapped, [group * channels, m / group, ...kernel]);
}

/** The rows of [m, length] from the end to the start. A short product is several times as fast as a Slice with a step of −1. */
function reversedRows(c: GradientContext, rows: string, length: number): string {
  const { b } = c;
  if (length > LONGEST_REVERSED) return b.slice(rows, [-1], [-1 - length], [1], [-1]);
  const turned = Array.from({ length: length * length }, (_, i) =>
    (i % length) + Math.floor(i / length) === length - 1 ? 1 : 0,
  );
  return b.matMul(rows, b.constant(c.elemType(c.output()), turned, [length, length]));
}
