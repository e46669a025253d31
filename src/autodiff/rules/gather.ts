/** Gather, GatherElements, GatherND: the gradient adds what was picked back to where it came from. */
import { intOf } from "../../onnx/attributes.js";
import { DataType } from "../../onnx/proto.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { dimension, reshapeLike, shapeOf, staticShape, zerosLike } from "../shapes.js";

/** WebGPU computes with int32 only, and it is half as much to move; no axis is too long for it. */
function toInt32(c: GradientContext, indices: string): string {
  return c.elemType(indices) === DataType.INT32 ? indices : c.b.cast(indices, DataType.INT32);
}

export const gather: GradientRule = {
  opType: "Gather",
  gradient: (c) => ({
    0: () => {
      const { b } = c;
      const data = c.input(0);
      const axis = c.axis(intOf(c.node, "axis", 0), data);
      const rank = c.rank(data);
      const inner = c.rank(c.input(1));
      const single = c.constantNumbers(1);
      const size = c.shape(data)[axis];
      if (single?.length === 1 && inner <= 1 && typeof size === "number") {
        return fromOne(c, axis, single[0] as number, size);
      }
      const indices = toInt32(c, c.input(1));
      // dy: data[:axis] + indices + data[axis+1:]. The axes of the indices become one, so that dy has data's rank.
      const flatIndices = inner === 1 ? indices : b.reshape(indices, [-1]);
      const dy = inner === 1 ? c.cotangent() : mergeAxes(c.cotangent());
      const around = Array.from({ length: rank }, (_, i) => i).filter((i) => i !== axis);
      const wide = around.length === 0 ? flatIndices : b.unsqueeze(flatIndices, around);
      const full = b.expand(wide, b.shape(dy));
      // Not ScatterND: with repeated indices its CPU kernel of ONNX Runtime 1.30 races between threads.
      return b.op("ScatterElements", [zerosLike(c, data), full, dy], { axis, reduction: "add" });

      function mergeAxes(value: string): string {
        const shape = shapeOf(c, data);
        const parts = [
          ...(axis > 0 ? [b.slice(shape, [0], [axis], [0])] : []),
          b.i64([-1]),
          ...(axis + 1 < rank ? [b.slice(shape, [axis + 1], [rank], [0])] : []),
        ];
        return b.reshape(value, parts.length === 1 ? (parts[0] as string) : b.concat(parts, 0));
      }
    },
  }),
};

/** One constant index: the cotangent among zeros, which is copied ten times as fast as it is scattered. */
function fromOne(c: GradientContext, axis: number, index: number, size: number): string {
  const { b } = c;
  const data = c.input(0);
  const dy = c.rank(c.input(1)) === 0 ? b.unsqueeze(c.cotangent(), [axis]) : c.cotangent();
  const at = index < 0 ? index + size : index;
  const pads = (length: number) => Array.from({ length: c.rank(data) }, (_, i) => (i === axis ? length : 0));
  return size === 1 ? dy : b.op("Pad", [dy, b.i64([...pads(at), ...pads(size - at - 1)])]);
}

export const gatherElements: GradientRule = {
  opType: "GatherElements",
  gradient: (c) => ({
    0: () =>
      c.b.op("ScatterElements", [zerosLike(c, c.input(0)), c.input(1), c.cotangent()], {
        axis: intOf(c.node, "axis", 0),
        reduction: "add",
      }),
  }),
};

export const gatherND: GradientRule = {
  opType: "GatherND",
  notes: "every dimension of the data but the first must be known",
  gradient: (c) => ({ 0: () => gatherNDGradient(c) }),
};

/** The indexed axes become one, along which ScatterElements adds (not ScatterND: see above). */
function gatherNDGradient(c: GradientContext): string {
  const { b } = c;
  const data = c.input(0);
  const shape = c.shape(data);
  const known = staticShape(shape.slice(1));
  const depth = c.shape(c.input(1)).at(-1);
  const batchDims = intOf(c.node, "batch_dims", 0);
  if (!known || typeof depth !== "number") throw c.error("gathers from sizes that are known only at run time");
  const product = (sizes: readonly number[]) => sizes.reduce((total, size) => total * size, 1);
  const indexed = batchDims + depth;
  // Strides of the indexed axes within their common axis; the first dimension enters none.
  const stride = (axis: number) => product(known.slice(axis, indexed - 1));
  const axes = Array.from({ length: depth }, (_, i) => batchDims + i);
  const sizes = b.concat(
    axes.map((axis) => dimension(c, data, axis)),
    0,
  );
  const raw = toInt32(c, c.input(1));
  const positive = b.where(b.less(raw, b.i32(0)), b.add(raw, b.cast(sizes, DataType.INT32)), raw);
  let places = b.reduceSum(b.mul(positive, b.i32(axes.map(stride))), [-1], false);
  if (batchDims > 0) {
    const batches =
      batchDims === 1
        ? dimension(c, data, 0)
        : b.mul(dimension(c, data, 0), b.i64([product(known.slice(0, batchDims - 1))]));
    const rows = b.op("Range", [b.i64(0), b.squeeze(batches, [0]), b.i64(1)]);
    const offsets = b.mul(b.unsqueeze(b.cast(rows, DataType.INT32), [1]), b.i32(stride(batchDims - 1)));
    places = b.add(b.reshape(places, b.concat([batches, b.i64([-1])], 0)), offsets);
  }
  const rest = product(known.slice(indexed - 1));
  const zeros = b.reshape(zerosLike(c, data), [-1, rest]);
  const dy = b.reshape(c.cotangent(), [-1, rest]);
  const full = b.expand(b.reshape(places, [-1, 1]), b.shape(dy));
  return reshapeLike(c, b.op("ScatterElements", [zeros, full, dy], { axis: 0, reduction: "add" }), data);
}
