import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hashWords, permutation, Random, splitMix64 } from "../../src/data/random.js";
import { someRows, splitRows } from "../../src/data/split.js";

const sorted = (values: Iterable<number>) => [...values].sort((a, b) => a - b);

describe("random numbers", () => {
  // The first outputs of Java's SplittableRandom for the seed 1234567, as published with Rosetta Code's task "Pseudo-random numbers/Splitmix64".
  test("SplitMix64 gives its published outputs", () => {
    let state = 1234567n;
    const outputs = Array.from({ length: 5 }, () => {
      const value = splitMix64(state);
      state += 0x9e3779b97f4a7c15n;
      return value;
    });
    expect(outputs).toEqual([
      6457827717110365317n,
      3203168211198807973n,
      9817491932198370423n,
      4593380528125082431n,
      16408922859458223821n,
    ]);
  });

  test("`below` is uniform: χ² of 60,000 draws over 6 values", () => {
    const random = new Random(1n);
    const counts = new Array(6).fill(0);
    for (let i = 0; i < 60_000; i++) counts[random.below(6)]++;
    const chiSquared = counts.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0);
    // 5 degrees of freedom: P(χ² > 25.7) = 1e-4.
    expect(chiSquared).toBeLessThan(25.7);
  });

  test("a hash depends on every word and on their order", () => {
    expect(new Set([hashWords(1, 2), hashWords(2, 1), hashWords(1, 3), hashWords(1), hashWords(1, 2, 0)]).size).toBe(5);
  });
});

describe("permutations", () => {
  test("hold every row once and depend on the whole key", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.nat(), fc.nat(), (length, seed, epoch) => {
        const order = permutation(length, seed, epoch);
        expect(sorted(order)).toEqual(Array.from({ length }, (_, i) => i));
        expect([...permutation(length, seed, epoch)]).toEqual([...order]);
      }),
      { numRuns: 50 },
    );
    expect([...permutation(50, 1, 0)]).not.toEqual([...permutation(50, 1, 1)]);
    expect([...permutation(50, 1, 0)]).not.toEqual([...permutation(50, 2, 0)]);
  });

  test("every place is equally likely for the first row", () => {
    const counts = new Array(5).fill(0);
    for (let seed = 0; seed < 5000; seed++) counts[permutation(5, seed).indexOf(0)]++;
    // Standard deviation of a count: √(5000 · 0.2 · 0.8) = 28.3.
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(5 * 28.3);
  });
});

describe("splits", () => {
  test("part the rows, by fraction or number", () => {
    const { train, heldOut } = splitRows(10, 0.3);
    expect(heldOut.length).toBe(3);
    expect(sorted([...train, ...heldOut])).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect([...train]).toEqual(sorted(train));
    expect(splitRows(10, 4).heldOut.length).toBe(4);
    expect(splitRows(10, 0).train.length).toBe(10);
    expect([...splitRows(100, 30, 1).heldOut]).not.toEqual([...splitRows(100, 30, 2).heldOut]);
  });

  test("some rows of many are spread over all of them, and always the same", () => {
    const rows = Uint32Array.from({ length: 1000 }, (_, i) => 2 * i);
    const some = someRows(rows, 100);
    expect(some).toEqual(someRows(rows, 100));
    expect(new Set(some).size).toBe(100);
    expect([...some]).toEqual(sorted(some));
    expect(some.every((row) => row % 2 === 0)).toBe(true);
    // About half lies in the upper half: 50 ± 5 standard deviations of 4.7.
    expect(Math.abs(some.filter((row) => row >= 1000).length - 50)).toBeLessThan(24);
    expect(someRows(rows, 1000)).toBe(rows);
  });

  test("nothing left to train on, or no number, is refused", () => {
    expect(() => splitRows(10, 10)).toThrow(/leaves none to train on/);
    expect(() => splitRows(10, 1.5)).toThrow(/fraction from 0 to 1 or a number of examples/);
    expect(() => splitRows(10, -1)).toThrow(/held-out part is -1/);
  });
});
