/** Training artifacts through the command line: looked at, rewritten, trained, exported, and back. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { readCheckpoint } from "../../src/artifacts/checkpoint.js";
import { decodeSafetensors, encodeSafetensors, type NamedTensor } from "../../src/data/safetensors.js";
import { loadModel } from "../../src/onnx/model-file.js";
import { DataType, type TensorProto } from "../../src/onnx/proto.js";
import { dataOf } from "../../src/onnx/tensor.js";
import { fishy } from "../support/cli.js";
import { f32, relativeError, runModel } from "../support/run.js";
import { hasArtifacts, SHARED } from "../support/shared.js";
import { temporaryFolder } from "../support/temporary.js";
import { FIXTURES, folderOf, group, oracleOf } from "./support.js";

/** The oracle's batch as a dataset. */
function datasetOf(name: string, folder: string): string {
  const path = join(folder, `${name}.safetensors`);
  writeFileSync(path, encodeSafetensors(group(oracleOf(name), "input")));
  return path;
}

function losses(run: string): number[] {
  return readFileSync(join(run, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).loss);
}

const FULL_BATCH = ["--batch-size", "6", "--no-shuffle", "--scale", "none", "-q"];

describe("inspect", () => {
  it("tells what the artifacts are and what trains", async () => {
    const { code, stdout } = await fishy("inspect", folderOf("frozen_backbone"));
    expect(code).toBe(0);
    expect(stdout).toContain("Checkpoint: ODTC, version 2; no optimizer state");
    expect(stdout).toContain("Optimizer: adamw, beta1 0.9, beta2 0.999, epsilon 0.000001, weightDecay 0, mode 1");
    expect(stdout).toContain("Frozen: features.0.weight, features.0.bias");
    expect(stdout).toContain("Loss: in-graph of 'onnx::loss::");
  });

  it("files by flags, in JSON", async () => {
    const folder = folderOf("lora");
    const { stdout } = await fishy(
      ...["inspect", "--json", "--training-model", join(folder, "training_model.onnx")],
      ...["--checkpoint", join(folder, "checkpoint_step3")],
    );
    const { artifacts, parameters } = JSON.parse(stdout);
    expect(parameters.map((parameter: { name: string }) => parameter.name)).toEqual(["A", "B"]);
    expect(artifacts.checkpoint).toMatchObject({
      format: "flat",
      version: 2,
      properties: { epoch: 3, note: "step three" },
    });
    expect(artifacts.checkpoint.optimizerGroups[0]).toMatchObject({ name: "group0", step: 3, parameters: 2 });
    expect(artifacts.outputs).toEqual(["output"]);
  });

  it("what trains can be overruled", async () => {
    const { stdout } = await fishy("inspect", folderOf("lora"), "--json", "--trainable", "linear.*");
    const { parameters, frozen } = JSON.parse(stdout);
    expect(parameters.map((parameter: { name: string }) => parameter.name)).toEqual(["linear.weight", "linear.bias"]);
    expect(frozen.sort()).toEqual(["A", "B"]);
  });

  it("flags of artifacts with another model: refused", async () => {
    const model = join(folderOf("mlp"), "optimizer_model.onnx");
    const { code, stderr } = await fishy("inspect", model, "--checkpoint", "x");
    expect(code).toBe(2);
    expect(stderr).toContain("is no folder of training artifacts");
  });

  it("a checkpoint that is missing: says so", async () => {
    const { code, stderr } = await fishy("inspect", folderOf("mlp"), "--checkpoint", "no/such");
    expect(code).toBe(1);
    expect(stderr).toContain("Cannot read the checkpoint no/such: there is none.");
  });
});

