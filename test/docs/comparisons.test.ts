/** docs/comparisons.md shows what tools/bench/compare.mjs measured, and its figures are drawn from the same files. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");
const folder = join(root, "docs/figures");
const load = async (name: string) => (await import(pathToFileURL(join(root, "tools/bench", name)).href)) as unknown;
const { fillTables, comparisonTable } = (await load("compare-tables.mjs")) as {
  fillTables(page: string, folder: string): string;
  comparisonTable(comparison: unknown): string;
};
const { drawFigure } = (await load("compare-figure.mjs")) as { drawFigure(comparison: unknown): string };
const page = readFileSync(join(root, "docs/comparisons.md"), "utf8");
const names = readdirSync(folder)
  .filter((file) => /^compare-.*\.json$/.test(file))
  .map((file) => file.slice("compare-".length, -".json".length));
const read = (name: string) => JSON.parse(readFileSync(join(folder, `compare-${name}.json`), "utf8")) as Comparison;

interface Comparison {
  grid: number[];
  results: {
    best: number;
    trials: { learningRate: number; trainLoss: number | null }[];
    finals: { seed: number; trainLoss: number }[];
  }[];
}

describe.each(names)("the comparison %s", (name) => {
  const comparison = read(name);
  it("is in the page as it was measured", () => {
    expect(page).toContain(comparisonTable(comparison));
    expect(page).toContain(`figures/compare-${name}.svg`);
  });
  it("has a figure of the same numbers", () => {
    expect(readFileSync(join(folder, `compare-${name}.svg`), "utf8")).toBe(drawFigure(comparison));
  });
  it("tried the whole grid for every method and took the best, with the same seeds", () => {
    const seeds = comparison.results[0]?.finals.map(({ seed }) => seed);
    for (const { best, trials, finals } of comparison.results) {
      expect(trials.map(({ learningRate }) => learningRate)).toEqual(comparison.grid);
      const losses = trials.map(({ trainLoss }) => trainLoss ?? Number.POSITIVE_INFINITY);
      expect(best).toBe(comparison.grid[losses.indexOf(Math.min(...losses))]);
      expect(finals.map(({ seed }) => seed)).toEqual(seeds);
    }
  });
});

it("shows every comparison that the page has a place for", () => {
  expect([...page.matchAll(/<!-- table: (\w+) -->/g)].map(([, name]) => name).sort()).toEqual([...names].sort());
  expect(fillTables(page, folder)).toBe(page);
});
