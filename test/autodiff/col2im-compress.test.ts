import { describe, expect, it } from "vitest";
import { expectGradients } from "../support/gradient-check.js";

const linear = { step: 0.5, tolerance: 1e-5 } as const;

describe("Col2Im", () => {
  it.each([
    { image: [4, 5], block: [2, 3], attributes: {} },
    { image: [5, 4], block: [2, 2], attributes: { strides: [2, 1], pads: [1, 0, 0, 2] } },
    { image: [5, 6], block: [2, 2], attributes: { dilations: [2, 3], strides: [1, 2] } },
    { image: [7], block: [3], attributes: { strides: [3] } },
  ])("$image of blocks $block, $attributes", ({ image, block, attributes }) => {
    const { strides, dilations, pads } = { strides: undefined, dilations: undefined, pads: undefined, ...attributes };
    const columns = image.map((size, i) => {
      const padded = size + (pads?.[i] ?? 0) + (pads?.[i + image.length] ?? 0);
      const reach = ((block[i] as number) - 1) * (dilations?.[i] ?? 1) + 1;
      return Math.floor((padded - reach) / (strides?.[i] ?? 1)) + 1;
    });
    const product = (sizes: readonly number[]) => sizes.reduce((total, size) => total * size, 1);
    return expectGradients({
      inputs: [{ dims: [2, 3 * product(block), product(columns)] }],
      build: (b, [x]) => b.op("Col2Im", [x as string, b.i64(image), b.i64(block)], attributes),
      precision: "float32",
      shapes: ["static", "batch"],
      ...linear,
    });
  });
});

describe("Compress", () => {
  it.each([
    [0, [1, 0, 1]],
    [1, [0, 1, 1, 0]],
    [-1, [1, 1]],
    [1, [0, 0, 0, 0]],
    [undefined, [0, 1, 1, 0, 0, 0, 1, 0, 0, 1]],
  ])("axis %s, %j", (axis, condition) =>
    expectGradients({
      inputs: [{ dims: [3, 4, 2] }, { dims: [condition.length], type: "bool", values: condition }],
      build: (b, x) => b.op("Compress", x, axis === undefined ? {} : { axis }),
      ...linear,
    }),
  );
});

describe("Inverse (com.microsoft)", () => {
  it.each([[[3, 3]], [[2, 3, 3]]])("of %j", (dims) => {
    const size = dims.at(-1) as number;
    // Far from singular: twice the identity and a little.
    const values = Array.from({ length: dims.reduce((total, dim) => total * dim, 1) }, (_, i) => {
      const [row, column] = [Math.floor(i / size) % size, i % size];
      return (row === column ? 2 : 0) + 0.3 * Math.sin(i + 1);
    });
    return expectGradients({
      inputs: [{ dims, values }],
      build: (b, x) => b.node("Inverse", x, { domain: "com.microsoft" })[0] as string,
    });
  });
});

it("Col2Im refuses sizes that are known only at run time", () =>
  expect(
    expectGradients({
      inputs: [
        { dims: [1, 4, 4] },
        { dims: [2], type: "int64", values: [3, 3] },
        { dims: [2], type: "int64", values: [2, 2] },
      ],
      build: (b, x) => b.op("Col2Im", x),
      precision: "float32",
    }),
  ).rejects.toThrow(/known only at run time|rank is unknown/));
