/** Slice: the cotangent goes back to its place among zeros. */
import { DataType } from "../../onnx/proto.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { dimension, staticShape } from "../shapes.js";

export const slice: GradientRule = {
  opType: "Slice",
  notes: "axes and steps must be constant",
  gradient: (c) => ({ 0: () => sliceGradient(c) }),
};

/** One Pad for all steps of 1, and a Gather for each axis with another step. */
function sliceGradient(c: GradientContext): string {
  const { b } = c;
  const x = c.input(0);
  const rank = c.rank(x);
  const starts = c.constantNumbers(1);
  const given = c.constantNumbers(3);
  if (c.hasInput(3) && !given) throw c.error("has axes that are not constant; make them an initializer");
  const count = starts?.length ?? (c.shape(c.input(1))[0] as number);
  const axes = (given ?? [...Array(count).keys()]).map((axis) => c.axis(axis, x));
  if (c.hasInput(4) && !c.constantNumbers(4))
    throw c.error("has steps that are not constant; make them an initializer");
  const steps = c.constantNumbers(4) ?? axes.map(() => 1);

  let grown = c.cotangent();
  const before: (number | string)[] = Array(rank).fill(0);
  const after: (number | string)[] = Array(rank).fill(0);
  for (const [i, axis] of axes.entries()) {
    const size = c.shape(x)[axis];
    if (steps[i] !== 1) {
      grown = spread(c, grown, axis, i);
      continue;
    }
    const start = starts?.[i];
    const taken = c.shape(c.output())[axis];
    if (start !== undefined && typeof size === "number" && typeof taken === "number") {
      const first = Math.min(Math.max(start < 0 ? start + size : start, 0), size);
      before[axis] = first;
      after[axis] = size - first - taken;
    } else {
      const first = firstIndex(c, i, axis);
      before[axis] = first;
      after[axis] = b.sub(b.sub(dimension(c, x, axis), dimension(c, c.output(), axis)), first);
    }
  }
  const pads = [...before, ...after];
  if (pads.every((pad) => pad === 0)) return grown;
  const numbers = staticShape(pads as (number | string)[]);
  const vector = numbers
    ? b.i64(numbers)
    : b.concat(
        pads.map((pad) => (typeof pad === "number" ? b.i64([pad]) : pad)),
        0,
      );
  return b.op("Pad", [grown, vector]);
}

/** Where slice `i` begins along `axis`: its start, counted from the front and clamped, as an int64 vector of one. */
function firstIndex(c: GradientContext, i: number, axis: number): string {
  const { b } = c;
  const size = dimension(c, c.input(0), axis);
  const start = c.constantNumbers(1);
  const zero = b.i64([0]);
  if (start) {
    const known = start[i] as number;
    return known >= 0 ? b.min(b.i64([known]), size) : b.max(b.add(size, b.i64([known])), zero);
  }
  const raw = b.cast(b.slice(c.input(1), [i], [i + 1], [0]), DataType.INT64);
  return b.max(b.min(b.where(b.less(raw, zero), b.add(raw, size), raw), size), zero);
}

/**
 * Undoes a step other than 1 along `axis`: every position looks up its place in the cotangent, or a row of zeros
 * appended to it. Needs no scatter.
 */
function spread(c: GradientContext, dy: string, axis: number, i: number): string {
  const { b } = c;
  const rank = c.rank(c.input(0));
  const padded = b.op("Pad", [
    dy,
    b.i64([
      ...Array(rank).fill(0),
      ...Array(rank)
        .fill(0)
        .fill(1, axis, axis + 1),
    ]),
  ]);
  return b.gather(padded, lookupTable(c, axis, i), axis);
}

/** For every position along `axis`, where slice `i` put it, or the number of taken positions where it took it not. */
function lookupTable(c: GradientContext, axis: number, i: number): string {
  const { b } = c;
  const size = c.shape(c.input(0))[axis];
  const [start, end] = [c.constantNumbers(1)?.[i], c.constantNumbers(2)?.[i]];
  const step = c.constantNumbers(4)?.[i] as number;
  if (typeof size === "number" && start !== undefined && end !== undefined) {
    const positions = slicePositions(size, start, end, step);
    const lookup = Array(size).fill(positions.length);
    for (const [place, position] of positions.entries()) lookup[position] = place;
    return b.i64(lookup);
  }
  const range = (count: string) => b.op("Range", [b.i64(0), b.squeeze(count, [0]), b.i64(1)]);
  const bound = (input: number) => b.slice(c.input(input), [i], [i + 1], [0]);
  const count = dimension(c, c.output(), axis);
  const length = dimension(c, c.input(0), axis);
  const positions = b.op("Slice", [
    range(length),
    bound(1),
    bound(2),
    b.cast(b.i64([0]), c.elemType(c.input(1))),
    bound(4),
  ]);
  return b.op("ScatterElements", [b.expand(count, length), positions, range(count)], { axis: 0 });
}

/** The positions that Slice takes along one axis, as the operator's specification clamps them. */
function slicePositions(size: number, start: number, end: number, step: number): number[] {
  const clamp = (value: number, low: number, high: number) => Math.min(Math.max(value, low), high);
  const from = clamp(start < 0 ? start + size : start, 0, step > 0 ? size : size - 1);
  const to = clamp(end < 0 ? end + size : end, step > 0 ? 0 : -1, size);
  const positions: number[] = [];
  for (let p = from; step > 0 ? p < to : p > to; p += step) positions.push(p);
  return positions;
}
