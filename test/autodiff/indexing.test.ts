import { describe, expect, it } from "vitest";
import { expectGradients, gradientsOf } from "../support/gradient-check.js";

const linear = { step: 0.25, tolerance: 1e-10 } as const;
const indices = (dims: number[], values: number[], type: "int64" | "int32" = "int64") =>
  ({ dims, values, type }) as const;

describe("Gather", () => {
  it.each([
    { data: [5, 3], axis: 0, at: indices([4], [0, 2, 2, 4]) },
    { data: [5, 3], axis: 0, at: indices([2, 3], [0, 2, 2, 4, 0, 1]) },
    { data: [5, 3], axis: 1, at: indices([2], [2, 0]) },
    { data: [2, 4, 3], axis: 1, at: indices([2, 2], [3, 0, 3, 1]) },
    { data: [2, 4, 3], axis: -1, at: indices([2], [-1, 0]) },
    { data: [2, 4, 3], axis: 1, at: indices([], [2]) },
    { data: [4], axis: 0, at: indices([], [-1]) },
    { data: [4, 2], axis: 0, at: indices([3], [1, 1, 0], "int32") },
    { data: [4, 2], axis: 0, at: indices([0], []) },
  ])("of $data along $axis at $at.values", ({ data, axis, at }) =>
    expectGradients({
      inputs: [{ dims: data }, at],
      build: (b, [x, i]) => b.gather(x as string, i as string, axis),
      ...linear,
    }),
  );
  it("adds up every use of an embedding, on every run alike", async () => {
    const count = 20_000;
    const run = () =>
      gradientsOf({
        inputs: [
          { dims: [3, 2] },
          indices(
            [count],
            Array.from({ length: count }, (_, i) => i % 3 && 1),
          ),
        ],
        build: (b, [x, i]) => b.gather(x as string, i as string),
      });
    const [gradient] = await run();
    const once = Math.ceil(count / 3);
    expect(gradient).toEqual([once, once, count - once, count - once, 0, 0]);
    for (let repeat = 0; repeat < 5; repeat++) expect((await run())[0]).toEqual(gradient);
  });
});

describe("GatherElements", () => {
  it.each([0, 1, -1])("along %d", (axis) =>
    expectGradients({
      inputs: [{ dims: [3, 3] }, indices([3, 3], [0, 2, 2, 1, 1, -1, 0, 0, 1])],
      build: (b, [x, i]) => b.op("GatherElements", [x as string, i as string], { axis }),
      ...linear,
    }),
  );
});

describe("GatherND", () => {
  it.each([
    { data: [3, 4], batchDims: 0, at: indices([3, 2], [0, 1, 2, 3, 0, 1]) },
    { data: [3, 4], batchDims: 0, at: indices([2, 1], [2, -1]) },
    { data: [3, 4, 2], batchDims: 0, at: indices([2, 2, 2], [0, -1, 2, 3, 1, 1, 1, 1]) },
    { data: [2, 3, 4], batchDims: 1, at: indices([2, 2, 1], [0, 0, 2, 1]) },
    { data: [2, 3, 4], batchDims: 1, at: indices([2, 2], [0, 3, 2, -1]) },
    { data: [2, 2, 3, 2], batchDims: 2, at: indices([2, 2, 2, 1], [0, 0, 2, 1, 1, 0, -1, 2]) },
  ])("of $data at $at.values, batch_dims $batchDims", ({ data, batchDims, at }) =>
    expectGradients({
      inputs: [{ dims: data }, { ...at, known: true }],
      build: (b, [x, i]) => b.op("GatherND", [x as string, i as string], { batch_dims: batchDims }),
      shapes: ["static", "batch"],
      ...linear,
    }),
  );
});

describe("ScatterElements", () => {
  for (const reduction of ["none", "add"]) {
    it.each([0, 1, -1])(`along %d, reduction ${reduction}`, (axis) =>
      expectGradients({
        inputs: [
          { dims: [3, 4] },
          indices([2, 3], axis === 0 ? [0, 2, 1, 2, 1, 0] : [0, 2, 1, 3, 1, 0]),
          { dims: [2, 3] },
        ],
        build: (b, [x, i, u]) => b.op("ScatterElements", [x, i, u] as string[], { axis, reduction }),
        ...linear,
      }),
    );
  }
  it("adding twice at one place", () =>
    expectGradients({
      inputs: [{ dims: [3] }, indices([3], [1, 1, 0]), { dims: [3] }],
      build: (b, x) => b.op("ScatterElements", x, { reduction: "add" }),
      ...linear,
    }));
});

describe("ScatterND", () => {
  it.each(["none", "add"])("reduction %s", (reduction) =>
    expectGradients({
      inputs: [{ dims: [4, 3] }, indices([2, 1], [3, 1]), { dims: [2, 3] }],
      build: (b, x) => b.op("ScatterND", x, { reduction }),
      ...linear,
    }),
  );
});

describe("TopK", () => {
  it.each([
    [-1, 1],
    [0, 1],
    [1, 0],
  ])("along %d, largest %d", (axis, largest) =>
    expectGradients({
      inputs: [{ dims: [3, 4], values: [3, 1, 4, 1.5, 5, 9, 2, 6, 5.3, 5.8, 9.7, 9.3] }],
      build: (b, [x]) =>
        b.node("TopK", [x as string, b.i64([2])], { outputs: 2, attributes: { axis, largest } })[0] as string,
    }),
  );
});

describe("OneHot", () => {
  it.each([0, 1, -1])("along %d", (axis) =>
    expectGradients({
      inputs: [indices([2, 2], [0, 2, 1, 1]), { dims: [2] }],
      build: (b, [i, values]) => b.op("OneHot", [i as string, b.i64(3), values as string], { axis }),
      precision: "float32",
      step: 0.5,
      allow: ["OneHot"],
    }),
  );
});
