import { describe, expect, it } from "vitest";
import { expectGradients, gradientsOf } from "../support/gradient-check.js";

const axesCases: (number[] | undefined)[] = [undefined, [0], [1], [-1], [0, 2], [-2, 0], [0, 1, 2]];

describe.each(["ReduceSum", "ReduceMean"])("%s", (op) => {
  for (const keepDims of [true, false]) {
    it.each(axesCases)(`over %j, keepdims ${keepDims}`, (axes) =>
      expectGradients({
        inputs: [{ dims: [2, 3, 4] }],
        build: (b, [x]) => b.reduce(op, x as string, axes, keepDims),
        step: 0.25,
        tolerance: 1e-10,
      }),
    );
  }
  it("over axes that are an input", () =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4] }, { dims: [2], type: "int64", values: [2, 0] }],
      build: (b, [x, axes]) => b.op(op, [x as string, axes as string], { keepdims: 0 }),
      step: 0.25,
      tolerance: 1e-10,
    }));
  it("over no axes", () =>
    expectGradients({
      inputs: [{ dims: [2, 3] }],
      build: (b, [x]) => b.op(op, [x as string, b.i64([])], { noop_with_empty_axes: 1 }),
      step: 0.25,
      tolerance: 1e-10,
    }));
  it("of a scalar", () =>
    expectGradients({
      inputs: [{ dims: [] }],
      build: (b, [x]) => b.op(op, [x as string]),
      step: 0.25,
      tolerance: 1e-10,
    }));
  it("with axes as an attribute, as before opset 18", () =>
    expectGradients({
      inputs: [{ dims: [2, 3] }],
      build: (b, [x]) => b.op("ReduceMean", [x as string], { axes: [-1], keepdims: 0 }),
      step: 0.25,
      tolerance: 1e-10,
      opset: 17,
    }));
});

const others: { op: string; range?: readonly [number, number]; avoid?: readonly number[]; values?: number[] }[] = [
  {
    op: "ReduceMax",
    values: [3, 1, 4, 1.5, 5, 9, 2, 6, 5.3, 5.8, 9.7, 9.3, 2.3, 8, 4.6, 2.6, 4.3, 3.8, 3.2, 7, 9.5, 0, 2.8, 8.4],
  },
  {
    op: "ReduceMin",
    values: [3, 1, 4, 1.5, 5, 9, 2, 6, 5.3, 5.8, 9.7, 9.3, 2.3, 8, 4.6, 2.6, 4.3, 3.8, 3.2, 7, 9.5, 0, 2.8, 8.4],
  },
  { op: "ReduceProd", range: [0.5, 1.5] },
  { op: "ReduceL1", range: [-2, 2], avoid: [0] },
  { op: "ReduceL2" },
  { op: "ReduceSumSquare" },
  { op: "ReduceLogSum", range: [0.5, 2] },
  { op: "ReduceLogSumExp" },
];

describe.each(others)("$op", ({ op, range, avoid, values }) => {
  const float32 = ["ReduceMax", "ReduceMin"].includes(op) ? {} : ({ precision: "float32", tolerance: 1e-3 } as const);
  const input = { dims: [2, 3, 4], ...(range && { range }), ...(avoid && { avoid }), ...(values && { values }) };
  for (const keepDims of [true, false]) {
    it.each(axesCases)(`over %j, keepdims ${keepDims}`, (axes) =>
      expectGradients({
        inputs: [input],
        build: (b, [x]) => b.reduce(op, x as string, axes, keepDims),
        allow: ["ReduceProd"],
        ...float32,
      }),
    );
  }
  it("over axes that are an input", () =>
    expectGradients({
      inputs: [input, { dims: [2], type: "int64", values: [2, 0] }],
      build: (b, [x, axes]) => b.op(op, [x as string, axes as string], { keepdims: 0 }),
      allow: ["ReduceProd"],
      ...float32,
    }));
});

describe("reductions at their kinks", () => {
  it.each([
    ["ReduceMax", [2, 2, 1], [0.5, 0.5, 0]],
    ["ReduceMin", [1, 2, 1], [0.5, 0, 0.5]],
    ["ReduceL1", [0, -1, 2], [0, -1, 1]],
    ["ReduceL2", [0, 0, 0], [0, 0, 0]],
    ["ReduceProd", [0, 2, 3], [6, 0, 0]],
    ["ReduceProd", [0, 0, 3], [0, 0, 0]],
  ])("%s of %j", async (op, values, expected) => {
    const [gradient] = await gradientsOf({
      inputs: [{ dims: [3], values }],
      build: (b, [x]) => b.reduce(op, x as string, undefined, false),
      precision: "float32",
      allow: ["ReduceProd"],
    });
    expect(gradient).toEqual(expected);
  });
});
