/** Gather: the gradient adds each picked slice back to where it came from. */
import { intOf } from "../../onnx/attributes.js";
import { DataType } from "../../onnx/proto.js";
import type { GradientRule } from "../rule.js";
import { shapeOf, zerosLike } from "../shapes.js";

export const gather: GradientRule = {
  opType: "Gather",
  gradient: (c) => ({
    0: () => {
      const { b } = c;
      const [data, indices] = [c.input(0), c.input(1)];
      const axis = c.axis(intOf(c.node, "axis", 0), data);
      const rank = c.rank(data);
      const inner = c.rank(indices);
      // dy: data[:axis] + indices + data[axis+1:]. The axes of the indices become one, so that dy has data's rank.
      const flatIndices = inner === 1 ? indices : b.reshape(indices, [-1]);
      const dy = inner === 1 ? c.cotangent() : mergeAxes(c.cotangent());
      const around = Array.from({ length: rank }, (_, i) => i).filter((i) => i !== axis);
      const wide = around.length === 0 ? flatIndices : b.unsqueeze(flatIndices, around);
      const full = b.expand(toInt64(wide), b.shape(dy));
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

      function toInt64(value: string): string {
        return c.elemType(indices) === DataType.INT64 ? value : b.cast(value, DataType.INT64);
      }
    },
  }),
};
