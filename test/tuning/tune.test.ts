/** Searches from end to end, through the command line: trials are runs, and a search can be stopped at any point. */
import { type ChildProcess, spawn } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readMetrics } from "../../src/training/metrics.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { readResults, type TrialResult } from "../../src/tuning/study.js";
import { fishy } from "../support/cli.js";
import { writeExamples } from "../support/npy.js";
import { GRAPHS } from "../support/shared.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-tune-"));
const path = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const base = `
model: ${join(GRAPHS, "pytorch/mlp_tanh/model.onnx")}
rewrite: { loss: softmax-cross-entropy }
data: [x=x.npy, labels.npy]
heldOut: 0.25
batchSize: 16
threads: 1
steps: 9
optimizer: adam
`;

beforeAll(() => {
  writeExamples(folder);
});

function config(name: string, text: string): string {
  writeFileSync(path(name), base + text);
  return path(name);
}

/** The results without what takes a different time on every run. */
const lasting = (results: readonly TrialResult[]) =>
  results.map(({ seconds: _, ...result }) => result).sort((a, b) => a.trial - b.trial || a.rung - b.rung);

describe("fishy tune", () => {
  const search = `
search:
  optimizer.learningRate: { logUniform: [1e-3, 1e-1] }
  batchSize: { choice: [8, 16] }
tune: { trials: 3, jobs: 2 }
`;

  it("trains every trial as a normal run, ranks them, and draws them", async () => {
    const result = await fishy("tune", config("plain.yaml", search), "--out", path("plain"), "--json");
    expect(result.stderr).toMatch(/3 trials, 2 at a time .* judged by the held-out loss/);
    expect(result.code).toBe(0);
    const printed = JSON.parse(result.stdout);
    expect(printed).toMatchObject({ outcome: "completed", trials: 3, failed: 0 });
    const results = readResults(path("plain/results.jsonl"));
    expect(results.map((trial) => trial.trial).sort()).toEqual([0, 1, 2]);
    for (const { trial, values, value, directory } of results) {
      const run = new RunDirectory(join(path("plain"), directory));
      const { optimizer, batchSize } = run.readOptions().run as {
        optimizer: { learningRate: number };
        batchSize: number;
      };
      expect({ "optimizer.learningRate": optimizer.learningRate, batchSize }).toEqual(values);
      expect(run.readResult()?.heldOut?.loss).toBe(value);
      expect(result.stderr).toContain(
        `trial ${trial} · learningRate ${optimizer.learningRate} · batchSize ${batchSize}`,
      );
    }
    const losses = results.map(({ value }) => value as number);
    expect(printed.best.value).toBe(Math.min(...losses));
    // The same run from the command line.
    const { values, value } = results[0] as TrialResult;
    const flags = ["--lr", String(values["optimizer.learningRate"]), "--batch-size", String(values.batchSize)];
    writeFileSync(path("run.yaml"), base);
    const alone = await fishy("train", "--config", path("run.yaml"), ...flags, "--out", path("alone"), "-q", "--json");
    expect(JSON.parse(alone.stdout).heldOut.loss).toBe(value);

    const page = readFileSync(printed.page, "utf8");
    expect(page).not.toMatch(/<(script|link|img|iframe)[^>]*(src|href)=(?!"data:)/i);
    expect(page.match(/<svg /g)).toHaveLength(2);
    expect(page.match(/<circle class="best"/g)).toHaveLength(2);
    expect(page.match(/<circle class="dot"/g)).toHaveLength(4);
  });

  it("goes on with more trials, and not with another space", async () => {
    const before = readResults(path("plain/results.jsonl"));
    // A line that a kill cut off, and the lock of a process that is gone.
    appendFileSync(path("plain/results.jsonl"), '{"trial":3,"ru');
    writeFileSync(path("plain/run.lock"), JSON.stringify({ pid: 999999999, started: null }));
    const more = await fishy("tune", path("plain.yaml"), "--out", path("plain"), "--trials", "4", "-q");
    expect(more.stderr).toBe("");
    const after = readResults(path("plain/results.jsonl"));
    expect(after.slice(0, 3)).toEqual(before);
    expect(after.map((result) => result.trial).slice(3)).toEqual([3]);
    expect(more.stdout).toMatch(/Best: trial \d, in .*plain/);
    expect(existsSync(path("plain/run.lock"))).toBe(false);

    const other = config("other.yaml", search.replace("1e-1", "1"));
    const refused = await fishy("tune", other, "--out", path("plain"), "-q");
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/holds a search with other options. They differ in search: .*0\.1.*, now .*1\]/);
    expect(readResults(path("plain/results.jsonl"))).toEqual(after);
  });

  it("halving takes the best on, from where they paused", async () => {
    const halving = `
search: { optimizer.learningRate: { logUniform: [1e-3, 1e-1] } }
tune: { trials: 3, jobs: 1, algorithm: halving, minSteps: 3, metric: accuracy, of: training }
`;
    const result = await fishy("tune", config("halving.yaml", halving), "--out", path("halving"));
    expect(result.stderr).toMatch(/compared after 3, 9 steps · judged by the training accuracy/);
    const results = readResults(path("halving/results.jsonl"));
    expect(results.map(({ trial, rung, steps, outcome }) => [trial, rung, steps, outcome])).toEqual([
      [0, 0, 3, "paused"],
      [1, 0, 3, "paused"],
      [2, 0, 3, "paused"],
      [expect.any(Number), 1, 9, "completed"],
    ]);
    const [chosen] = results.slice(0, 3).sort((a, b) => (b.value as number) - (a.value as number) || a.trial - b.trial);
    expect(results[3]?.trial).toBe(chosen?.trial);
    // Going on is the run that never paused.
    const rate = String(results[3]?.values["optimizer.learningRate"]);
    writeFileSync(path("run.yaml"), base);
    await fishy("train", "--config", path("run.yaml"), "--lr", rate, "--out", path("straight"), "-q");
    const losses = (run: string) => readMetrics(join(run, "metrics.jsonl")).map(({ loss }) => loss);
    expect(losses(join(path("halving"), results[3]?.directory as string))).toEqual(losses(path("straight")));
  });

  it("records what fails, and goes on", async () => {
    const failing = `
search: { batchSize: { choice: [16, 4000] } }
tune: { trials: 4, jobs: 1, seed: 1 }
`;
    const result = await fishy("tune", config("failing.yaml", failing), "--out", path("failing"));
    const results = readResults(path("failing/results.jsonl"));
    expect(results.filter(({ values }) => values.batchSize === 4000)).toMatchObject([
      { outcome: "failed", value: null, error: expect.stringMatching(/batch/) },
      { outcome: "failed", value: null },
    ]);
    expect(result.code).toBe(0);
    expect(result.stdout).toMatch(/failed/);
    expect(readFileSync(path("failing/report.html"), "utf8").match(/<path class="failed"/g)).toHaveLength(2);
  });

  it.each([
    ["no search", "", /searches nothing: give 'search'/],
    ["a name that is no option", "search: { optimizer.learningRat: { uniform: [1, 2] } }", /learningRat/],
    ["a value that is out of range", "search: { optimizer.beta2: { uniform: [0.9, 1.5] } }", /beta2.*1\.5/],
    ["a range the wrong way round", "search: { seed: { integer: [5, 1] } }", /seed.*lowest first|seed.*A below B/],
    ["halving over steps", "search: { steps: { integer: [5, 9] } }\ntune: { algorithm: halving }", /the same for all/],
    [
      "what is halving's, without it",
      "search: { seed: { integer: [1, 5] } }\ntune: { minSteps: 3 }",
      /minSteps is for succ/,
    ],
    ["tune that is no list of options", "search: { seed: { integer: [1, 5] } }\ntune: 5", /must be options.*got 5/],
    ["an option of tune", "search: { seed: { integer: [1, 5] } }\ntune: { trial: 3 }", /trial.*Known options: trials/],
  ])("refuses %s before anything runs", async (name, text, message) => {
    const out = path(`refused-${name.replaceAll(" ", "-")}`);
    const { code, stderr } = await fishy("tune", config("refused.yaml", text), "--out", out);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
    expect(existsSync(out)).toBe(false);
  });

  it("refuses a folder whose options are damaged", async () => {
    mkdirSync(path("damaged"));
    writeFileSync(path("damaged/tune.json"), "{");
    const text = "search: { seed: { integer: [1, 5] } }";
    const { code, stderr } = await fishy("tune", config("damaged.yaml", text), "--out", path("damaged"));
    expect(code).toBe(1);
    expect(stderr).toMatch(/tune\.json cannot be read: .*Take another folder/);
  });

  it("ends when the first trials show that the set-up is wrong", async () => {
    const text = "search: { seed: { integer: [0, 99] } }\ntune: { trials: 5, jobs: 1 }";
    const file = config("missing.yaml", text);
    writeFileSync(file, readFileSync(file, "utf8").replace("labels.npy", "missing.npy"));
    const { code, stderr } = await fishy("tune", file, "--out", path("missing"), "-q");
    expect(code).toBe(1);
    expect(stderr).toMatch(/missing\.npy/);
    expect(readResults(path("missing/results.jsonl"))).toEqual([]);
  });
});

