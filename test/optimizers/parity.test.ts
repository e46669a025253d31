/** Twenty steps of the presets against the published code itself: Google's (tools/export/shampoo_parity.py) and Meta's
 * (tools/export/shampoo_meta_parity.py), from the same start with the same gradients. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createOptimizer, type OptimizerOptions, parseOptimizerOptions } from "../../src/optimizers/registry.js";
import { PRESETS, type PresetName } from "../../src/optimizers/shampoo/presets.js";
import { createArrayOptimizer } from "../../src/training/array-optimizer.js";
import { relativeError } from "../support/run.js";

type Values = Record<string, number[]>;
interface Run {
  name: string;
  options: object;
  first: Values;
  last: Values;
}
const fixture = <T>(name: string) =>
  JSON.parse(readFileSync(join(import.meta.dirname, "../fixtures/optimizers", name), "utf8")) as T;

interface Google {
  shapes: Values;
  start: Values;
  gradients: Values[];
  base: object;
  runs: Run[];
}
const google = fixture<Google>("google_shampoo.json");
const meta = fixture<{ base: object; runs: Run[] }>("meta_shampoo.json");
const { shapes, start, gradients } = google;
const names = Object.keys(shapes);

/** ‖way gone − reference's way‖/‖reference's way‖ of each parameter: parameters hardly move in one step. */
async function errors(preset: PresetName, base: object, run: Run): Promise<[where: string, error: number][]> {
  const options = { name: "shampoo", preset, ...base, ...run.options } as OptimizerOptions;
  const optimizer = await createArrayOptimizer(
    options,
    names.map((name) => ({ name, dims: shapes[name] as number[], data: start[name] as number[] })),
    { threads: 1 },
  );
  const found: [string, number][] = [];
  for (const [i, gradient] of gradients.entries()) {
    await optimizer.step(gradient);
    const expected = i === 0 ? run.first : i === gradients.length - 1 ? run.last : undefined;
    for (const name of expected ? names : []) {
      const moved = (values: ArrayLike<number>) =>
        Array.from(values, (x, k) => x - ((start[name] as number[])[k] as number));
      const error = relativeError(
        moved(optimizer.parameters.get(name) as Float32Array),
        moved((expected as Values)[name] as number[]),
      );
      found.push([`${name}, step ${i + 1}`, error]);
    }
  }
  await optimizer.release();
  return found;
}

describe.each([
  ["google", google],
  ["meta", meta],
] as const)("the preset %s steps as the published code does", (preset, { base, runs }) => {
  it.each(runs.map((run) => [run.name, run] as const))("%s", async (_, run) => {
    const found = await errors(preset, base, run);
    expect(found.filter(([, error]) => !(error < 1e-4))).toEqual([]);
    expect(found).toHaveLength(2 * names.length);
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