describe("train", () => {
  it.each(FIXTURES)(
    "%s: Fishy, Shampoo and Adam from the command line, exported for inference",
    async (name) => {
      const folder = temporaryFolder();
      const data = datasetOf(name, folder);
      for (const optimizer of ["fishy", "shampoo", "adam"]) {
        const run = join(folder, optimizer);
        const { code, stderr } = await fishy(
          ...["train", folderOf(name), "--data", data, "--optimizer", optimizer, "--lr", "0.003"],
          ...["--steps", "30", "--out", run, ...FULL_BATCH],
        );
        expect([code, stderr]).toEqual([0, ""]);
        const [first, last] = [losses(run)[0], losses(run).at(-1)] as [number, number];
        expect(last, `${optimizer}: ${first} → ${last}`).toBeLessThan(first);
        const { proto } = await loadModel(join(run, "model.onnx"));
        expect(proto.graph.output.map((output) => output.name)).toEqual(["output"]);
        expect(proto.graph.input.map((input) => input.name)).toEqual(["input"]);
      }
    },
    60_000,
  );

  it("goes on with the artifacts' own optimizer, moments and step, and hands back a checkpoint", async () => {
    const folder = temporaryFolder();
    const data = datasetOf("mlp", folder);
    const run = join(folder, "run");
    await fishy(
      ...["train", folderOf("mlp"), "--checkpoint", join(folderOf("mlp"), "checkpoint_step3")],
      ...["--data", data, "--steps", "2", "--out", run, ...FULL_BATCH],
    );
    const oracle = oracleOf("mlp");
    const expected = oracle.get("losses")?.data as Float32Array;
    expect(relativeError(losses(run), expected.slice(3))).toBeLessThan(1e-6);

    const path = join(folder, "checkpoint");
    expect((await fishy("export", run, "-o", path, "--as", "checkpoint")).stdout).toContain(`Wrote ${path}`);
    const checkpoint = await readCheckpoint(path);
    expect(checkpoint.optimizerGroups[0]?.step).toBe(5);
    expect(checkpoint.optimizerGroups[0]?.learningRate).toBeCloseTo(1e-3, 9);
    const parameters = join(folder, "parameters.safetensors");
    await fishy("export", run, "-o", parameters);
    const { tensors } = decodeSafetensors(readFileSync(parameters));
    for (const [parameter, { data: values }] of group(oracle, "after")) {
      const written = dataOf(checkpoint.trainable.get(parameter) as TensorProto) as Float32Array;
      expect(relativeError(written, values as Float32Array)).toBeLessThan(1e-6);
      expect(tensors.get(parameter)?.data).toEqual(written);
    }
  });

  it("a run that is resumed keeps the moments it started from", async () => {
    const folder = temporaryFolder();
    const data = datasetOf("mlp", folder);
    const start = (out: string, steps: string) =>
      fishy(
        ...[
          "train",
          folderOf("mlp"),
          "--checkpoint",
          join(folderOf("mlp"), "checkpoint_step3"),
          "--checkpoint-every",
          "1",
        ],
        ...["--data", data, "--steps", steps, "--out", out, ...FULL_BATCH],
      );
    await start(join(folder, "whole"), "4");
    const options = join(folder, "whole", "options.json");
    expect(existsSync(join(folder, "whole", "moments.safetensors"))).toBe(true);
    await start(join(folder, "half"), "2");
    const half = join(folder, "half", "options.json");
    writeFileSync(half, readFileSync(half, "utf8").replace('"steps": 2', '"steps": 4'));
    expect(readFileSync(options, "utf8")).toContain('"steps": 4');
    // The run is longer than the one that the checkpoint was made by.
    const { code, stderr } = await fishy("train", "--resume", join(folder, "half"), "--accept-changes", "-q");
    expect(code, stderr).toBe(0);
    expect(losses(join(folder, "half"))).toEqual(losses(join(folder, "whole")));
  });

  it.each([
    ["fishy", []],
    ["shampoo", ["-O", "momentumOrder=before"]],
  ] as const)("the moments seed the graft of %s", async (optimizer, options) => {
    const folder = temporaryFolder();
    const data = datasetOf("mlp", folder);
    const train = (checkpoint: string, out: string) =>
      fishy(
        ...["train", folderOf("mlp"), "--checkpoint", checkpoint, "--data", data, "--optimizer", optimizer],
        ...["--steps", "1", "--out", out, ...FULL_BATCH, ...options],
      );
    await train(join(folderOf("mlp"), "checkpoint_step3"), join(folder, "seeded"));
    const saved = (await readCheckpoint(join(folderOf("mlp"), "checkpoint_step3"))).optimizerGroups[0];
    const state = decodeSafetensors(
      readFileSync(join(folder, "seeded", "checkpoint-1", "optimizer.safetensors")),
    ).tensors;
    const before = dataOf(saved?.moments.get("0.weight")?.get("momentum1") as TensorProto) as Float32Array;
    const after = state.get("0.weight/graft")?.data as Float32Array;
    // v ← β₂v + (1 − β₂)g², from the checkpoint's v.
    expect(after.every((value, i) => value >= 0.999 * (before[i] as number) * (1 - 1e-6))).toBe(true);
    expect(relativeError(after, before)).toBeLessThan(1);
    const fresh = join(folder, "fresh");
    await train(join(folderOf("mlp"), "checkpoint"), fresh);
    const other = decodeSafetensors(readFileSync(join(fresh, "checkpoint-1", "optimizer.safetensors"))).tensors;
    const unseeded = other.get("0.weight/graft")?.data as Float32Array;
    expect(Math.hypot(...unseeded)).toBeLessThan(0.6 * Math.hypot(...after));
  });
});

