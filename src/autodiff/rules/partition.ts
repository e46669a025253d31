/** Concat, Split and Slice: taking tensors apart and putting them together along axes. */
import { intOf, intsOf } from "../../onnx/attributes.js";
import { DataType } from "../../onnx/proto.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { dimension, staticShape, zerosLike } from "../shapes.js";

export const concat: GradientRule = {
  opType: "Concat",
  gradient: (c) => {
    const { b } = c;
    const axis = c.axis(intOf(c.node, "axis", 0), c.output());
    const inputs = c.node.input;
    if (inputs.length === 1) return { 0: () => c.cotangent() };
    const sizes = staticShape(inputs.map((name) => c.shape(name)[axis] ?? null));
    // One Split serves all inputs; when few of several want their part, each is sliced out alone.
    const wanted = inputs.filter((_, i) => c.needs(i)).length;
    let parts: string[] | undefined;
    const split = () => {
      parts ??= b.node(
        "Split",
        [
          c.cotangent(),
          sizes
            ? b.i64(sizes)
            : b.concat(
                inputs.map((x) => dimension(c, x, axis)),
                0,
              ),
        ],
        {
          outputs: inputs.length,
          attributes: { axis },
        },
      );
      return parts;
    };
    const sliced = (i: number, known: readonly number[]) => {
      const start = known.slice(0, i).reduce((sum, size) => sum + size, 0);
      return b.slice(c.cotangent(), [start], [start + (known[i] as number)], [axis]);
    };
    return Object.fromEntries(
      inputs.map((_, i) => [i, () => (sizes && wanted < 2 ? sliced(i, sizes) : (split()[i] as string))]),
    );
  },
};

export const split: GradientRule = {
  opType: "Split",
  gradient: (c) => ({
    0: () =>
      c.b.concat(
        c.cotangents.map((dy, i) => dy ?? zerosLike(c, c.output(i))),
        c.axis(intOf(c.node, "axis", 0), c.input(0)),
      ),
  }),
};

export const slice: GradientRule = {
  opType: "Slice",
  gradient: (c) => ({ 0: () => sliceGradient(c) }),
};

/** Puts the cotangent back in its place among zeros: one Pad for steps of 1, a Gather per other axis. */
function sliceGradient(c: GradientContext): string {
  const { b } = c;
  const x = c.input(0);
  const rank = c.rank(x);
  const starts = c.constantNumbers(1) ?? intsOf(c.node, "starts");
  const given = c.constantNumbers(3) ?? intsOf(c.node, "axes");
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
  const start = c.constantNumbers(1) ?? intsOf(c.node, "starts");
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
  const size = c.shape(c.input(0))[axis];
  const [starts, ends] = [c.constantNumbers(1), c.constantNumbers(2)];
  if (typeof size !== "number" || !starts || !ends) {
    throw c.error(
      `takes steps along axis ${axis}, whose size or bounds are known only at run time; fix that dimension`,
    );
  }
  const positions = slicePositions(
    size,
    starts[i] as number,
    ends[i] as number,
    (c.constantNumbers(4) as number[])[i] as number,
  );
  const lookup = Array(size).fill(positions.length);
  for (const [place, position] of positions.entries()) lookup[position] = place;
  return b.gather(padded, b.i64(lookup), axis);
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
