/**
 * QuantizeLinear and DequantizeLinear, straight through: the pair's value, with the slope of the identity wherever the
 * rounded value lies in the range of the quantised type and none outside (B. Jacob et al., Quantization and Training of
 * Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018). Scales and zero points get no gradient.
 */
import { stopGradient } from "../../autodiff/stop-gradient.js";
import { intOf } from "../../onnx/attributes.js";
import { DataType } from "../../onnx/proto.js";
import type { Lowering, LoweringContext } from "./lowering.js";

const REASON =
  "rounding has no slope. Let gradients pass straight through it (--straight-through), or freeze the parameters before it";

const RANGES: Partial<Record<DataType, readonly [number, number]>> = {
  [DataType.UINT8]: [0, 255],
  [DataType.INT8]: [-128, 127],
};

export const quantize: Lowering = {
  opType: "QuantizeLinear",
  lower(node, context) {
    const isInTheWay = !context.straightThrough && context.isOnGradientPath(node.output[0] as string);
    return isInTheWay ? context.refuse(REASON) : false;
  },
};

export const dequantize: Lowering = {
  opType: "DequantizeLinear",
  lower(node, context) {
    const { b, types } = context;
    const [quantised = "", scale = "", zeroPoint] = node.input;
    const output = node.output[0] as string;
    const source = context.producer(quantised);
    if (!context.isOnGradientPath(output)) return false;
    if (!context.straightThrough) return context.refuse(REASON);
    if (source?.opType !== "QuantizeLinear") {
      return context.refuse(
        "its input comes from no QuantizeLinear, so there is nothing to pass a gradient straight to",
      );
    }
    const x = source.input[0] as string;
    const type = types.get(x);
    const range = RANGES[types.get(quantised)?.elemType ?? DataType.UNDEFINED];
    if (!type?.shape || !range) return context.refuse("its element type or rank is not known");
    const along = alignedWith(context, type.shape.length, intOf(node, "axis", 1));
    const step = along(scale);
    // Half a step on both sides rounds into the range.
    const bound = (limit: number) => {
      const steps = zeroPoint
        ? b.sub(b.constant(type.elemType, limit), b.cast(along(zeroPoint), type.elemType))
        : b.constant(type.elemType, limit);
      return stopGradient(b, b.mul(steps, step));
    };
    const inRange = b.min(b.max(x, bound(range[0] - 0.5)), bound(range[1] + 0.5));
    const [value] = b.node("DequantizeLinear", node.input, { attributes: { axis: intOf(node, "axis", 1) } });
    const difference = stopGradient(b, b.sub(value as string, inRange));
    b.node("Add", [inRange, difference], { outputs: [output] });
    return true;
  },
};

/** Gives the scales of an axis the rank of what they scale. */
function alignedWith({ b, types }: LoweringContext, rank: number, axis: number): (name: string) => string {
  return (name) => {
    if (types.get(name)?.shape?.length !== 1) return name;
    const at = axis < 0 ? axis + rank : axis;
    return b.reshape(
      name,
      Array.from({ length: rank }, (_, i) => (i === at ? -1 : 1)),
    );
  };
}
