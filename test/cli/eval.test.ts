/** `fishy eval` of runs, models and programs, against PyTorch's loss and the run's own evaluation. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { columnOf, makeDataset } from "../../src/data/dataset.js";
import { encodeSafetensors, type NamedTensor } from "../../src/data/safetensors.js";
import { train } from "../../src/training/train.js";
import { fishy } from "../support/cli.js";
import { GRAPHS, loadGolden } from "../support/shared.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-eval-"));
const path = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const MODEL = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
const { golden } = loadGolden("mlp_tanh");
const LOSS = ["--loss", "softmax-cross-entropy"];

beforeAll(() => {
  const columns = new Map(
    ["input/x", "target"].map((name) => [name === "target" ? "labels" : "x", golden.tensors.get(name) as never]),
  );
  writeFileSync(path("golden.safetensors"), encodeSafetensors(columns));
});

async function evalJson(...argv: string[]) {
  const result = await fishy("eval", ...argv, "--json");
  expect(result.stderr).toBe("");
  return JSON.parse(result.stdout);
}

describe("fishy eval", () => {
  it("gives PyTorch's loss for a model and for its program", async () => {
    const expected = golden.tensors.get("loss")?.data[0] as number;
    const model = await evalJson(MODEL, ...LOSS, "--data", path("golden.safetensors"), "--batch-size", "3");
    expect(model.loss).toBeCloseTo(expected, 6);
    expect((await fishy("rewrite", MODEL, ...LOSS, "-o", path("program.onnx"))).code).toBe(0);
    expect(await evalJson(path("program.onnx"), "--data", path("golden.safetensors"), "--batch-size", "3")).toEqual(
      model,
    );
  });

  it("of a run: what it held out, or other data; the best checkpoint, or a named one", async () => {
    const options = [
      ...["--data", path("golden.safetensors"), "--optimizer", "adam", "--lr", "0.5", "--steps", "12"],
      ...["--held-out", "0.5", "--batch-size", "2", "--evaluate-every", "2", "--keep-best", "--checkpoint-every", "4"],
    ];
    const trained = await fishy("train", MODEL, ...LOSS, ...options, "--out", path("run"), "--quiet", "--json");
    expect(trained.stderr).toBe("");
    const { best, heldOut } = JSON.parse(trained.stdout);
    const own = await evalJson(path("run"));
    expect(own.step).toBe(best.step);
    expect(own.loss).toBeCloseTo(best.value, 6);
    const last = await evalJson(path("run"), "--checkpoint", join(path("run"), "checkpoint-12"));
    expect(last).toEqual({ ...heldOut, step: 12 });
    const exported = await evalJson(join(path("run"), "model.onnx"), ...LOSS, "--data", path("golden.safetensors"));
    const all = await evalJson(path("run"), "--data", path("golden.safetensors"));
    expect(all.loss).toBeCloseTo(exported.loss, 6);
    expect((await evalJson(path("run"), "--batch-size", "1000")).loss).toBe(own.loss);
    const missing = await fishy("eval", path("run"), "--checkpoint", path("run/checkpoint-99"));
    expect(missing).toMatchObject({ code: 1, stderr: expect.stringMatching(/There is no checkpoint .*checkpoint-99/) });
    const table = await fishy("eval", path("run"));
    expect(table.stdout).toMatch(/accuracy\s+\d+\.\d\d %/);
  });

  it("of a run that trained on data in memory: asks for data", async () => {
    const x = golden.tensors.get("input/x") as NamedTensor;
    const labels = golden.tensors.get("target") as NamedTensor;
    const data = makeDataset("memory", [
      columnOf("x", x.type, x.dims, x.data),
      columnOf("labels", labels.type, labels.dims, labels.data),
    ]);
    await train({
      model: MODEL,
      rewrite: { loss: "softmax-cross-entropy" },
      data,
      heldOut: 0.5,
      optimizer: { name: "sgd", learningRate: 0.1 },
      batchSize: 2,
      steps: 1,
      outDir: path("memory"),
    });
    const result = await fishy("eval", path("memory"));
    expect(result).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/memory trained on data in memory.*Give data to evaluate on: --data FILE/),
    });
    expect((await evalJson(path("memory"), "--data", path("golden.safetensors"))).step).toBe(1);
  });

  it("without data, a loss or a checkpoint that fit: a clear error", async () => {
    const noData = await fishy("eval", MODEL, ...LOSS);
    expect(noData).toMatchObject({ code: 2, stderr: expect.stringMatching(/No data is given to evaluate on/) });
    const noLoss = await fishy("eval", MODEL, "--data", path("golden.safetensors"));
    expect(noLoss).toMatchObject({ code: 1, stderr: expect.stringMatching(/no loss.*--loss/) });
    expect((await fishy("rewrite", MODEL, ...LOSS, "-o", path("lossy.onnx"))).code).toBe(0);
    const secondLoss = await fishy("eval", path("lossy.onnx"), ...LOSS, "--data", path("golden.safetensors"));
    expect(secondLoss).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/has its loss already.*Leave out loss/),
    });
    const noRun = await fishy("eval", MODEL, "--checkpoint", folder, "--data", path("golden.safetensors"));
    expect(noRun).toMatchObject({ code: 2, stderr: expect.stringMatching(/is no run/) });
  });
});
