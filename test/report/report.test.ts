import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { collectRuns } from "../../src/report/collect.js";
import { renderReport, writeReport } from "../../src/report/report.js";
import type { StepRecord } from "../../src/training/metrics.js";
import type { StoredOptions } from "../../src/training/run-directory.js";
import { CHROMIUM } from "../support/browser.js";
import { temporaryFolder } from "../training/support.js";

const folder = temporaryFolder();

function writeRun(name: string, optimizer: Record<string, unknown>, records: readonly StepRecord[]): string {
  const directory = join(folder, name);
  mkdirSync(directory, { recursive: true });
  const options = {
    fishy: "test",
    model: "m.onnx",
    rewrite: {},
    run: { optimizer, batchSize: 10, steps: records.length },
  };
  writeFileSync(join(directory, "options.json"), JSON.stringify(options as unknown as StoredOptions));
  writeFileSync(join(directory, "metrics.jsonl"), records.map((record) => `${JSON.stringify(record)}\n`).join(""));
  return directory;
}

function recordsOf(
  count: number,
  scale: number,
  extra: (step: number) => Partial<StepRecord> = () => ({}),
): StepRecord[] {
  return Array.from({ length: count }, (_, i) => ({
    step: i + 1,
    examples: 10 * (i + 1),
    loss: scale / (i + 1),
    learning_rate: 0.1,
    seconds: (i + 1) / 8,
    examples_per_second: 80,
    ...extra(i + 1),
  }));
}

let adam: string;
let fishy: string;
beforeAll(() => {
  adam = writeRun("adam", { name: "adam", learningRate: 0.1 }, recordsOf(6, 4));
  const evaluated = (step: number): Partial<StepRecord> => ({
    ...(step % 2 === 0 && { held_out_loss: 5 / step, held_out_accuracy: step / 10, held_out_perplexity: 8 / step }),
    ...(step === 3 && { diagnostics: { "roots/residual": 1e-9 } }),
  });
  fishy = writeRun(
    "fishy",
    { name: "fishy", learningRate: 0.2, root: { solver: "newton" } },
    recordsOf(4, 3, evaluated),
  );
});

describe("what a report shows", () => {
  test("curves over steps, examples and time, with held-out points and diagnostics", () => {
    const { runs } = collectRuns([adam, { directory: fishy, name: "ours" }]);
    expect(runs.map((run) => run.name)).toEqual(["adam", "ours"]);
    expect(runs[0]?.train.loss).toEqual([4, 2, 1.333333, 1, 0.8, 0.6666667]);
    expect(runs[0]?.train.examples).toEqual([10, 20, 30, 40, 50, 60]);
    expect(runs[0]?.heldOut.loss).toEqual([]);
    expect(runs[1]?.heldOut).toEqual({
      step: [2, 4],
      examples: [20, 40],
      seconds: [0.25, 0.5],
      loss: [2.5, 1.25],
      accuracy: [0.2, 0.4],
      metrics: { Perplexity: [4, 2] },
    });
    expect(runs[1]?.diagnostics["roots/residual"]).toEqual({
      step: [3],
      examples: [30],
      seconds: [0.375],
      value: [1e-9],
    });
    expect(runs[1]?.summary).toMatchObject({
      steps: 4,
      trainLoss: null,
      heldOutLoss: 1.25,
      heldOutAccuracy: 0.4,
      heldOutMetrics: { Perplexity: 2 },
      secondsPerStep: 0.125,
    });
  });

  test("options side by side, those that differ marked", () => {
    const options = new Map(collectRuns([adam, fishy]).options.map((option) => [option.name, option]));
    expect(options.get("optimizer.learningRate")).toEqual({
      name: "optimizer.learningRate",
      values: ["0.1", "0.2"],
      differs: true,
    });
    expect(options.get("optimizer.root.solver")?.values).toEqual([null, "newton"]);
    expect(options.get("batchSize")).toMatchObject({ values: ["10", "10"], differs: false });
  });

  test("long runs are thinned to means", () => {
    const long = writeRun(
      "long",
      { name: "sgd" },
      recordsOf(4000, 1, (step) => ({ loss: step })),
    );
    const { train } = collectRuns([long]).runs[0] as ReturnType<typeof collectRuns>["runs"][number];
    // Groups of three: (1 + 2 + 3) / 3 at step 3, and one left over.
    expect(train.loss).toHaveLength(1334);
    expect(train.loss.slice(0, 2)).toEqual([2, 5]);
    expect(train.step.slice(0, 2)).toEqual([3, 6]);
    expect(train.loss.at(-1)).toBe(4000);
  });

  test("runs of one name are told apart by their folders", () => {
    const a = writeRun("a/run", { name: "sgd" }, recordsOf(1, 1));
    const b = writeRun("b/run", { name: "sgd" }, recordsOf(1, 1));
    expect(collectRuns([a, b]).runs.map((run) => run.name)).toEqual(["a/run", "b/run"]);
    expect(collectRuns([a, a]).runs.map((run) => run.name)).toEqual(["run (1)", "run (2)"]);
  });

  test("folders without a run, or without steps, are refused", () => {
    expect(() => collectRuns([folder])).toThrow(/holds no run/);
    expect(() => collectRuns([writeRun("empty", { name: "sgd" }, [])])).toThrow(/has no steps yet/);
    expect(() => collectRuns([])).toThrow(/at least one run/);
  });
});

describe("the page", () => {
  test("fetches nothing and keeps names from ending its script", () => {
    const html = renderReport(collectRuns([{ directory: adam, name: "</script><script>alert(1)</script>" }, fishy]));
    expect(html).not.toMatch(/<(script|link|img|iframe)[^>]*(src|href)=(?!"data:)/i);
    expect(html).not.toMatch(/@import|url\((?!data:)/i);
    expect(html).not.toContain("<script>alert");
    const json = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(html)?.[1] as string;
    expect(JSON.parse(json).runs[0].name).toBe("</script><script>alert(1)</script>");
  });

  test.skipIf(!CHROMIUM)("draws its charts and tables in a browser", async () => {
    const file = join(folder, "report.html");
    await writeReport([adam, fishy], file);
    const { stdout } = spawnSync(
      CHROMIUM as string,
      ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom", `file://${file}`],
      { encoding: "utf8", timeout: 60_000 },
    );
    // The loss, accuracy, perplexity and learning-rate charts; diagnostics wait to be opened.
    expect(stdout.match(/<canvas/g)).toHaveLength(4);
    expect(stdout).toMatch(/<h2>Held out: Perplexity<\/h2>/);
    expect(stdout).toMatch(/fishy held out/);
    expect(stdout).toMatch(/optimizer\.learningRate<\/td><td class="text">0\.1<\/td><td class="text">0\.2/);
    expect(stdout).toMatch(/<td class="number">40\.00 %/);
    expect(readFileSync(file, "utf8").length).toBeLessThan(200_000);
  });
});
