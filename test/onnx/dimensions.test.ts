import { describe, expect, it } from "vitest";
import { addDims, broadcastShapes, divide, floorDivide, multiply, subtractDims } from "../../src/onnx/dimensions.js";

describe("arithmetic on dimensions", () => {
  it("multiplies in one order, so that equal products have equal names", () => {
    expect(multiply(["t", 6, "batch", 2])).toBe("12*batch*t");
    expect(multiply(["6*batch", "t"])).toBe(multiply(["t", "batch", 6]));
    expect(multiply([3, 4])).toBe(12);
    expect(multiply(["batch", 0, null])).toBe(0);
    expect(multiply(["batch", null])).toBeNull();
  });

  it("divides where the quotient is whole", () => {
    expect(divide("12*batch*t", "3*t")).toBe("4*batch");
    expect(divide("6*batch", "6*batch")).toBe(1);
    expect(divide("6*batch", 4)).toBeNull();
    expect(divide("batch", "t")).toBeNull();
    expect(divide(null, 2)).toBeNull();
    expect(divide(6, 0)).toBeNull();
  });

  it("gives sums and rounded quotients names of their own, which are factors like any other", () => {
    const rows = floorDivide(addDims("batch", 1023), 1024);
    expect(rows).toBe("(1023 + batch) / 1024");
    expect(addDims(1023, "batch")).toBe(addDims("batch", 1023));
    expect(divide(multiply([rows, 1024]), 1024)).toBe(rows);
    expect(floorDivide(7, 2)).toBe(3);
  });

  it("says nothing of what may be negative", () => {
    expect(addDims("batch", -1)).toBeNull();
    expect(floorDivide("batch", -2)).toBeNull();
    expect(subtractDims("batch", 1)).toBeNull();
    expect(subtractDims("batch", "batch")).toBe(0);
    expect(subtractDims("batch", 0)).toBe("batch");
  });

  it("takes an exporter's own expression for one symbol", () => {
    expect(multiply(["batch + 1", 2])).toBe("2*(batch + 1)");
    expect(divide("2*(batch + 1)", 2)).toBe("batch + 1");
    expect(multiply(["(a) + (b)", 2])).toBe("2*((a) + (b))");
    expect(multiply(["batch + 1", 1])).toBe("batch + 1");
    expect(divide(multiply(["s0 - 1", 1]), "s0 - 1")).toBe(1);
  });

  it("broadcasts: a number wins over a symbol that can only be it or one", () => {
    expect(
      broadcastShapes([
        ["batch", 1, 4],
        [5, 4],
      ]),
    ).toEqual(["batch", 5, 4]);
    expect(broadcastShapes([["batch"], [3]])).toEqual([3]);
    expect(broadcastShapes([["a"], ["b"]])).toEqual([null]);
    expect(broadcastShapes([["a"], [null]])).toEqual([null]);
    expect(broadcastShapes([["a"], undefined])).toBeUndefined();
  });
});