describe.skipIf(!hasArtifacts)("artifacts found in the wild (shared/artifacts)", () => {
  it.each([
    ["microsoft-onnxruntime-training_api", "input-0", [784], 10],
    ["Bozu1206-SeizureGuard/training_artifacts", "input", [18, 1024], 2],
  ] as const)(
    "%s: Fishy, Shampoo and Adam",
    async (set, input, dims, classes) => {
      const folder = temporaryFolder();
      const size = dims.reduce((product, dim) => product * dim, 1);
      const examples = 16;
      const values = Float32Array.from({ length: examples * size }, (_, i) => Math.sin(i * 0.37) * Math.cos(i * 0.011));
      const labels = BigInt64Array.from({ length: examples }, (_, i) => BigInt(i % classes));
      const columns: [string, NamedTensor][] = [
        [input, { type: DataType.FLOAT, dims: [examples, ...dims], data: values }],
        ["labels", { type: DataType.INT64, dims: [examples], data: labels }],
      ];
      const data = join(folder, "data.safetensors");
      writeFileSync(data, encodeSafetensors(new Map(columns)));
      for (const optimizer of ["fishy", "shampoo", "adam"]) {
        const run = join(folder, optimizer);
        const { code, stderr } = await fishy(
          ...["train", join(SHARED, "artifacts", set), "--data", data, "--optimizer", optimizer, "--steps", "12"],
          ...["--batch-size", "16", "--no-shuffle", "--scale", "none", "--out", run, "-q"],
        );
        expect([code, stderr]).toEqual([0, ""]);
        const all = losses(run);
        expect(all).toHaveLength(12);
        expect(Math.min(...all.slice(1)), optimizer).toBeLessThan(all[0] as number);
        expect((await loadModel(join(run, "model.onnx"))).proto.graph.input.map((each) => each.name)).toEqual([input]);
      }
    },
    60_000,
  );
});

