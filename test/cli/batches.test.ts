/** `fishy train` with several batches a step, statistics on others, a share of the batch, and averages: from flags and files. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { encodeSafetensors } from "../../src/data/safetensors.js";
import { fishy } from "../support/cli.js";
import { GRAPHS, loadGolden } from "../support/shared.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-batches-"));
const path = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const MODEL = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
const { golden } = loadGolden("mlp_tanh");

beforeAll(() => {
  const columns = new Map(
    ["input/x", "target"].map((name) => [name === "target" ? "labels" : "x", golden.tensors.get(name) as never]),
  );
  writeFileSync(path("golden.safetensors"), encodeSafetensors(columns));
});

const manifestOf = (run: string) => JSON.parse(readFileSync(path(`${run}/options.json`), "utf8"));
const lossesOf = (run: string) =>
  readFileSync(path(`${run}/metrics.jsonl`), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))
    .map(({ step, examples, loss }) => ({ step, examples, loss }));

it("flags and a configuration file say the same", async () => {
  const data = ["--data", path("golden.safetensors"), "--quiet", "--threads", "1"];
  const flags = await fishy(
    ...["train", MODEL, "--loss", "softmax-cross-entropy", ...data, "--optimizer", "fishy", "--out", path("flags")],
    ...["--batch-size", "2", "--accumulate", "2", "--statistics-batch", "4", "--sampled-share", "0.5", "--steps", "4"],
    ...["-O", "averageDecay=0.5", "startStep=2", "rootInterval=2", "--held-out", "2", "--averaged"],
  );
  expect(flags.stderr).toBe("");
  expect(flags.code).toBe(0);
  const { run, rewrite } = manifestOf("flags");
  expect(run).toMatchObject({ accumulation: 2, statisticsBatch: 4, averaged: true });
  expect(rewrite).toMatchObject({ sampledShare: 0.5 });
  writeFileSync(
    path("run.yaml"),
    [
      ...[`model: ${MODEL}`, "data: golden.safetensors", `out: ${path("file")}`, "threads: 1", "averaged: true"],
      ...["batchSize: 2", "accumulation: 2", "statisticsBatch: 4", "steps: 4", "heldOut: 2"],
      "rewrite: { loss: softmax-cross-entropy, sampledShare: 0.5 }",
      "optimizer: { name: fishy, averageDecay: 0.5, startStep: 2, rootInterval: 2 }",
    ].join("\n"),
  );
  expect((await fishy("train", "--config", path("run.yaml"), "--quiet")).code).toBe(0);
  expect(lossesOf("file")).toEqual(lossesOf("flags"));
  expect(lossesOf("flags").map(({ step, examples }) => [step, examples])).toEqual([
    [1, 4],
    [2, 8],
    [3, 12],
    [4, 16],
  ]);
  for (const how of ["--averaged", "--no-averaged"]) {
    const file = path(`${how}.onnx`);
    expect((await fishy("export", path("flags"), "-o", file, how)).code).toBe(0);
    expect(existsSync(file)).toBe(true);
  }
  expect(Buffer.compare(readFileSync(path("--averaged.onnx")), readFileSync(path("flags/model.onnx")))).toBe(0);
  expect(Buffer.compare(readFileSync(path("--averaged.onnx")), readFileSync(path("--no-averaged.onnx")))).not.toBe(0);
});

it("wrong ones are refused with what is allowed", async () => {
  const train = async (...flags: string[]) => {
    const data = ["--data", path("golden.safetensors"), "--out", path("wrong"), "-q"];
    const result = await fishy("train", MODEL, "--loss", "softmax-cross-entropy", ...data, ...flags);
    expect(result.code).toBe(2);
    return result.stderr;
  };
  expect(await train("--optimizer", "adam", "--accumulate", "0")).toContain(
    "Option 'accumulation' of train must be an integer of at least 1; got 0.",
  );
  expect(await train("--optimizer", "adam", "--batch-size", "2", "--statistics-batch", "4")).toContain(
    "adam has no statistics",
  );
  expect(await train("--optimizer", "fishy", "--sampled-share", "2")).toContain("above 0 and at most 1; got 2");
  expect(await train("--optimizer", "fishy", "--batch-size", "2", "--averaged")).toContain("Set its averageDecay");
});
