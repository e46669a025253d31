/** What `torch.onnx.export(dynamo=True)` does to a model, and how it is undone: BatchNormalization, renamed weights. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { decodeSafetensors } from "../../src/data/safetensors.js";
import { decodeModel } from "../../src/onnx/codec.js";
import type { TensorProto } from "../../src/onnx/proto.js";
import { dataOf } from "../../src/onnx/tensor.js";
import { inspectModel } from "../../src/rewrite/inspect.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { goldenLoss, runGolden } from "../support/golden-run.js";
import { relativeError } from "../support/run.js";
import { GRAPHS, loadGolden } from "../support/shared.js";

const load = (name: string) => {
  const folder = join(GRAPHS, "architectures", name);
  return {
    model: decodeModel(readFileSync(join(folder, "dynamo.onnx")), name),
    golden: decodeSafetensors(readFileSync(join(folder, "golden.safetensors")), name),
  };
};

describe("--train-batch-norm", () => {
  const withBatchNorm = readdirSync(join(GRAPHS, "architectures")).filter(
    (name) =>
      existsSync(join(GRAPHS, "architectures", name, "dynamo.onnx")) && load(name).golden.tensors.has("eval/loss"),
  );

  it("has models to be tried on", () => expect(withBatchNorm.length).toBeGreaterThanOrEqual(5));

  it.each(withBatchNorm)("gives %s PyTorch's training-mode loss and gradients", async (name) => {
    const golden = load(name);
    const program = await rewrite(golden.model, { loss: goldenLoss(golden), trainBatchNorm: true });
    const results = await runGolden(golden, program);
    const loss = Number(golden.golden.tensors.get("loss")?.data[0]);
    expect(Number(results.loss?.data[0])).toBeCloseTo(loss, 5);
    for (const { name: parameter, gradient } of program.manifest.parameters) {
      const reference = golden.golden.tensors.get(`grad/${parameter}`)?.data as Float64Array | undefined;
      if (!reference || Math.hypot(...reference) < 1e-9) continue;
      expect(relativeError(results[gradient]?.data as Float32Array, reference), parameter).toBeLessThan(1e-4);
    }
  });

  it("carries the running statistics as outputs, updated as ONNX says", async () => {
    const golden = loadGolden("resnet_small");
    const program = await rewrite(golden.model, { loss: "softmax-cross-entropy" });
    expect(program.manifest.runningStatistics).toHaveLength(12);
    const results = await runGolden(golden, program);
    for (const { name, next } of program.manifest.runningStatistics) {
      expect(next).toBe(`${name}_next`);
      const tensor = golden.model.graph.initializer.find((initializer) => initializer.name === name);
      const before = Array.from(dataOf(tensor as TensorProto) as Float32Array);
      const after = Array.from(results[next]?.data as Float32Array);
      expect(after).not.toEqual(before);
      // A variance keeps nine tenths and gains something that is not negative.
      if (!name.endsWith("running_var")) continue;
      for (const [i, value] of after.entries())
        expect(value).toBeGreaterThanOrEqual(0.9 * (before[i] as number) - 1e-6);
    }
  });

  it("refuses a model without BatchNormalization, with the remedy", async () => {
    const golden = loadGolden("mlp_tanh");
    await expect(rewrite(golden.model, { loss: "softmax-cross-entropy", trainBatchNorm: true })).rejects.toThrow(
      /no BatchNormalization.*optimize=False/,
    );
  });
});

describe("weights under generated names", () => {
  it("are traced back to their modules: in inspect, as layers, and by --freeze", async () => {
    const { model } = load("lora");
    const description = await inspectModel(model, { loss: "softmax-cross-entropy" });
    const renamed = description.parameters.filter((parameter) => parameter.name.startsWith("val_"));
    expect(renamed.length).toBeGreaterThan(3);
    expect(renamed.map((parameter) => parameter.module)).toContain("q.base");
    expect(description.layers.map((layer) => layer.name)).toContain("q.base");
    const frozen = await rewrite(model, { loss: "softmax-cross-entropy", freeze: ["q.base.weight"] });
    const [name] = renamed.filter((parameter) => parameter.module === "q.base").map((parameter) => parameter.name);
    expect(frozen.manifest.frozen).toEqual([name]);
  });
});
