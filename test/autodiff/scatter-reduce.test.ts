import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expectGradients, gradientsOf } from "../support/gradient-check.js";

describe.each(["mul", "max", "min"])("ScatterElements, reduction %s", (reduction) => {
  it("anywhere", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 3 }),
        fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 3, maxLength: 3 }),
        fc.nat(2),
        fc.boolean(),
        fc.infiniteStream(fc.nat(100)),
        async (dims, extents, nth, isNegative, numbers) => {
          const next = () => numbers.next().value as number;
          const axis = nth % dims.length;
          // Indices may be fewer than the data along every axis, and more along their own.
          const shape = dims.map((dim, i) =>
            i === axis ? (extents[i] as number) : Math.min(dim, extents[i] as number),
          );
          const count = shape.reduce((product, dim) => product * dim, 1);
          const size = dims[axis] as number;
          const indices = Array.from({ length: count }, () => (next() % (2 * size)) - size);
          // Distinct values, so that no step of the stencil makes or breaks a tie.
          const total = dims.reduce((product, dim) => product * dim, 1) + count;
          const values = Array.from({ length: total }, (_, i) => ({ value: (i + 1) / total, key: next() }))
            .sort((a, b) => a.key - b.key)
            .map(({ value }, i) => (i % 2 ? value : -value));
          await expectGradients({
            inputs: [
              { dims, values: values.slice(0, total - count) },
              { dims: shape, type: "int64", values: indices },
              { dims: shape, values: values.slice(total - count) },
            ],
            build: (b, x) => b.op("ScatterElements", x, { axis: isNegative ? axis - dims.length : axis, reduction }),
            shapes: ["static", "symbolic"],
            tolerance: 1e-6,
          });
        },
      ),
      { numRuns: 25, seed: 5 },
    ));
});

// torch.Tensor.scatter_reduce of PyTorch 2.14.
describe("ScatterElements at ties and zeros, as PyTorch", () => {
  it.each([
    ["max", [1, 5, 2], [0, 0, 1, 2, 1], [3, 3, 5, 1, 5], [0, 1 / 3, 1], [0.5, 0.5, 1 / 3, 0, 1 / 3]],
    ["min", [1, 5, 2], [0, 0, 1, 2, 1], [3, 1, 5, 1, 6], [0.5, 0.5, 0], [0, 0.5, 0.5, 1, 0]],
    ["mul", [2, 0, 3, 0], [0, 0, 1, 1, 2, 3], [3, 4, 5, 2, 0, 0], [12, 10, 0, 0], [8, 6, 0, 0, 3, 0]],
  ])("reduction %s", async (reduction, data, indices, updates, ofData, ofUpdates) => {
    const gradients = await gradientsOf({
      inputs: [
        { dims: [data.length], values: data },
        { dims: [indices.length], type: "int64", values: indices },
        { dims: [updates.length], values: updates },
      ],
      build: (b, x) => b.op("ScatterElements", x, { reduction }),
    });
    expect(gradients).toEqual([ofData, ofUpdates]);
  });

  it("refuses ScatterND with them", () =>
    expect(
      expectGradients({
        inputs: [{ dims: [3] }, { dims: [1, 1], type: "int64", values: [1] }, { dims: [1] }],
        build: (b, x) => b.op("ScatterND", x, { reduction: "mul" }),
      }),
    ).rejects.toThrow(/reduction 'mul', which has no gradient; ScatterElements has it/));
});
