/** Einsum: the gradient of an operand is the Einsum of the cotangent and the other operands. */
import { stringOf } from "../../onnx/attributes.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { expandLike } from "../shapes.js";

export const einsum: GradientRule = {
  opType: "Einsum",
  notes: "no index twice in one operand",
  gradient: (c) => {
    const { operands, output } = parse(c);
    return Object.fromEntries(operands.map((_, i) => [i, () => operandGradient(c, operands, output, i)]));
  },
};

function operandGradient(c: GradientContext, operands: readonly string[], output: string, i: number): string {
  const { b } = c;
  const wanted = operands[i] as string;
  const others = operands.flatMap((subscripts, k) => (k === i ? [] : [{ subscripts, name: c.input(k) }]));
  const known = new Set([output, ...others.map(({ subscripts }) => subscripts)].join(""));
  // An index that stands in this operand alone was summed over: its cotangent is the same everywhere along it.
  const made = [...wanted].filter((letter) => known.has(letter)).join("");
  const terms = [output, ...others.map(({ subscripts }) => subscripts)];
  const names = [c.cotangent(), ...others.map(({ name }) => name)];
  const trivial = terms.length === 1 && terms[0] === made;
  const product = trivial ? c.cotangent() : b.op("Einsum", names, { equation: `${terms.join(",")}->${made}` });
  if (made === wanted) return product;
  const missing = [...wanted].flatMap((letter, axis) => (known.has(letter) ? [] : [axis]));
  return expandLike(c, b.unsqueeze(product, missing), c.input(i));
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
  for (const [i, operand] of operands.entries()) {
    if (new Set(operand).size < operand.length) {
      throw c.error(`takes a diagonal: an index stands twice in operand ${i} of '${equation}'`);
    }
    requireNoBroadcast(c, operands, i);
  }
  const all = operands.join("");
  // Without an arrow: the ellipsis, then the indices that stand once, in alphabetical order.
  const once = [...new Set(all)].filter((letter) => !ellipsis.includes(letter) && all.split(letter).length === 2);
  const output = right === undefined ? ellipsis + once.sort().join("") : spell(right, widest);
  return { operands, output };
}

/** An index of size 1 in one operand and more in another would have to be summed again, which Einsum cannot say. */
function requireNoBroadcast(c: GradientContext, operands: readonly string[], i: number): void {
  for (const [axis, letter] of [...(operands[i] as string)].entries()) {
    if (c.shape(c.input(i))[axis] !== 1) continue;
    for (const [k, other] of operands.entries()) {
      const at = other.indexOf(letter);
      if (at >= 0 && c.shape(c.input(k))[at] !== 1) {
        throw c.error(`broadcasts operand ${i} along '${letter}', which has no gradient; expand the operand before`);
      }
    }
  }
}
