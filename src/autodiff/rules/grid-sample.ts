/**
 * GridSample of images: each output is a weighted mean of the four pixels around a point (bilinear), or the nearest
 * pixel. The gradient of the image adds what was read back to where it was read; that of the grid is the difference of
 * the neighbours.
 */
import { intOf, stringOf } from "../../onnx/attributes.js";
import { DataType } from "../../onnx/proto.js";
import { type GradientContext, type GradientRule, once } from "../rule.js";
import { dimension, reshapeLike, staticShape, zerosLike } from "../shapes.js";

export const gridSample: GradientRule = {
  opType: "GridSample",
  notes: "images (4-D); bilinear and nearest; padding with zeros or the border",
  gradient: (c) => {
    const mode = stringOf(c.node, "mode", "bilinear");
    const isBilinear = mode === "bilinear" || mode === "linear";
    const padding = stringOf(c.node, "padding_mode", "zeros");
    if (!isBilinear && mode !== "nearest") throw c.error(`samples in mode '${mode}', which has no gradient`);
    if (padding === "reflection") throw c.error("pads by reflection, which has no gradient");
    if (c.rank(c.input(0)) !== 4) throw c.error("samples volumes, which has no gradient");
    const corners = once(() => cornersOf(c, isBilinear, padding === "zeros"));
    return {
      0: () => imageGradient(c, corners()),
      // A step function of the grid otherwise.
      ...(isBilinear && { 1: () => gridGradient(c, corners()) }),
    };
  },
};

/** The pixels around each of the P points, [N, K, P] with K = 4, or 1 for the nearest. */
interface Corners {
  /** Their places in an image of one row, int32: WebGPU moves no int64. */
  readonly places: string;
  /** Their weights along either axis, zero outside the image where that counts as zero. */
  readonly weights: readonly [string, string];
  /** The slopes of these weights in the pixel coordinates. */
  readonly slopes: readonly [string, string];
  readonly sizes: readonly [string, string];
  /** K. */
  readonly count: number;
}

function cornersOf(c: GradientContext, isBilinear: boolean, outsideIsZero: boolean): Corners {
  const { b } = c;
  const [x, grid] = [c.input(0), c.input(1)];
  const number = (value: number) => c.scalar(value, x);
  const [zero, one] = [number(0), number(1)];
  const size = (axis: number) => {
    const known = c.shape(x)[axis];
    return typeof known === "number" ? number(known) : b.cast(b.squeeze(dimension(c, x, axis), [0]), c.elemType(x));
  };
  /** Coordinate 0 (across, axis 3) or 1 (down, axis 2) of the corners. */
  const along = (coordinate: number, nearOrFar: readonly number[]) => {
    const length = size(3 - coordinate);
    const last = b.sub(length, one);
    // [N, Hₒ, Wₒ, 2] → [N, 1, P]
    const points = b.reshape(b.gather(grid, b.i64(coordinate), 3), [0, 1, -1]);
    const scaled = b.mul(b.add(points, one), pixelsPerUnit(c, length));
    const at = intOf(c.node, "align_corners", 0) === 1 ? scaled : b.sub(scaled, number(0.5));
    const offsets = c.b.constant(c.elemType(x), nearOrFar, [1, nearOrFar.length, 1]);
    const first = b.op(isBilinear ? "Floor" : "Round", [at]);
    const pixels = isBilinear ? b.add(first, offsets) : first;
    const inside = () => b.where(b.less(pixels, zero), zero, b.where(b.greater(pixels, last), zero, one));
    const slope = b.sub(b.mul(offsets, number(2)), one);
    const weight = isBilinear ? b.add(b.sub(one, offsets), b.mul(slope, b.sub(at, first))) : offsets;
    const masked = (value: string) => (outsideIsZero ? b.mul(value, inside()) : value);
    return { pixels: b.min(b.max(pixels, zero), last), weight: masked(weight), slope: masked(slope), length };
  };
  const across = along(0, isBilinear ? [0, 1, 0, 1] : [1]);
  const down = along(1, isBilinear ? [0, 0, 1, 1] : [1]);
  return {
    places: b.cast(b.add(b.mul(down.pixels, across.length), across.pixels), DataType.INT32),
    weights: [across.weight, down.weight],
    slopes: [across.slope, down.slope],
    sizes: [across.length, down.length],
    count: isBilinear ? 4 : 1,
  };
}

/** How many pixels a grid coordinate of 1 moves: −1 and 1 are the edges of the image, or the centres of its outer pixels. */
function pixelsPerUnit(c: GradientContext, length: string): string {
  const { b } = c;
  const half = c.scalar(0.5, c.input(0));
  const span = intOf(c.node, "align_corners", 0) === 1 ? b.sub(length, c.scalar(1, c.input(0))) : length;
  return b.mul(span, half);
}

/** [N, K, P] → [N, C, K·P]: the same places in every channel. */
function inEveryChannel(c: GradientContext, places: string, like: string, count: number): string {
  const { b } = c;
  const known = staticShape(c.shape(c.output()));
  const [batch = 0, channels = 0, height = 0, width = 0] = known ?? [];
  const shape = known ? b.i64([batch, channels, count * height * width]) : b.shape(like);
  return b.expand(b.reshape(places, [0, 1, -1]), shape);
}

function imageGradient(c: GradientContext, corners: Corners): string {
  const { b } = c;
  const x = c.input(0);
  // [N, C, 1, P] ⊙ [N, 1, K, P] → [N, C, K·P]
  const dy = b.unsqueeze(b.reshape(c.cotangent(), [0, 0, -1]), [2]);
  const weights = b.unsqueeze(b.mul(...corners.weights), [1]);
  const updates = b.reshape(b.mul(dy, weights), [0, 0, -1]);
  const rows = b.reshape(zerosLike(c, x), [0, 0, -1]);
  const places = inEveryChannel(c, corners.places, updates, corners.count);
  return reshapeLike(c, b.op("ScatterElements", [rows, places, updates], { axis: 2, reduction: "add" }), x);
}

function gridGradient(c: GradientContext, corners: Corners): string {
  const { b } = c;
  const [x, grid] = [c.input(0), c.input(1)];
  const dy = b.unsqueeze(b.reshape(c.cotangent(), [0, 0, -1]), [2]);
  const ones = b.constant(c.elemType(x), Array(corners.count).fill(1), [corners.count, 1]);
  const spread = b.reshape(b.mul(dy, ones), [0, 0, -1]);
  const places = inEveryChannel(c, corners.places, spread, corners.count);
  const pixels = b.op("GatherElements", [b.reshape(x, [0, 0, -1]), places], { axis: 2 });
  // What the weight of each corner is worth, [N, K, P].
  const worth = b.reshape(b.reduceSum(b.mul(spread, pixels), [1], false), [0, corners.count, -1]);
  const [across, down] = corners.weights;
  const coordinate = (slope: string, other: string, length: string) => {
    const perPixel = b.reduceSum(b.mul(worth, b.mul(slope, other)), [1], false);
    return b.unsqueeze(b.mul(perPixel, pixelsPerUnit(c, length)), [2]);
  };
  const both = b.concat(
    [coordinate(corners.slopes[0], down, corners.sizes[0]), coordinate(corners.slopes[1], across, corners.sizes[1])],
    2,
  );
  return reshapeLike(c, both, grid);
}
