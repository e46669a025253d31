/** Undoing ONNX's multidirectional broadcasting: the cotangent of a broadcast input is summed over the added positions. */
import { DataType } from "../onnx/proto.js";
import type { GradientContext } from "./rule.js";

/**
 * Sums `cotangent` (of the shape of the forward value `output`) down to the shape of the forward value `input`.
 * Axes are decided now where the shapes are known, and by Shape at run time where they are not.
 * @param tail how many of the last axes never broadcast: there `cotangent` has the dimensions of `input` already.
 */
export function reduceToShape(
  context: GradientContext,
  cotangent: string,
  input: string,
  output: string,
  tail = 0,
): string {
  const { b } = context;
  const from = context.type(output).shape;
  const to = context.type(input).shape;
  if (!from || !to) return reduceAtRunTime(context, cotangent, input);
  const lead = from.length - to.length;
  const kept: number[] = [];
  for (let i = 0; i < to.length - tail; i++) {
    const [big, small] = [from[lead + i], to[i]];
    if (small === 1) {
      if (big !== 1) kept.push(lead + i);
    } else if (typeof small !== "number" && (small === null || small !== big)) {
      return reduceAtRunTime(context, cotangent, input);
    }
  }
  const leading = Array.from({ length: lead }, (_, i) => i);
  if (kept.length === 0) return lead > 0 ? b.reduceSum(cotangent, leading, false) : cotangent;
  const summed = b.reduceSum(cotangent, [...leading, ...kept], true);
  return lead > 0 ? b.squeeze(summed, leading) : summed;
}

function reduceAtRunTime(context: GradientContext, cotangent: string, input: string): string {
  const { b } = context;
  const target = b.shape(input);
  const full = b.shape(cotangent);
  // Pad the target with ones in front, find where the two differ, sum there, and drop the padding by a Reshape.
  const padding = b.sub(b.shape(full), b.shape(target));
  const ones = b.expand(b.i64([1]), padding);
  const padded = b.concat([ones, target], 0);
  const differs = b.op("Not", [b.equal(padded, full)]);
  const axes = b.squeeze(b.op("NonZero", [b.cast(differs, DataType.INT64)]), [0]);
  const summed = b.op("ReduceSum", [cotangent, axes], { keepdims: 1, noop_with_empty_axes: 1 });
  return b.op("Reshape", [summed, target], { allowzero: 1 });
}
