/** Dropout. Fishy lowers training Dropout before it differentiates; this rule serves graphs that keep the operator. */
import type { DataType } from "../../onnx/proto.js";
import type { GradientContext, GradientRule } from "../rule.js";

/** ONNX's ratio when the input is left out. */
const DEFAULT_RATIO = 0.5;

export const dropout: GradientRule = {
  opType: "Dropout",
  notes: "training mode needs the mask output",
  gradient: (c) => ({ 0: () => maskedCotangent(c) }),
};

function maskedCotangent(c: GradientContext): string {
  const { b } = c;
  const x = c.input(0);
  const mode = c.constantNumbers(2);
  if (!c.hasInput(2) || mode?.[0] === 0) return c.cotangent();
  const mask = c.node.output[1];
  if (!mask) throw c.error("is in training mode and lacks its mask output, which the gradient needs; add the output");
  const ratio = c.constantNumbers(1);
  const kept =
    ratio || !c.hasInput(1)
      ? c.scalar(1 / (1 - (ratio?.[0] ?? DEFAULT_RATIO)), x)
      : b.op("Reciprocal", [b.sub(c.scalar(1, x), cast(c, c.input(1)))]);
  // With the mode decided at run time the scale is 1 when it is off; the mask is then true everywhere.
  const scale = mode ? kept : b.where(c.input(2), kept, c.scalar(1, x));
  return b.mul(b.where(mask, c.cotangent(), c.scalar(0, x)), scale);
}

function cast(c: GradientContext, ratio: string): string {
  const type = c.elemType(c.input(0));
  return c.elemType(ratio) === type ? ratio : c.b.cast(ratio, type as typeof DataType.FLOAT);
}
