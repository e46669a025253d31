/** Pad in constant, reflect and edge mode. */
import { intsOf, stringOf } from "../../onnx/attributes.js";
import type { GradientContext, GradientRule } from "../rule.js";

export const pad: GradientRule = {
  opType: "Pad",
  gradient: (c) => {
    const mode = stringOf(c.node, "mode", "constant");
    const pads = padsOf(c);
    return {
      0: () => (mode === "constant" ? crop(c, c.cotangent(), pads) : fold(c, pads, mode)),
      // The constant was written everywhere around x.
      2: () => {
        const { b } = c;
        const all = b.reduceSum(c.cotangent(), undefined, false);
        const inner = b.reduceSum(crop(c, c.cotangent(), pads), undefined, false);
        const difference = b.sub(all, inner);
        return c.rank(c.input(2)) === 0 ? difference : b.unsqueeze(difference, [0]);
      },
    };
  },
};

interface AxisPads {
  readonly axis: number;
  readonly begin: number;
  readonly end: number;
}

/** The pads by axis, those of zero left out. @throws FishyError when they are computed at run time. */
function padsOf(c: GradientContext): AxisPads[] {
  const pads = intsOf(c.node, "pads") ?? c.constantNumbers(1);
  const axes = c.hasInput(3) ? c.constantNumbers(3) : Array.from({ length: c.rank(c.input(0)) }, (_, i) => i);
  if (!pads || !axes) throw c.error("has pads that are computed at run time, which its gradient needs to know");
  return axes
    .map((axis, i) => ({
      axis: c.axis(axis, c.input(0)),
      begin: pads[i] as number,
      end: pads[i + axes.length] as number,
    }))
    .filter(({ begin, end }) => begin !== 0 || end !== 0);
}

/** Undoes constant padding: what was added is cut off, what was cut off (negative pads) becomes zero. */
function crop(c: GradientContext, value: string, pads: readonly AxisPads[]): string {
  const { b } = c;
  const cut = pads.filter(({ begin, end }) => begin > 0 || end > 0);
  let result = value;
  if (cut.length > 0) {
    result = b.slice(
      result,
      cut.map(({ begin }) => Math.max(begin, 0)),
      cut.map(({ end }) => (end > 0 ? -end : END)),
      cut.map(({ axis }) => axis),
    );
  }
  const added = pads.filter(({ begin, end }) => begin < 0 || end < 0);
  if (added.length === 0) return result;
  return padZeros(
    c,
    result,
    added.map(({ axis, begin, end }) => ({ axis, begin: Math.max(-begin, 0), end: Math.max(-end, 0) })),
  );
}

/** Past any dimension. */
const END = 2 ** 31 - 1;

function padZeros(c: GradientContext, value: string, pads: readonly AxisPads[]): string {
  const rank = c.rank(c.input(0));
  const full = new Array<number>(2 * rank).fill(0);
  for (const { axis, begin, end } of pads) {
    full[axis] = begin;
    full[axis + rank] = end;
  }
  return c.b.op("Pad", [value, c.b.i64(full)]);
}

/** Reflect and edge: each margin is folded back onto the values that it repeats, one axis after the other. */
function fold(c: GradientContext, pads: readonly AxisPads[], mode: string): string {
  const { b } = c;
  if (mode !== "reflect" && mode !== "edge") throw c.error(`pads in mode '${mode}', whose gradient is not known`);
  let result = c.cotangent();
  for (const { axis, begin, end } of pads) {
    const size = c.shape(c.input(0))[axis];
    if (typeof size !== "number")
      throw c.error(`pads axis ${axis} in mode '${mode}', which needs its size to be static`);
    if (begin < 0 || end < 0) throw c.error(`has negative pads in mode '${mode}', whose gradient is not known`);
    const part = (start: number, stop: number) => b.slice(result, [start], [stop], [axis]);
    const terms = [part(begin, begin + size)];
    if (mode === "reflect") {
      // Backwards from the last element: WebGPU's Slice ignores where a negative step starts.
      const reversed = (start: number, stop: number) => b.slice(part(start, stop), [-1], [-END], [axis], [-1]);
      if (begin > 0) terms.push(padZeros(c, reversed(0, begin), [{ axis, begin: 1, end: size - 1 - begin }]));
      const last = begin + size;
      if (end > 0) terms.push(padZeros(c, reversed(last, last + end), [{ axis, begin: size - 1 - end, end: 1 }]));
    } else {
      const sum = (start: number, stop: number) => b.reduceSum(part(start, stop), [axis], true);
      if (begin > 0) terms.push(padZeros(c, sum(0, begin), [{ axis, begin: 0, end: size - 1 }]));
      const last = begin + size;
      if (end > 0) terms.push(padZeros(c, sum(last, last + end), [{ axis, begin: size - 1, end: 0 }]));
    }
    result = terms.reduce((total, term) => b.add(total, term));
  }
  return result;
}
