/** `fishy report` on real runs, its page in a real browser. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM, ink, launch, openPage, overflow } from "../support/browser.js";
import { fishy } from "../support/cli.js";
import { writeExamples } from "../support/npy.js";
import { GRAPHS } from "../support/shared.js";
import { temporaryFolder } from "../training/support.js";

const folder = temporaryFolder();
const path = (name: string) => join(folder, name);
const MODEL = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
const page = path("out/report.html");

beforeAll(async () => {
  writeExamples(folder);
  const common = [MODEL, "--loss", "softmax-cross-entropy", "--data", `x=${path("x.npy")}`, path("labels.npy")];
  const run = (name: string, ...flags: string[]) =>
    fishy("train", ...common, "--batch-size", "16", "--held-out", "0.25", "--out", path(name), "--quiet", ...flags);
  const trained = [
    await run("runs/adam", "--optimizer", "adam", "--steps", "12"),
    await run(
      "runs/fishy",
      "--optimizer",
      "fishy",
      "--steps",
      "8",
      "-O",
      "diagnostics=true",
      "startStep=2",
      "rootInterval=2",
    ),
  ];
  for (const { stderr } of trained) expect(stderr).toBe("");
});

describe("fishy report", () => {
  it("writes one page of a folder of runs, and sums it up as JSON", async () => {
    const { code, stdout, stderr } = await fishy("report", path("runs"), "-o", page, "--json");
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const summary = JSON.parse(stdout);
    expect(summary.output).toBe(page);
    expect(summary.runs.map((run: { name: string }) => run.name)).toEqual(["adam", "fishy"]);
    expect(summary.runs[1]).toMatchObject({ optimizer: "fishy", steps: 8, outcome: "completed" });
    expect(summary.runs[1].heldOutLoss).toBeGreaterThan(0);
    expect(summary.differing).toMatchObject({ "optimizer.name": ["adam", "fishy"], steps: ["12", "8"] });
    expect(existsSync(page)).toBe(true);
  });

  it("takes names, and puts the page of one run into its folder", async () => {
    const { stdout } = await fishy("report", `ours=${path("runs/fishy")}`);
    const file = path("runs/fishy/report.html");
    expect(stdout).toBe(`Wrote ${file}\n`);
    const data = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(readFileSync(file, "utf8"))?.[1];
    const [run] = JSON.parse(data as string).runs;
    expect(run.name).toBe("ours");
    // The sections in the order of the network, each with what its roots and gradients were.
    const sections = Object.keys(run.sectionDiagnostics["Residual of the roots"]);
    expect(sections).toHaveLength(3);
    const cosines = run.sectionDiagnostics["Cosine of the sampled and the true gradient"];
    expect(Object.keys(cosines)).toEqual(sections);
    for (const { value } of Object.values<{ value: number[] }>(cosines)) {
      expect(value.every((cosine) => Math.abs(cosine) <= 1)).toBe(true);
      expect(new Set(value).size).toBeGreaterThan(1);
    }
    for (const { step, value } of Object.values<{ step: number[]; value: number[] }>(
      run.sectionDiagnostics["Condition number"],
    )) {
      expect(step.every((at) => at % 2 === 0)).toBe(true);
      expect(value.every((condition) => condition >= 1)).toBe(true);
    }
  });

  it("of a folder of runs leaves out those that have not begun", async () => {
    mkdirSync(path("runs/failed"));
    writeFileSync(path("runs/failed/options.json"), readFileSync(path("runs/adam/options.json")));
    try {
      expect((await fishy("report", path("runs"), "-o", path("some.html"))).code).toBe(0);
      const alone = await fishy("report", path("runs/failed"), "-o", path("none.html"));
      expect(alone).toMatchObject({ code: 1, stderr: expect.stringMatching(/failed has no steps yet/) });
    } finally {
      rmSync(path("runs/failed"), { recursive: true });
    }
  });

  it.each([
    [["nowhere"], /There is no folder nowhere/],
    [["package.json/run"], /There is no folder package.json\/run/],
    [[folder], /holds no run/],
  ])("refuses %j", async (references, message) => {
    const { code, stderr } = await fishy("report", ...references);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
  });

  it("without runs is a wrong usage", async () => {
    expect((await fishy("report")).code).toBe(2);
  });
});

describe.skipIf(!CHROMIUM)("the page in Chromium", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launch();
    await fishy("report", path("runs"), "-o", page);
  });
  afterAll(() => browser?.close());

  it("draws curves, without an error and without a request", async () => {
    const { page: open, errors, requests } = await openPage(browser, page);
    expect(await ink(open, "#loss canvas")).toBeGreaterThan(2000);
    expect(await ink(open, "#rate canvas")).toBeGreaterThan(1000);
    expect(await open.locator("#loss .u-legend .u-series").count()).toBe(5);
    // Opening the sections draws a chart for each metric, with a line for each section.
    await open.locator("#sections summary").click();
    const charts = open.locator("#sections .chart");
    await charts.first().waitFor();
    expect(await charts.count()).toBeGreaterThanOrEqual(4);
    expect(await charts.first().locator(".u-legend .u-series").count()).toBe(4);
    expect(await ink(open, "#sections .chart >> nth=0 >> canvas")).toBeGreaterThan(1000);
    await open.locator("#diagnostics summary").click();
    await open.locator("#diagnostics .chart").first().waitFor();
    expect(await open.locator("#diagnostics .chart canvas").count()).toBeGreaterThan(3);
    expect(errors).toEqual([]);
    expect(requests).toEqual([]);
    await open.context().close();
  });

  it("shows the values under the pointer, and other axes on request", async () => {
    const { page: open, errors } = await openPage(browser, page);
    const legend = open.locator("#loss .u-legend");
    const values = () => legend.locator(".u-value").allInnerTexts();
    await open.locator("#loss .u-over").hover({ position: { x: 200, y: 100 } });
    const atSteps = await values();
    expect(atSteps.slice(0, 3).every((text) => /^[\d.]+(e[-+]\d+)?$/.test(text))).toBe(true);
    expect(Number.isInteger(Number(atSteps[0]))).toBe(true);
    await open.locator(".controls span", { hasText: "Time" }).click();
    expect(await legend.locator(".u-label").first().innerText()).toBe("Time");
    await open.locator("#loss .u-over").hover({ position: { x: 200, y: 100 } });
    expect((await values())[0]).toMatch(/ (ms|s|min)$/);
    await open.locator(".controls span", { hasText: "Examples" }).click();
    await open.locator("#loss .u-over").hover({ position: { x: 200, y: 100 } });
    expect(Number((await values())[0]) % 16).toBe(0);
    expect(errors).toEqual([]);
    await open.context().close();
  });

  it.each([
    [390, false],
    [390, true],
    [1200, true],
  ])("fits a window of %i pixels, dark: %s", async (width, dark) => {
    const { page: open, errors } = await openPage(browser, page, { width, dark });
    for (const id of ["sections", "diagnostics", "own-section", "same-section"]) {
      await open.locator(`#${id} > summary`).click();
    }
    for (const id of ["sections", "diagnostics"]) await open.locator(`#${id} canvas`).first().waitFor();
    expect(await overflow(open)).toBeLessThanOrEqual(0);
    const background = await open.evaluate("getComputedStyle(document.body).backgroundColor");
    expect(background).toBe(dark ? "rgb(20, 23, 26)" : "rgb(255, 255, 255)");
    expect(errors).toEqual([]);
    await open.context().close();
  });
});
