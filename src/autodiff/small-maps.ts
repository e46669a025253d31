/**
 * Convolutions over maps of few positions as one product of matrices. There a kernel covers most of the map, and an
 * example is too little work for a product of its own, which is how ONNX Runtime's Conv goes about it: over the whole
 * batch the same arithmetic is up to seven times faster (docs/performance.md). Windows are laid out as columns, and
 * columns added up again, by products with a constant of ones and zeros, which cost next to nothing at this size.
 */
import type { GraphBuilder } from "../onnx/builder.js";
import type { DataType } from "../onnx/proto.js";
import { elementCount } from "../onnx/tensor.js";
import { isStatic, kernelOffsets, type StaticWindow, type Window } from "./windows.js";

/** Up to this many positions, of the input and of the output, columns cost less than they save. */
const MOST_POSITIONS = 16;
/** Kernels of more positions would make large constants. */
const MOST_KERNEL_POSITIONS = 49;

export interface SmallConvolution {
  readonly elemType: DataType;
  /** Of the weights: [M, C, ...kernel]. */
  readonly dims: readonly number[];
  readonly window: StaticWindow;
}

/** Whether the maps on both sides of a convolution are small. */
export function isSmall(window: Window, group: number): window is StaticWindow {
  if (group !== 1 || !isStatic(window) || elementCount(window.kernel) > MOST_KERNEL_POSITIONS) return false;
  return [window.in, window.out].every((sizes) => elementCount(sizes) > 0 && elementCount(sizes) <= MOST_POSITIONS);
}

/** y = x ∗ W + bias, [N, M, ...out], of x [N, C, ...in]; the last node's output is `name` when it is given. */
export function smallConvolution(
  b: GraphBuilder,
  { elemType, dims, window }: SmallConvolution,
  { x, weights, bias, name }: { x: string; weights: string; bias?: string | undefined; name: string },
): string {
  const [m, channels] = dims as [number, number];
  const columns = windowColumns(b, x, { elemType, dims, window });
  const flat = b.reshape(weights, [m, channels * elementCount(window.kernel)]);
  const rows = b.gemm(columns, flat, { transB: true, ...(bias && { c: bias }) });
  const apart = b.transpose(b.reshape(rows, [-1, elementCount(window.out), m]), [0, 2, 1]);
  return b.node("Reshape", [apart, b.i64([-1, m, ...window.out])], { outputs: [name] })[0] as string;
}

/** The gradient of the input, [N, C, ...in], from that of the output, [N, M, ...out]. */
export function smallInput(
  b: GraphBuilder,
  { elemType, dims, window }: SmallConvolution,
  { dy, weights }: { dy: string; weights: string },
): string {
  const [m, channels] = dims as [number, number];
  const [positions, kernel] = [elementCount(window.out), elementCount(window.kernel)];
  const rows = b.reshape(b.transpose(b.reshape(dy, [-1, m, positions]), [0, 2, 1]), [-1, m]);
  const columns = b.gemm(rows, b.reshape(weights, [m, channels * kernel]));
  const [taken, inputs] = [selection(window), elementCount(window.in)];
  const places = b.constant(elemType, transposed(taken, positions, inputs, kernel), [1, positions, kernel, inputs]);
  const parts = b.matMul(b.reshape(columns, [-1, positions, channels, kernel]), places);
  return b.reshape(b.reduceSum(parts, [1], false), [-1, channels, ...window.in]);
}

/** The gradient of the weights, of their shape, from the input and the gradient of the output. */
export function smallWeights(b: GraphBuilder, given: SmallConvolution, { x, dy }: { x: string; dy: string }): string {
  const { dims, window } = given;
  const rows = b.transpose(b.reshape(dy, [-1, dims[0] as number, elementCount(window.out)]), [1, 0, 2]);
  const product = b.gemm(b.reshape(rows, [dims[0] as number, -1]), windowColumns(b, x, given));
  return b.reshape(product, dims);
}

/** [N, C, ...in] → [N · out, C · kernel]. */
function windowColumns(b: GraphBuilder, x: string, { elemType, dims, window }: SmallConvolution): string {
  const channels = dims[1] as number;
  const [inputs, positions, kernel] = [elementCount(window.in), elementCount(window.out), elementCount(window.kernel)];
  const places = b.constant(elemType, selection(window), [1, positions, inputs, kernel]);
  const columns = b.matMul(b.reshape(x, [-1, 1, channels, inputs]), places);
  return b.reshape(columns, [-1, channels * kernel]);
}

/** [out, in, kernel]: one where an element of an output's window is the element of the input, zero elsewhere. */
function selection(window: StaticWindow): number[] {
  const { kernel, strides, dilations, begin } = window;
  const [inputs, offsets] = [elementCount(window.in), kernelOffsets(kernel)];
  const outputs = kernelOffsets(window.out);
  const places = Array<number>(outputs.length * inputs * offsets.length).fill(0);
  for (const [o, output] of outputs.entries()) {
    for (const [k, offset] of offsets.entries()) {
      const at = offset.map(
        (i, axis) =>
          (output[axis] as number) * (strides[axis] as number) +
          i * (dilations[axis] as number) -
          (begin[axis] as number),
      );
      if (at.some((position, axis) => position < 0 || position >= (window.in[axis] as number))) continue;
      const input = at.reduce((index, position, axis) => index * (window.in[axis] as number) + position, 0);
      places[(o * inputs + input) * offsets.length + k] = 1;
    }
  }
  return places;
}

/** [a, rows, columns] → [a, columns, rows]. */
function transposed(values: readonly number[], a: number, rows: number, columns: number): number[] {
  const result = Array<number>(values.length);
  for (let i = 0; i < a; i++) {
    for (let r = 0; r < rows; r++) {
      for (let k = 0; k < columns; k++) {
        result[(i * columns + k) * rows + r] = values[(i * rows + r) * columns + k] as number;
      }
    }
  }
  return result;
}
