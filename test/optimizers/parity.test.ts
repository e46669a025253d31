/** Twenty steps of the preset `google` against Google's own code (tools/export/shampoo_parity.py). */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createOptimizer, type OptimizerOptions, parseOptimizerOptions } from "../../src/optimizers/registry.js";
import { PRESETS } from "../../src/optimizers/shampoo/presets.js";
import { createArrayOptimizer } from "../../src/training/array-optimizer.js";
import { relativeError } from "../support/run.js";

type Values = Record<string, number[]>;
interface Fixture {
  shapes: Values;
  start: Values;
  gradients: Values[];
  base: object;
  runs: { name: string; options: object; first: Values; last: Values }[];
}
const fixture = JSON.parse(
  readFileSync(join(import.meta.dirname, "../fixtures/optimizers/google_shampoo.json"), "utf8"),
) as Fixture;
const names = Object.keys(fixture.shapes);

describe("the preset google", () => {
  it.each(fixture.runs.map((run) => [run.name, run] as const))("steps as Google's code does: %s", async (_, run) => {
    const options = { name: "shampoo", preset: "google", ...fixture.base, ...run.options } as OptimizerOptions;
    const optimizer = await createArrayOptimizer(
      options,
      names.map((name) => ({ name, dims: fixture.shapes[name] as number[], data: fixture.start[name] as number[] })),
    );
    for (const [i, gradient] of fixture.gradients.entries()) {
      await optimizer.step(gradient);
      const expected = i === 0 ? run.first : i === fixture.gradients.length - 1 ? run.last : undefined;
      for (const name of expected ? names : []) {
        // Of the way gone, not of where it ends: the parameters hardly move in one step.
        const moved = (values: ArrayLike<number>) =>
          Array.from(values, (x, k) => x - ((fixture.start[name] as number[])[k] as number));
        const error = relativeError(
          moved(optimizer.parameters.get(name) as Float32Array),
          moved((expected as Values)[name] as number[]),
        );
        expect(error, `${name}, step ${i + 1}`).toBeLessThan(1e-4);
      }
    }
    await optimizer.release();
  });
});

describe("presets", () => {
  it.each(["google", "meta", "paper"] as const)("%s fills in what is not given", (preset) => {
    const parsed = parseOptimizerOptions({ name: "fishy", preset, beta2: 0.5, root: { retries: 1 } });
    const { root, ...rest } = PRESETS[preset] as { root?: object } & Record<string, unknown>;
    expect(parsed).toMatchObject({ ...rest, beta2: 0.5, root: { ...root, retries: 1 } });
    expect(() => createOptimizer({ name: "fishy", preset }, [{ name: "w", dims: [4, 4] }])).not.toThrow();
  });
  it("are named in the error for another", () => {
    const options = { name: "shampoo", preset: "facebook" } as unknown as OptimizerOptions;
    expect(() => createOptimizer(options, [])).toThrow(
      /'preset' of shampoo must be "google", "meta", "paper"; got "face/,
    );
  });
});
