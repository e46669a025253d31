import fc from "fast-check";
import { describe, it } from "vitest";
import { expectGradients } from "../support/gradient-check.js";

const linear = { step: 0.25, tolerance: 1e-10 } as const;

describe("Reshape and its kin", () => {
  it.each([
    ["Reshape", [2, 3, 4], [4, -1]],
    ["Reshape", [2, 3, 4], [0, 12]],
    ["Reshape", [6], [1, 2, 3, 1]],
    ["Reshape", [1, 1], []],
    ["Reshape", [], [1]],
    ["Unsqueeze", [2, 3], [0, -1]],
    ["Unsqueeze", [], [0]],
    ["Squeeze", [1, 3, 1], [0]],
    ["Squeeze", [1, 3, 1], [-1, 0]],
    ["Expand", [3, 1], [2, 1, 4]],
    ["Expand", [2, 3], [1, 1]],
    ["Expand", [], [2, 2]],
  ])("%s of %j with %j", (op, dims, second) =>
    expectGradients({ inputs: [{ dims }], build: (b, [x]) => b.op(op, [x as string, b.i64(second)]), ...linear }),
  );
  it("Squeeze of every axis of size 1", () =>
    expectGradients({
      inputs: [{ dims: [1, 3, 1] }],
      build: (b, [x]) => b.op("Squeeze", [x as string]),
      shapes: ["static"],
    }));
  it.each([0, 1, 2, 3, -1])("Flatten at axis %d", (axis) =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4] }],
      build: (b, [x]) => b.op("Flatten", [x as string], { axis }),
      ...linear,
    }),
  );
  it("Reshape to a shape that is an input", () =>
    expectGradients({
      inputs: [{ dims: [2, 6] }, { dims: [3], type: "int64", values: [3, 2, 2] }],
      build: (b, [x, shape]) => b.reshape(x as string, shape as string),
      ...linear,
    }));
  it("Reshape of nothing", () =>
    expectGradients({
      inputs: [{ dims: [0, 3] }],
      build: (b, [x]) => b.reshape(x as string, [3, -1]),
      shapes: ["symbolic"],
    }));
});

describe("Transpose", () => {
  it.each([[undefined], [[0, 1, 2]], [[2, 0, 1]], [[1, 2, 0]], [[1, 0, 2]]])("by %j", (perm) =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4] }],
      build: (b, [x]) => b.op("Transpose", [x as string], perm ? { perm } : {}),
      ...linear,
    }),
  );
});

describe("Concat", () => {
  it.each([
    [
      0,
      [
        [2, 3],
        [1, 3],
        [4, 3],
      ],
    ],
    [
      1,
      [
        [2, 3],
        [2, 1],
      ],
    ],
    [
      -1,
      [
        [2, 1, 3],
        [2, 1, 1],
      ],
    ],
    [0, [[2]]],
    [
      1,
      [
        [2, 0],
        [2, 3],
      ],
    ],
  ])("along %d of %j", (axis, shapes) =>
    expectGradients({
      inputs: shapes.map((dims) => ({ dims })),
      build: (b, x) => b.op("Concat", x, { axis }),
      ...linear,
    }),
  );
  it("with one trainable part", () =>
    expectGradients({
      inputs: [{ dims: [2, 3], wrt: false }, { dims: [2, 2] }, { dims: [2, 4], wrt: false }],
      build: (b, x) => b.op("Concat", x, { axis: 1 }),
      ...linear,
    }));
  it("of a value with itself", () =>
    expectGradients({
      inputs: [{ dims: [2, 3] }],
      build: (b, [x]) => b.concat([x as string, x as string], 1),
      ...linear,
    }));
});

describe("Split", () => {
  it("into given sizes", () =>
    expectGradients({
      inputs: [{ dims: [2, 6] }],
      build: (b, [x]) => b.node("Split", [x as string, b.i64([1, 3, 2])], { outputs: 3, attributes: { axis: 1 } }),
      ...linear,
    }));
  it("of which one part is used", () =>
    expectGradients({
      inputs: [{ dims: [2, 6] }],
      build: (b, [x]) =>
        b.node("Split", [x as string], { outputs: 3, attributes: { axis: -1, num_outputs: 3 } })[1] as string,
      ...linear,
    }));
});

describe("Slice", () => {
  it.each([
    { dims: [5], starts: [1], ends: [4] },
    { dims: [5], starts: [-3], ends: [-1] },
    { dims: [5, 4], starts: [2, 1], ends: [4, 100] },
    { dims: [5, 4], starts: [1], ends: [2 ** 31], axes: [1] },
    { dims: [5, 4], starts: [-100], ends: [3], axes: [-2] },
    { dims: [2, 5], starts: [0], ends: [5], axes: [1] },
    { dims: [2, 5], starts: [3], ends: [3], axes: [1] },
  ])("$starts to $ends of $dims, axes $axes", ({ dims, starts, ends, axes }) =>
    expectGradients({
      inputs: [{ dims }],
      build: (b, [x]) => b.op("Slice", [x as string, b.i64(starts), b.i64(ends), ...(axes ? [b.i64(axes)] : [])]),
      ...linear,
    }),
  );
  it.each([
    { dims: [3, 7], starts: [0], ends: [7], axes: [1], steps: [2] },
    { dims: [3, 7], starts: [5], ends: [0], axes: [1], steps: [-2] },
    { dims: [3, 7], starts: [-1], ends: [-100], axes: [1], steps: [-1] },
    { dims: [2, 6, 5], starts: [1, 4], ends: [6, 1], axes: [1, 2], steps: [3, -1] },
    { dims: [2, 6, 5], starts: [1, 1], ends: [6, 3], axes: [1, 2], steps: [2, 1] },
  ])("$starts to $ends of $dims, axes $axes, steps $steps", ({ dims, starts, ends, axes, steps }) =>
    expectGradients({
      inputs: [{ dims }],
      build: (b, [x]) => b.slice(x as string, starts, ends, axes, steps),
      ...linear,
    }),
  );
  it("between bounds that are inputs", () =>
    expectGradients({
      inputs: [
        { dims: [4, 6] },
        { dims: [2], type: "int64", values: [1, -4] },
        { dims: [2], type: "int64", values: [3, 100] },
      ],
      build: (b, [x, starts, ends]) => b.op("Slice", [x as string, starts as string, ends as string, b.i64([0, 1])]),
      ...linear,
    }));
  it("anywhere", () => {
    const bound = fc.integer({ min: -8, max: 8 });
    return fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 6 }),
        bound,
        bound,
        fc.constantFrom(1, 2, 3, -1, -2),
        (size, start, end, step) =>
          expectGradients({
            inputs: [{ dims: [2, size] }],
            build: (b, [x]) => b.slice(x as string, [start], [end], [1], [step]),
            shapes: step === 1 ? ["static", "symbolic"] : ["static"],
            ...linear,
          }),
      ),
      { numRuns: 40, seed: 3 },
    );
  });
});
