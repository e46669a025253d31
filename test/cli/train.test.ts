/** `fishy train` and `fishy export` from the command line: configuration files, flags that win, runs and their models. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeModel } from "../../src/onnx/codec.js";
import { dataOf } from "../../src/onnx/tensor.js";
import { fishy } from "../support/cli.js";
import { writeExamples } from "../support/npy.js";
import { GRAPHS } from "../support/shared.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-train-"));
const path = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const MODEL = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
const [examples, features, classes] = [64, 20, 5];

beforeAll(() => {
  writeExamples(folder);
});

/** The configuration of a run, as `options.json` keeps it. */
function storedOptions(run: string) {
  return JSON.parse(readFileSync(join(path(run), "options.json"), "utf8"));
}

describe("configuration files", () => {
  const yaml = `
model: ${MODEL}
rewrite:
  loss: softmax-cross-entropy
  sections: output
optimizer:
  name: fim-shampoo
  learningRate: 0.004
  rootInterval: 3
data: [x=x.npy, labels.npy]
steps: 4
batchSize: 16
heldOut: 0.25
`;

  it("YAML, its paths relative to it", async () => {
    writeFileSync(path("run.yaml"), yaml);
    const result = await fishy("train", "--config", path("run.yaml"), "--out", path("yaml"), "--quiet", "--json");
    expect(result.stderr).toBe("");
    const summary = JSON.parse(result.stdout.trim().split("\n").at(-1) as string);
    expect(summary).toMatchObject({ steps: 4, outcome: "completed" });
    expect(summary.heldOut.loss).toBeGreaterThan(0);
    const { run } = storedOptions("yaml");
    expect(run).toMatchObject({ steps: 4, batchSize: 16, heldOut: 0.25 });
    expect(run.optimizer).toMatchObject({ name: "fim-shampoo", learningRate: 0.004, rootInterval: 3 });
  });

  it("flags win, and another optimizer does not take the file's options", async () => {
    writeFileSync(path("run.yaml"), yaml);
    const flags = ["--optimizer", "adam", "--lr", "0.01", "-O", "beta2=0.99", "--epochs", "1", "--batch-size", "12"];
    const result = await fishy("train", "--config", path("run.yaml"), "--out", path("flags"), "--quiet", ...flags);
    expect(result.stderr).toBe("");
    const { run } = storedOptions("flags");
    expect(run.optimizer).toMatchObject({ name: "adam", learningRate: 0.01, beta2: 0.99 });
    expect(run.optimizer.rootInterval).toBeUndefined();
    expect(run).toMatchObject({ epochs: 1, batchSize: 12 });
    expect(run.steps).toBeUndefined();
  });

  it("one option inside of others leaves the others", async () => {
    const optimizer = "  name: adam\n  schedule: { kind: cosine, warmup: 1 }\n  learningRate: 0.004\n";
    const nested = yaml.replace(/ {2}name: fim-shampoo\n.*\n.*\n/, optimizer);
    writeFileSync(path("nested.yaml"), nested);
    const train = (name: string, assignment: string) =>
      fishy("train", "--config", path("nested.yaml"), "--quiet", "-O", assignment, "--out", path(name));
    expect((await train("nested", "schedule.warmup=2")).stderr).toBe("");
    expect(storedOptions("nested").run.optimizer.schedule).toMatchObject({ kind: "cosine", warmup: 2 });
    // Another kind has options of its own.
    expect((await train("other", "schedule.kind=constant")).stderr).toBe("");
    expect(storedOptions("other").run.optimizer.schedule).toEqual({ kind: "constant", warmup: 0 });
  });

  it("held-out files too are relative to it; data options and following the best reach the run", async () => {
    const more = "\nsequenceLength: 7\nkeepBest: true\nnormalize: { mean: [0.5], std: [2] }\n";
    writeFileSync(path("held.yaml"), `${yaml.replace("heldOut: 0.25", "heldOut: [x=x.npy, labels.npy]")}${more}`);
    const flags = ["--mean", "0.25", "--std", "4", "--last-batch", "pad", "--out", path("held"), "--quiet", "--json"];
    const result = await fishy("train", "--config", path("held.yaml"), ...flags);
    expect(result.stderr).toBe("");
    expect(JSON.parse(result.stdout)).toMatchObject({ heldOut: { examples }, best: { metric: "loss" } });
    expect(storedOptions("held").run).toMatchObject({
      normalize: { mean: [0.25], std: [4] },
      lastBatch: "pad",
      sequenceLength: 7,
    });
    const wrong = await fishy("train", "--config", path("held.yaml"), "--mean", "1", "--out", path("wrong-mean"));
    expect(wrong).toMatchObject({ code: 2, stderr: expect.stringMatching(/--mean and --std go together/) });
  });

  it("a plan of sections too is relative to it", async () => {
    const loss = ["--loss", "softmax-cross-entropy", "--sections", "output"];
    expect((await fishy("inspect", MODEL, ...loss, "--plan", path("sections.yaml"))).stderr).toBe("");
    writeFileSync(path("planned.yaml"), yaml.replace("sections: output", "sections: sections.yaml"));
    const result = await fishy("train", "--config", path("planned.yaml"), "--out", path("planned"), "--quiet");
    expect(result.stderr).toBe("");
    expect(storedOptions("planned").rewrite.sections).toMatchObject({ kind: "plan", boundaries: [{ at: "output" }] });
  });

  it("an unknown option is wrong usage", async () => {
    writeFileSync(path("wrong.json"), JSON.stringify({ model: MODEL, data: ["x.npy"], optimizer: "adam", stepz: 3 }));
    const result = await fishy("train", "--config", path("wrong.json"), "--out", path("wrong"));
    expect(result.code).toBe(2);
    expect(result.stderr).toMatch(/stepz/);
  });
});

describe("a run", () => {
  it("of a rewritten program trains as the source does, and exports the source with other parameters", async () => {
    const program = path("program.onnx");
    const loss = ["--loss", "softmax-cross-entropy"];
    expect((await fishy("rewrite", MODEL, ...loss, "-o", program)).code).toBe(0);
    const train = (model: string, out: string, ...more: string[]) =>
      fishy(
        ...["train", model, ...more, "--data", `x=${path("x.npy")}`, path("labels.npy"), "--optimizer", "fishy"],
        ...["--steps", "3", "--batch-size", "16", "--out", path(out), "--quiet"],
      );
    expect((await train(program, "from-program")).stderr).toBe("");
    expect((await train(MODEL, "from-source", ...loss)).stderr).toBe("");
    for (const run of ["from-program", "from-source"]) {
      const exported = await fishy("export", path(run), "-o", path(`${run}.onnx`));
      expect(exported.stderr).toBe("");
      expect(existsSync(join(path(run), "metrics.jsonl"))).toBe(true);
    }
    const source = decodeModel(readFileSync(MODEL));
    const trained = decodeModel(readFileSync(path("from-source.onnx")));
    expect(trained.graph.node).toEqual(source.graph.node);
    const weights = (model: typeof source) =>
      model.graph.initializer.map((tensor) => [...(dataOf(tensor) as Float32Array)]);
    expect(weights(trained)).not.toEqual(weights(source));
    expect(weights(decodeModel(readFileSync(path("from-program.onnx"))))).toEqual(weights(trained));
    const session = await ort.InferenceSession.create(path("from-source.onnx"));
    const [input] = session.inputNames;
    const results = await session.run({
      [input as string]: new ort.Tensor("float32", new Float32Array(features), [1, features]),
    });
    expect(results.output?.dims).toEqual([1, classes]);
    await session.release();
  });
});
