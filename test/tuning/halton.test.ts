import { describe, expect, test } from "vitest";
import { haltonPoint } from "../../src/tuning/halton.js";

/** Warnock's formula for the L2 star discrepancy (T. T. Warnock, 1972). */
function starDiscrepancy(points: readonly (readonly number[])[]): number {
  const n = points.length;
  const d = (points[0] as readonly number[]).length;
  let single = 0;
  let pairs = 0;
  for (const x of points) {
    single += x.reduce((product, value) => product * (1 - value ** 2), 1);
    for (const y of points)
      pairs += x.reduce((product, value, k) => product * (1 - Math.max(value, y[k] as number)), 1);
  }
  return Math.sqrt(3 ** -d - (2 ** (1 - d) / n) * single + pairs / n ** 2);
}

const points = (count: number, dimensions: number, seed?: number) =>
  Array.from({ length: count }, (_, i) => haltonPoint(i, dimensions, seed));

describe("Halton points", () => {
  test("are the radical inverses when nothing is permuted", () => {
    expect(points(6, 2)).toEqual(
      [
        [0, 0],
        [1 / 2, 1 / 3],
        [1 / 4, 2 / 3],
        [3 / 4, 1 / 9],
        [1 / 8, 4 / 9],
        [5 / 8, 7 / 9],
      ].map((point) => point.map((value) => expect.closeTo(value, 14))),
    );
  });

  test.each([undefined, 0, 77])("put one of every b^k neighbours into each of b^k intervals (seed %s)", (seed) => {
    for (const [dimension, base, count] of [
      [0, 2, 64],
      [1, 3, 81],
      [2, 5, 125],
      [5, 13, 169],
    ] as const) {
      for (const start of [0, count]) {
        const hit = new Set(
          Array.from({ length: count }, (_, i) =>
            Math.floor((haltonPoint(start + i, dimension + 1, seed)[dimension] as number) * count + 1e-9),
          ),
        );
        expect([base, hit.size]).toEqual([base, count]);
      }
    }
  });

  test("cover the cube more evenly than random ones, in eight dimensions too", () => {
    const random = Array.from({ length: 20 }, (_, seed) => {
      let state = seed + 1;
      const next = () => {
        state = (state * 48271) % 2147483647;
        return state / 2147483647;
      };
      return starDiscrepancy(Array.from({ length: 64 }, () => Array.from({ length: 8 }, next)));
    }).sort((a, b) => a - b);
    const own = [0, 1, 2].map((seed) => starDiscrepancy(points(64, 8, seed))).sort((a, b) => a - b);
    expect(own[1]).toBeLessThan(random[5] as number);
    // The plain sequence is worse than random there: its coordinates in large bases run in step.
    expect(starDiscrepancy(points(64, 8))).toBeGreaterThan(random[10] as number);
    for (const seed of [0, 1]) expect(starDiscrepancy(points(64, 2, seed))).toBeLessThan(0.02);
  });

  test("depend on the seed and on nothing else, and lie in [0, 1)", () => {
    expect(points(10, 3, 4)).toEqual(points(10, 3, 4));
    expect(points(10, 3, 4)).not.toEqual(points(10, 3, 5));
    // The first coordinates are the same, whatever follows.
    expect(points(10, 2, 4)).toEqual(points(10, 3, 4).map((point) => point.slice(0, 2)));
    for (const value of points(60, 20, 9).flat()) expect(value >= 0 && value < 1).toBe(true);
  });
});
