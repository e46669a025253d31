/** docs/operators.md says what the code does. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { caseName, operatorName } from "../../tools/docs/case.js";
import { CATALOGUE } from "../../tools/docs/catalogue.js";
import { convertedOperators, operatorsPage, operatorsWithGradient } from "../../tools/docs/table.js";
import { readResults } from "../../tools/webgpu/results.js";

it("has a case for every rule and every lowering", () => {
  const covered = new Set(CATALOGUE.map(({ operator, domain }) => operatorName(operator, domain)));
  const bare = operatorsWithGradient().filter((operator) => !covered.has(operator));
  expect(bare, "operators that lack a case in tools/docs/catalogue.ts").toEqual([]);
});

it("has no case for what has no gradient", () => {
  const treated = new Set([...operatorsWithGradient(), ...convertedOperators()]);
  const names = CATALOGUE.map(({ operator, domain }) => operatorName(operator, domain));
  expect(names.filter((name) => !treated.has(name))).toEqual([]);
});

it("names every case once", () => {
  const names = CATALOGUE.map(caseName);
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
});

it("keeps no measurements of cases that are gone", () => {
  const names = new Set(CATALOGUE.map(caseName));
  expect(Object.keys(readResults().cases).filter((name) => !names.has(name))).toEqual([]);
});

it("docs/operators.md is what tools/docs/operators.mjs would write", async () => {
  const written = readFileSync(join(import.meta.dirname, "../../docs/operators.md"), "utf8");
  expect(written, "run 'node tools/docs/operators.mjs'").toBe(await operatorsPage());
});
