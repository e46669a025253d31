/** Operators that rearrange or accumulate along axes: CumSum, TopK, Trilu, Tile, DepthToSpace, SpaceToDepth, OneHot, ReverseSequence. */
import { intOf, stringOf } from "../../onnx/attributes.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { dimension, staticShape, zerosLike } from "../shapes.js";
import { unary } from "./elementary.js";

/** An end behind every axis. */
const LARGEST = 2 ** 31 - 1;

/** The sum from the other end. */
export const cumSum = unary("CumSum", (c, dy) =>
  c.b.op("CumSum", [dy, c.input(1)], {
    exclusive: intOf(c.node, "exclusive", 0),
    reverse: 1 - intOf(c.node, "reverse", 0),
  }),
);

export const topK = unary("TopK", (c, dy) =>
  c.b.op("ScatterElements", [zerosLike(c, c.input(0)), c.output(1), dy], { axis: intOf(c.node, "axis", -1) }),
);

export const trilu = unary("Trilu", (c, dy) =>
  c.b.op("Trilu", [dy, ...(c.hasInput(1) ? [c.input(1)] : [])], { upper: intOf(c.node, "upper", 1) }),
);

/** Every axis apart into repeats and the axis itself, and the repeats summed. */
export const tile = unary("Tile", (c, dy) => {
  const { b } = c;
  const x = c.input(0);
  const rank = c.rank(x);
  if (rank === 0) return dy;
  const repeats = c.constantNumbers(1);
  if (repeats?.includes(0)) return zerosLike(c, x);
  const sizes = repeats && staticShape(c.shape(x).slice(1));
  const repeatAxes = Array.from({ length: rank }, (_, axis) => 2 * axis);
  let apart: string;
  if (repeats && sizes && !sizes.includes(0)) {
    apart = b.reshape(dy, [
      repeats[0] as number,
      -1,
      ...sizes.flatMap((size, axis) => [repeats[axis + 1] as number, size]),
    ]);
  } else {
    const counts = (axis: number) =>
      repeats ? b.i64([repeats[axis] as number]) : b.slice(c.input(1), [axis], [axis + 1], [0]);
    const parts = Array.from({ length: rank }, (_, axis) => [counts(axis), dimension(c, x, axis)]).flat();
    apart = b.op("Reshape", [dy, b.concat(parts, 0)], { allowzero: 1 });
  }
  return b.reduceSum(apart, repeatAxes, false);
});

export const spaceToDepth = unary("SpaceToDepth", (c, dy) =>
  c.b.op("DepthToSpace", [dy], { blocksize: intOf(c.node, "blocksize") as number, mode: "DCR" }),
);

/**
 * By strided slices, first of the columns and then of the rows: SpaceToDepth has no kernel on WebGPU, and ONNX Runtime
 * makes one of slices of both at once.
 */
export const depthToSpace = unary("DepthToSpace", (c, dy) => {
  const { b } = c;
  const size = intOf(c.node, "blocksize") as number;
  const starts = Array.from({ length: size }, (_, start) => start);
  const apart = (value: string, axis: number) =>
    b.concat(
      starts.map((start) => b.slice(value, [start], [LARGEST], [axis], [size])),
      1,
    );
  // [N, C, H·k, W·k] → [N, k·k·C, H, W]
  const blocks = apart(apart(dy, 3), 2);
  if (stringOf(c.node, "mode", "DCR") === "DCR" || size === 1) return blocks;
  // Mode CRD has the channels first: [N, C·k·k, H, W].
  const depth = c.shape(c.input(0))[1];
  if (typeof depth !== "number") throw c.error("in mode CRD has an unknown number of channels");
  const [places, channels] = [size ** 2, depth / size ** 2];
  const order = Array.from({ length: depth }, (_, i) => (i % places) * channels + Math.floor(i / places));
  return b.gather(blocks, b.i64(order), 1);
});

/** y = off + hot · (on − off) for values [off, on]. The forward graph needs OneHot, so the backward one may have it. */
export const oneHot: GradientRule = {
  opType: "OneHot",
  gradient: (c) => ({ 2: () => oneHotValues(c) }),
};

function oneHotValues(c: GradientContext): string {
  const { b } = c;
  const unit = b.constant(c.elemType(c.output()), [0, 1]);
  const hot = b.op("OneHot", [c.input(0), c.input(1), unit], { axis: intOf(c.node, "axis", -1) });
  const on = b.reduceSum(b.mul(c.cotangent(), hot), undefined, false);
  const off = b.sub(b.reduceSum(c.cotangent(), undefined, false), on);
  return b.concat([b.unsqueeze(off, [0]), b.unsqueeze(on, [0])], 0);
}

/** Its own inverse. */
export const reverseSequence = unary("ReverseSequence", (c, dy) =>
  c.b.op("ReverseSequence", [dy, c.input(1)], {
    batch_axis: intOf(c.node, "batch_axis", 1),
    time_axis: intOf(c.node, "time_axis", 0),
  }),
);
