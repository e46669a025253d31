/** Einsum: the gradient of an operand is the Einsum of the cotangent and the other operands. */
import { stringOf } from "../../onnx/attributes.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { dimension, expandLike, identityMatrix } from "../shapes.js";

export const einsum: GradientRule = {
  opType: "Einsum",
  gradient: (c) => {
    const { operands, output } = parse(c);
    requireTrueShape(c, operands, output);
    return Object.fromEntries(operands.map((_, i) => [i, () => operandGradient(c, operands, output, i)]));
  },
};

function operandGradient(c: GradientContext, operands: readonly string[], output: string, i: number): string {
  const { b } = c;
  const wanted = operands[i] as string;
  const terms = [
    { subscripts: output, name: c.output(), factor: c.cotangent() },
    ...operands.flatMap((subscripts, k) => (k === i ? [] : [{ subscripts, name: c.input(k), factor: c.input(k) }])),
  ];
  /** Whether another term is longer than 1 along an index: what it is where sizes of 1 broadcast. */
  const isLong = (letter: string) =>
    terms.some(({ subscripts, name }) => {
      const axis = subscripts.indexOf(letter);
      return axis >= 0 && c.shape(name)[axis] !== 1;
    });
  const shape = c.shape(c.input(i));
  // Left out: an index that was summed over in this operand alone, along which its cotangent is the same everywhere; and
  // one of size 1 that was broadcast, along which it is summed.
  const isLeftOut = (letter: string, axis: number) =>
    shape[axis] === 1 ? isLong(letter) || !terms.some((term) => term.subscripts.includes(letter)) : !isLong(letter);
  const axes = [...wanted].map((letter, axis) => ({ letter, axis, isRepeat: wanted.indexOf(letter) < axis }));
  const added = axes.filter(({ letter, axis, isRepeat }) => isRepeat || isLeftOut(letter, axis));
  const made = axes.filter((entry) => !added.includes(entry)).map(({ letter }) => letter);
  const equation = `${terms.map(({ subscripts }) => subscripts).join(",")}->${made.join("")}`;
  const factors = terms.map(({ factor }) => factor);
  const isTrivial = terms.length === 1 && output === made.join("");
  const product = isTrivial ? c.cotangent() : b.op("Einsum", factors, { equation });
  if (added.length === 0) return product;
  let full = b.unsqueeze(
    product,
    added.map(({ axis }) => axis),
  );
  // The operand was read on its diagonal: off it the cotangent is zero.
  for (const { letter, axis, isRepeat } of axes) {
    if (isRepeat) full = b.mul(full, diagonal(c, i, wanted.indexOf(letter), axis));
  }
  const isShort = added.some(({ axis, isRepeat }) => !isRepeat && shape[axis] !== 1);
  return isShort ? expandLike(c, full, c.input(i)) : full;
}

/** One where two axes of operand `i` have the same index and zero elsewhere, with all other axes of size 1. */
function diagonal(c: GradientContext, i: number, first: number, second: number): string {
  const x = c.input(i);
  const size = c.shape(x)[first];
  const ones = identityMatrix(c, typeof size === "number" ? size : dimension(c, x, first), c.elemType(x));
  const others = [...Array(c.rank(x)).keys()].filter((axis) => axis !== first && axis !== second);
  return others.length > 0 ? c.b.unsqueeze(ones, others) : ones;
}

/** Subscripts of the operands and of the output, with the ellipsis spelt out in letters of its own. */
function parse(c: GradientContext): { operands: string[]; output: string } {
  const equation = stringOf(c.node, "equation", "").replaceAll(" ", "");
  const [left, right] = equation.split("->") as [string, string?];
  const terms = left.split(",");
  const letters = [..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"].filter(
    (letter) => !equation.includes(letter),
  );
  const widths = terms.map((term, i) => (term.includes("...") ? c.rank(c.input(i)) - (term.length - 3) : 0));
  const widest = Math.max(...widths);
  if (widest > letters.length) throw c.error("has more indices than there are letters");
  const ellipsis = letters.slice(0, widest).join("");
  const spell = (term: string, width: number) => term.replace("...", width > 0 ? ellipsis.slice(-width) : "");
  const operands = terms.map((term, i) => spell(term, widths[i] as number));
  const all = operands.join("");
  // Without an arrow: the ellipsis, then the indices that stand once, in alphabetical order.
  const once = [...new Set(all)].filter((letter) => !ellipsis.includes(letter) && all.split(letter).length === 2);
  const output = right === undefined ? ellipsis + once.sort().join("") : spell(right, widest);
  return { operands, output };
}

/** ONNX Runtime infers an output of size 1 where the first operand broadcasts, and makes a longer one. */
function requireTrueShape(c: GradientContext, operands: readonly string[], output: string): void {
  const shape = c.shape(c.output());
  for (const [i, operand] of operands.entries()) {
    const letter = [...operand].find((at, axis) => {
      return shape[output.indexOf(at)] === 1 && c.shape(c.input(i))[axis] !== 1;
    });
    if (letter) throw c.error("broadcasts an axis of its first operand; expand the operand before");
  }
}
