/** The patches that a convolution sees (im2col), as rows: what makes it a dense layer over positions. */
import { intsOf, stringOf } from "../onnx/attributes.js";
import type { GraphBuilder } from "../onnx/builder.js";
import type { NodeProto } from "../onnx/proto.js";
import type { TypeMap } from "../onnx/types.js";

/**
 * Emits x [N, C, …in] as [N·positions, C·kernel], in the order of the weights [M, C, …kernel].
 * @returns undefined when the convolution pads automatically or its spatial sizes are not static.
 */
export function patchesOf(
  b: GraphBuilder,
  node: NodeProto,
  types: TypeMap,
  weight: readonly number[],
): (() => string) | undefined {
  const [x] = node.input as [string];
  const out = types.get(node.output[0] as string)?.shape?.slice(2);
  if (stringOf(node, "auto_pad", "NOTSET") !== "NOTSET" || !out?.every((dim) => typeof dim === "number"))
    return undefined;
  const sizes = out as number[];
  const kernel = weight.slice(2);
  const spatial = kernel.length;
  const ones = new Array<number>(spatial).fill(1);
  const strides = intsOf(node, "strides") ?? ones;
  const dilations = intsOf(node, "dilations") ?? ones;
  const pads = intsOf(node, "pads") ?? new Array<number>(2 * spatial).fill(0);
  const axes = ones.map((_, i) => i + 2);
  return () => {
    const isPadded = pads.some((pad) => pad !== 0);
    const zeros = [0, 0];
    const padded = isPadded
      ? b.op("Pad", [x, b.i64([...zeros, ...pads.slice(0, spatial), ...zeros, ...pads.slice(spatial)])])
      : x;
    const offsets = kernel.reduce<number[][]>(
      (all, size) => all.flatMap((offset) => Array.from({ length: size }, (_, i) => [...offset, i])),
      [[]],
    );
    const slices = offsets.map((offset) => {
      const starts = offset.map((position, i) => position * (dilations[i] as number));
      const ends = starts.map((start, i) => start + ((sizes[i] as number) - 1) * (strides[i] as number) + 1);
      return b.unsqueeze(b.slice(padded, starts, ends, axes, strides), [2]);
    });
    // [N, C, kernel, …out] → [N, …out, C, kernel]
    const stacked = b.concat(slices, 2);
    const moved = b.transpose(stacked, [0, ...axes.map((axis) => axis + 1), 1, 2]);
    return b.reshape(moved, [-1, weight.slice(1).reduce((product, dim) => product * dim, 1)]);
  };
}
