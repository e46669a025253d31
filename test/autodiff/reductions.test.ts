import { describe, it } from "vitest";
import { expectGradients } from "../support/gradient-check.js";

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
