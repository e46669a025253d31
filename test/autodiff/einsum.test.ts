import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expectGradients } from "../support/gradient-check.js";

const linear = { step: 0.5, tolerance: 1e-10 } as const;
const einsum = (equation: string, shapes: readonly (readonly number[])[]) =>
  expectGradients({
    inputs: shapes.map((dims) => ({ dims, known: dims.includes(1) })),
    build: (b, x) => b.op("Einsum", x, { equation }),
    ...linear,
  });

describe("Einsum", () => {
  it.each([
    ["ii->i", [3, 3]],
    ["ii", [3, 3]],
    ["ii->", [2, 2]],
    ["iij->j", [3, 3, 2]],
    ["bii->bi", [2, 3, 3]],
    ["iji->ij", [2, 3, 2]],
    ["...ii->...i", [2, 3, 3]],
  ])("on a diagonal, %s", (equation, dims) => einsum(equation, [dims]));

  it("of a diagonal with another operand, both ways", async () => {
    await einsum("ii,ij->j", [
      [3, 3],
      [3, 2],
    ]);
    await einsum("ij,jkk->ik", [
      [2, 3],
      [3, 2, 2],
    ]);
  });

  it.each([
    ["...ij,...jk->...ik", [4, 2, 3], [1, 3, 2]],
    ["...d,d->...", [2, 3, 4], [4]],
  ])("%s broadcasts %j and %j", (equation, a, b) => einsum(equation, [a, b]));

  it("refuses what ONNX Runtime gives a wrong shape", () =>
    expect(
      einsum("...ij,...jk->...ik", [
        [1, 2, 3],
        [4, 3, 2],
      ]),
    ).rejects.toThrow(/expand the operand before/));

  it("of any operands", () => {
    const letters = fc.shuffledSubarray([..."abcd"]);
    return fc.assert(
      fc.asyncProperty(
        fc.array(letters, { minLength: 1, maxLength: 3 }),
        fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 4, maxLength: 4 }),
        fc.infiniteStream(fc.nat(5)),
        async (operands, sizes, choices) => {
          const next = () => choices.next().value as number;
          // The output: some of the indices, in an order of its own.
          const output = [...new Set(operands.flat())].filter(() => next() < 3).sort(() => (next() < 3 ? 1 : -1));
          const size = (letter: string) => sizes["abcd".indexOf(letter)] as number;
          const equation = `${operands.map((operand) => operand.join("")).join(",")}->${output.join("")}`;
          await expectGradients({
            inputs: operands.map((operand) => ({ dims: operand.map(size) })),
            build: (b, x) => b.op("Einsum", x, { equation }),
            shapes: ["static"],
            ...linear,
          });
        },
      ),
      { numRuns: 60, seed: 7 },
    );
  });
});
