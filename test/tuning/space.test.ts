import { describe, expect, test } from "vitest";
import { UsageError } from "../../src/errors.js";
import { corners, type Dimension, parseSpace, placeOf, valueAt, valuesAt, withValues } from "../../src/tuning/space.js";

const at = (dimension: Dimension, ...places: number[]) => places.map((u) => valueAt(dimension, u));

describe("values of an option", () => {
  test("uniform, by the logarithm, and one less such a value", () => {
    expect(at({ uniform: [2, 4] }, 0, 0.25, 1)).toEqual([2, 2.5, 4]);
    expect(at({ logUniform: [1e-4, 1] }, 0, 0.25, 0.5, 1)).toEqual([1e-4, 1e-3, 1e-2, 1]);
    expect(at({ oneMinusLogUniform: [1e-3, 0.1] }, 0, 0.5, 1)).toEqual([0.999, 0.99, 0.9]);
  });

  test("have four digits and stay in their range", () => {
    const narrow = at({ logUniform: [1.23456e-4, 1.23459e-4] }, 0, 0.5, 1);
    expect(narrow).toEqual([1.23456e-4, expect.closeTo(1.234575e-4, 9), 1.23459e-4]);
    expect(at({ uniform: [0, 1] }, 0.123456)).toEqual([0.1235]);
  });

  test("whole numbers have equal shares, both ends included", () => {
    const shares = (dimension: Dimension) => {
      const counts = new Map<unknown, number>();
      for (let i = 0; i < 3000; i++) {
        const value = valueAt(dimension, (i + 0.5) / 3000);
        counts.set(value, (counts.get(value) ?? 0) + 1);
      }
      return Object.fromEntries(counts);
    };
    expect(shares({ integer: [3, 5] })).toEqual({ 3: 1000, 4: 1000, 5: 1000 });
    // log 2, log 3/2 and log 4/3 of log 4.
    expect(shares({ logInteger: [1, 3] })).toEqual({ 1: 1500, 2: 877, 3: 623 });
    expect(shares({ choice: ["a", "b"] })).toEqual({ a: 1500, b: 1500 });
    expect(at({ choice: [1, 2] }, 1)).toEqual([2]);
    expect(at({ integer: [1, 2] }, 1)).toEqual([2]);
  });

  test("lie where they were drawn", () => {
    const ranges: Dimension[] = [{ uniform: [-2, 5] }, { logUniform: [1e-5, 3] }, { oneMinusLogUniform: [1e-3, 0.5] }];
    for (const dimension of ranges) {
      for (const u of [0, 0.3, 0.9, 1]) expect(placeOf(dimension, valueAt(dimension, u))).toBeCloseTo(u, 3);
    }
    expect([2, 3, 4].map((value) => placeOf({ integer: [2, 4] }, value))).toEqual([1 / 6, 1 / 2, 5 / 6]);
    expect(placeOf({ choice: ["a", { name: "b" }] }, { name: "b" })).toBe(0.75);
  });

  test("of a narrow range stay apart", () => {
    const values = [0.1, 0.102, 0.3].map((u) => valueAt({ uniform: [1000, 1000.5] }, u));
    expect(values).toEqual([1000.05, 1000.051, 1000.15]);
    expect(valueAt({ logUniform: [1e-4, 1e-1] }, 0.5)).toBe(0.003162);
  });

  test("the corners hold every end and every choice", () => {
    const space = { a: { uniform: [0, 2] }, b: { choice: ["x", "y", "z"] } } satisfies Record<string, Dimension>;
    expect(corners(space)).toEqual([
      { a: 0, b: "y" },
      { a: 2, b: "y" },
      { a: 1, b: "x" },
      { a: 1, b: "y" },
      { a: 1, b: "z" },
    ]);
    expect(valuesAt(space, [0.5, 0.99])).toEqual({ a: 1, b: "z" });
  });
});

describe("a configuration with values", () => {
  test("nested names are made, whole optimizers come before what is inside of them", () => {
    const config = { optimizer: "adam", steps: 3 };
    const values = { "optimizer.learningRate": 0.1, optimizer: { name: "fishy", rootInterval: 5 }, batchSize: 8 };
    expect(withValues(config, values)).toEqual({
      optimizer: { name: "fishy", rootInterval: 5, learningRate: 0.1 },
      steps: 3,
      batchSize: 8,
    });
    expect(withValues(config, { "optimizer.schedule.warmup": 10 })).toEqual({
      optimizer: { name: "adam", schedule: { warmup: 10 } },
      steps: 3,
    });
    expect(withValues(config, { optimizer: "sgd", "optimizer.momentum": 0.9 }).optimizer).toEqual({
      name: "sgd",
      momentum: 0.9,
    });
    expect(config).toEqual({ optimizer: "adam", steps: 3 });
    expect(() => withValues(config, { "steps.more": 1 })).toThrow(/'steps\.more' lies in 'steps', which is 3/);
  });
});

describe("wrong spaces", () => {
  test.each([
    [{}, /must name at least one option/],
    [{ a: { uniform: [2, 1] } }, /a.*the lowest first|a.*A below B/],
    [{ a: { logUniform: [0, 1] } }, /a.*above 0/],
    [{ a: { integer: [1, 2.5] } }, /a.*/],
    [{ a: { choice: [] } }, /a.*choice/],
    [{ a: { normal: [0, 1] } }, /a.*logUniform/],
    [{ a: 3 }, /a.*logUniform/],
  ])("%j", (space, message) => {
    expect(() => parseSpace(space, "search")).toThrow(UsageError);
    expect(() => parseSpace(space, "search")).toThrow(message);
  });
});