describe("values from elsewhere", () => {
  it("parameters of safetensors, of a model, and a flat buffer", async () => {
    const folder = temporaryFolder();
    const training = join(folderOf("mlp"), "training_model.onnx");
    const before = group(oracleOf("mlp"), "before") as Map<string, NamedTensor>;
    const order = ["0.weight", "0.bias", "2.weight", "2.bias"];
    const flat = Float32Array.from(order.flatMap((name) => Array.from(before.get(name)?.data as Float32Array)));
    writeFileSync(join(folder, "p.safetensors"), encodeSafetensors(before));
    writeFileSync(join(folder, "p.bin"), new Uint8Array(flat.buffer));
    const whole = await fishy("rewrite", folderOf("mlp"), "-o", join(folder, "whole.onnx"));
    expect(whole.code).toBe(0);
    const values = async (file: string) => {
      const { graph } = (await loadModel(join(folder, file))).proto;
      return order.map((name) => dataOf(graph.initializer.find((tensor) => tensor.name === name) as TensorProto));
    };
    for (const parameters of ["p.safetensors", "p.bin", "whole.onnx"]) {
      const out = `${parameters}.program.onnx`;
      const { code, stderr } = await fishy(
        ...["rewrite", "--training-model", training, "--parameters", join(folder, parameters), "-o", join(folder, out)],
      );
      expect([code, stderr]).toEqual([0, ""]);
      expect(await values(out)).toEqual(await values("whole.onnx"));
    }
    const { code, stderr } = await fishy("rewrite", "--training-model", training, "-o", join(folder, "none.onnx"));
    expect(code).toBe(1);
    expect(stderr).toContain("--parameters FILE");
  });
});

describe("rewrite --keep-backward", () => {
  it("keeps the gradients, and with --polyfill runs on this build", async () => {
    const folder = temporaryFolder();
    const out = join(folder, "out.onnx");
    const { code, stderr } = await fishy(
      "rewrite",
      folderOf("mlp"),
      "-o",
      out,
      "--keep-backward",
      "both",
      "--polyfill",
    );
    expect([code, stderr]).toEqual([0, ""]);
    const { proto } = await loadModel(out);
    expect(proto.functions.map((fn) => fn.name).sort()).toEqual(
      ["InPlaceAccumulatorV2", "ReluGrad", "SoftmaxCrossEntropyLossGrad"].sort(),
    );
    const session = await ort.InferenceSession.create(out, { logSeverityLevel: 3 });
    expect(session.outputNames).toContain("0.weight_sampled_grad.accumulation.buffer.next");
    await session.release();
  });

  it("of a model that is no artifact, or --polyfill alone: refused", async () => {
    const source = join(folderOf("mlp"), "optimizer_model.onnx");
    const kept = await fishy("rewrite", source, "-o", "unused.onnx", "--keep-backward");
    expect([kept.code, kept.stderr]).toEqual([2, "fishy: --keep-backward takes training artifacts.\n"]);
    const alone = await fishy("rewrite", folderOf("mlp"), "-o", "unused.onnx", "--polyfill");
    expect(alone.code).toBe(2);
    expect(alone.stderr).toContain("--polyfill needs --keep-backward");
  });
});

describe("the inference model", () => {
  it("has neither loss nor dropout, and normalizes with the running statistics", async () => {
    const folder = temporaryFolder();
    const run = join(folder, "run");
    await fishy(
      "train",
      folderOf("cnn"),
      "--data",
      datasetOf("cnn", folder),
      "--steps",
      "1",
      "--lr",
      "0",
      "--out",
      run,
      ...FULL_BATCH,
    );
    const { proto } = await loadModel(join(run, "model.onnx"));
    const oracle = oracleOf("cnn");
    const x = oracle.get("input/input") as NamedTensor;
    const one = Float32Array.from(x.data as Float32Array).slice(0, 64);
    const [all, single] = await Promise.all([
      runModel(proto, { input: f32(x.data as Float32Array, x.dims) }),
      runModel(proto, { input: f32(one, [1, 1, 8, 8]) }),
    ]);
    const [whole, first] = [all, single].map((result) => result.output?.data as Float32Array) as [
      Float32Array,
      Float32Array,
    ];
    // An example's output does not depend on its batch.
    expect(relativeError(first, whole.slice(0, 4))).toBeLessThan(1e-6);
    expect(proto.graph.node.every((node) => node.opType !== "BatchNormalization" || node.output.length === 1)).toBe(
      true,
    );
    expect(proto.graph.initializer.find((tensor) => tensor.name === "bn1.running_mean")?.dataType).toBe(DataType.FLOAT);
  });
});
