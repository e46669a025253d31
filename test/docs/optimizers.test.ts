/** docs/optimizers.md says what the schemas do. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { OPTIMIZER_NAMES } from "../../src/optimizers/registry.js";
import { optimizersPage } from "../../tools/docs/options.js";

const page = optimizersPage();
const rows = page.split("\n").filter((line) => line.startsWith("| `"));

it("docs/optimizers.md is what tools/docs/options.mjs would write", () => {
  const written = readFileSync(join(import.meta.dirname, "../../docs/optimizers.md"), "utf8");
  expect(written, "run 'node tools/docs/options.mjs'").toBe(page);
});

it("every option says what it means and what it takes, every optimizer its formula", () => {
  const presets = page.indexOf("### Presets");
  const cells = page
    .slice(0, presets)
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split(/(?<!\\)\|/).map((cell) => cell.trim()));
  expect(cells.length).toBeGreaterThan(60);
  const bare = cells.filter(([, , , allowed, meaning]) => !allowed || !meaning).map(([, name]) => name);
  expect(bare).toEqual([]);
  for (const name of OPTIMIZER_NAMES) expect(page).toContain(`\`${name}\``);
});

it("shows ranges, defaults and nested options", () => {
  const row = (name: string) => rows.find((line) => line.startsWith(`| \`${name}\` |`));
  expect(row("beta1")).toMatch(/^\| `beta1` \| 0.9 \| a number in \[0, 1\) \|/);
  expect(row("root.tolerance")).toMatch(/\| 1e−6 \| a number in \[1e-14, 0.1\] \|/);
  expect(row("groups[].frozen")).toMatch(/\| false \| `true`, `false` \|/);
  expect(row("startStep")).toMatch(/an integer of at least 1 or infinity/);
});
