/** `fishy train --resume` from the command line: what may change, what is refused, and how a run is found. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listCheckpoints } from "../../src/training/checkpoint.js";
import { fishy } from "../support/cli.js";
import { writeExamples } from "../support/npy.js";
import { GRAPHS } from "../support/shared.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-resume-"));
const run = join(folder, "runs", "one");
const MODEL = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
const start = [
  ...["train", MODEL, "--loss", "softmax-cross-entropy", "--data", `x=${join(folder, "x.npy")}`],
  ...[join(folder, "labels.npy"), "--optimizer", "adam", "--lr", "0.01", "--batch-size", "16"],
];
const home = process.cwd();

beforeAll(async () => {
  writeExamples(folder);
  const trained = await fishy(...start, "--steps", "6", "--checkpoint-every", "2", "--out", run, "--quiet");
  expect(trained.stderr).toBe("");
  process.chdir(folder);
});
afterAll(() => {
  process.chdir(home);
  rmSync(folder, { recursive: true, force: true });
});

describe("--resume", () => {
  it("takes the newest run, and the command line that it was started with", async () => {
    for (const argv of [
      ["train", "--resume"],
      ["train", "--resume", "latest"],
      [...start, "--steps", "6", "--resume"],
    ]) {
      const again = await fishy(...argv, "--quiet", "--json");
      expect(again.stderr).toBe("");
      expect(JSON.parse(again.stdout)).toMatchObject({ steps: 6, directory: join("runs", "one") });
    }
  });

  it("shows what differs and refuses, or goes on when told to", async () => {
    const longer = ["train", "--resume", run, "--steps", "9", "--lr", "0.02", "--quiet", "--json"];
    const refused = await fishy(...longer);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(
      /differ in optimizer\.learningRate: 0\.01, now 0\.02; totalSteps: 6, now 9\. .*--accept-changes/,
    );
    // From a checkpoint, under the changed options.
    const accepted = await fishy(...longer, "--accept-changes", "--resume", join(run, "checkpoint-4"));
    expect(accepted.stderr).toBe("");
    expect(JSON.parse(accepted.stdout).steps).toBe(9);
    expect(listCheckpoints(run).map((path) => path.slice(run.length + 1))).toEqual([
      "checkpoint-6",
      "checkpoint-8",
      "checkpoint-9",
    ]);
    // They are the run's own now.
    expect((await fishy("train", "--resume", run, "--quiet")).code).toBe(0);
  });

  it("refuses another model or program, and a folder without a run", async () => {
    const other = await fishy("train", join(GRAPHS, "pytorch/cnn/model.onnx"), "--resume", run);
    expect(other).toMatchObject({ code: 2, stderr: expect.stringMatching(/trains .*mlp_tanh.*, not .*cnn/) });
    const elsewhere = await fishy("train", "--resume", run, "--out", join(folder, "elsewhere"));
    expect(elsewhere).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/goes on in .*, not in --out .*elsewhere/),
    });
    const sections = await fishy("train", "--resume", run, "--sections", "output");
    expect(sections).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/has a training program already.*sections/),
    });
    expect(await fishy("train", "--resume", folder)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/holds no run/),
    });
  });
});
