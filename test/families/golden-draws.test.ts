/** Draws of every family against values computed with 34 digits: a million of each. */
import { describe, expect, test } from "vitest";
import { LEVELS } from "../../src/families/pool.js";
import { Accumulator, goldenFamilies, residualRunner, rowsOf } from "./support.js";

const DRAWS = 1_000_000;
const CHUNK = 100_000;
/** Standard errors. */
const LIMIT = 5;
const LARGEST_DISTANCE = 3e-3;
/** Fast draws take 16 values with equal chances: a step of their distribution function. */
const STEP = 1 / LEVELS;

describe("a million draws", () => {
  const cases = goldenFamilies().flatMap(({ label, ...golden }) => [
    { label, draw: "exact" as const, ...golden },
    { label, draw: "fast" as const, ...golden },
  ]);
  test.each(cases)("$label, $draw", async ({ rows, make, draw }) => {
    const family = make();
    const runner = await residualRunner(family, { draw });
    const step = draw === "fast" ? STEP : 0;
    const points = family.scalar?.points;
    const statistics = rows.map((row) => ({
      row,
      accumulator: new Accumulator(row.bias, Math.sqrt(row.variance)),
      // Where y saturates in float32, only the residual's quantiles tell anything.
      levels: Object.entries(row.residual_quantiles).map(([p, value]) => ({ p: Number(p), value, below: 0 })),
    }));
    const a = rowsOf(
      rows.map((row) => row.a),
      CHUNK,
    );
    for (let chunk = 0; chunk * CHUNK < DRAWS; chunk++) {
      const [residuals] = await runner.run(a, [rows.length, CHUNK], BigInt(chunk));
      for (const [i, { accumulator, levels }] of statistics.entries()) {
        const draws = (residuals as Float32Array).subarray(i * CHUNK, (i + 1) * CHUNK);
        accumulator.add(draws);
        for (const level of levels) level.below += countAtMost(draws, level.value);
      }
    }
    await runner.release();

    for (const { row, accumulator, levels } of statistics) {
      const { mean, variance, meanError, varianceError } = accumulator.sums();
      const where = `a = ${row.a}`;
      if (points && row.variance < 100 / DRAWS) {
        // Fewer than a hundred draws of the rarer point: a bound on the mean is all that there is.
        expect(Math.abs(mean - row.bias), `mean at ${where}`).toBeLessThan(1e-3);
        continue;
      }
      expect(Math.abs(mean - row.bias) / meanError, `mean at ${where}`).toBeLessThan(LIMIT);
      expect(Math.abs(variance - row.variance) / varianceError, `variance at ${where}`).toBeLessThan(LIMIT);
      if (points) continue;
      for (const { p, below } of levels) {
        const distance = Math.abs(below / DRAWS - p);
        expect(distance, `quantile ${p} at ${where}`).toBeLessThan(LARGEST_DISTANCE + step);
        expect((distance - step) / Math.sqrt((p * (1 - p)) / DRAWS), `quantile ${p} at ${where}`).toBeLessThan(LIMIT);
      }
    }
  });
});

function countAtMost(values: Float32Array, limit: number): number {
  let count = 0;
  for (let i = 0; i < values.length; i++) if ((values[i] as number) <= limit) count++;
  return count;
}