describe("a search that is stopped", () => {
  const register = pathToFileURL(join(import.meta.dirname, "../support/register-typescript.mjs")).href;
  const main = join(import.meta.dirname, "../../src/cli/main.ts");
  const file = "stopped.yaml";
  const text = `
steps: 60
search: { optimizer.learningRate: { logUniform: [1e-3, 1e-1] } }
tune: { trials: 4, jobs: 2 }
`;

  const start = (out: string): ChildProcess =>
    spawn(process.execPath, ["--import", register, main, "tune", path(file), "--out", out, "-q"], { stdio: "ignore" });
  const untilSteps = async (out: string, count: number) => {
    const metrics = join(out, "trials/0001/metrics.jsonl");
    const end = Date.now() + 60_000;
    while (readMetrics(metrics).length < count) {
      if (Date.now() > end) throw new Error("the search does not begin");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  const ended = (child: ChildProcess) =>
    new Promise((resolve) => child.on("exit", (code, signal) => resolve(signal ?? code)));

  let straight: TrialResult[];
  beforeAll(async () => {
    writeFileSync(path(file), base.replace("steps: 9\n", "") + text);
    expect((await fishy("tune", path(file), "--out", path("unstopped"), "-q")).stderr).toBe("");
    straight = readResults(path("unstopped/results.jsonl"));
  });

  it.each(["SIGINT", "SIGKILL"] as const)("by %s has the results of one that was not", async (signal) => {
    const out = path(`stopped-${signal}`);
    const child = start(out);
    const exit = ended(child);
    await untilSteps(out, 1);
    child.kill(signal);
    expect(await exit).toBe(signal === "SIGINT" ? 130 : "SIGKILL");
    expect(readResults(join(out, "results.jsonl")).length).toBeLessThan(4);
    const again = await fishy("tune", path(file), "--out", out, "-q");
    expect(again.stderr).toBe("");
    expect(lasting(readResults(join(out, "results.jsonl")))).toEqual(lasting(straight));
  });

  it("is not gone on with while it runs", async () => {
    writeFileSync(path("lock.yaml"), base + text.replace("steps: 60\n", ""));
    const out = path("locked");
    // The lock of another living process.
    await fishy("tune", path("lock.yaml"), "--out", out, "--trials", "1", "-q");
    writeFileSync(join(out, "run.lock"), JSON.stringify({ pid: process.ppid, started: null }));
    const { code, stderr } = await fishy("tune", path("lock.yaml"), "--out", out, "--trials", "1", "-q");
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`process ${process.ppid} trains in .*locked`));
  });
});
