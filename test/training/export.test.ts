import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { NamedTensor } from "../../src/data/safetensors.js";
import { cloneModel, decodeModel, encodeModel } from "../../src/onnx/codec.js";
import { loadModel, saveModel } from "../../src/onnx/model-file.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { dataOf, dimsOf } from "../../src/onnx/tensor.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { exportModel, forwardOf, replaceInitializers } from "../../src/training/export.js";
import { train } from "../../src/training/train.js";
import { f32, runModel } from "../support/run.js";
import { GRAPHS, loadGolden } from "../support/shared.js";
import { clusters, gaussians, temporaryFolder } from "./support.js";

const folder = temporaryFolder();

/** Every initializer of a model by name. */
function contents(model: ModelProto): Map<string, NamedTensor> {
  return new Map(
    model.graph.initializer.map((tensor) => [
      tensor.name ?? "",
      { type: tensor.dataType as DataType, dims: dimsOf(tensor), data: dataOf(tensor) },
    ]),
  );
}

function floatsOf(model: ModelProto): Map<string, NamedTensor> {
  return new Map([...contents(model)].filter(([, tensor]) => tensor.type === DataType.FLOAT));
}

describe("replacing initializers", () => {
  test.each(["mlp_tanh", "cnn", "vgg_small", "transformer_encoder", "gpt_tied", "mobile_small"])(
    "of %s changes their bytes and nothing else",
    (name) => {
      const bytes = readFileSync(join(GRAPHS, "pytorch", name, "model.onnx"));
      const source = decodeModel(bytes);
      const original = floatsOf(source);
      const values = new Map(
        [...original].map(([key, tensor]): [string, NamedTensor] => [
          key,
          { ...tensor, data: gaussians(tensor.data.length, 1, BigInt(key.length)) },
        ]),
      );
      const trained = decodeModel(encodeModel(replaceInitializers(source, values)));
      for (const [key, { data }] of values) expect(contents(trained).get(key)?.data).toEqual(data);
      // Putting the old values back gives the source file, byte for byte.
      expect(Buffer.compare(encodeModel(replaceInitializers(trained, original)), bytes)).toBe(0);
      expect(Buffer.compare(encodeModel(source), bytes)).toBe(0);
    },
  );

  test("takes values out of every field that held them", () => {
    const { model } = loadGolden("mlp_tanh");
    const source = cloneModel(model);
    const tensor = source.graph.initializer.find((candidate) => candidate.name === "4.bias");
    if (!tensor) throw new Error("no bias");
    tensor.floatData = Array.from(dataOf(tensor) as Float32Array);
    delete tensor.rawData;
    const value: NamedTensor = { type: DataType.FLOAT, dims: [5], data: Float32Array.of(1, 2, 3, 4, 5) };
    const replaced = replaceInitializers(source, new Map([["4.bias", value]])).graph.initializer.find(
      (t) => t.name === "4.bias",
    );
    expect(replaced?.floatData ?? []).toEqual([]);
    expect(
      contents(decodeModel(encodeModel(replaceInitializers(source, new Map([["4.bias", value]]))))).get("4.bias"),
    ).toEqual(value);
  });

  test("refuses what the source does not have", () => {
    const { model } = loadGolden("mlp_tanh");
    const value: NamedTensor = { type: DataType.FLOAT, dims: [4], data: new Float32Array(4) };
    expect(() => replaceInitializers(model, new Map([["4.bias", value]]))).toThrow(
      /'4\.bias' is float \[5\], and the trained one float \[4\]/,
    );
    expect(() => replaceInitializers(model, new Map([["9.bias", value]]))).toThrow(/no initializers named '9\.bias'/);
  });
});

describe("a program trained without its source", () => {
  test("gives its forward pass where that is the one of inference", async () => {
    const { model, golden } = loadGolden("mlp_tanh");
    const program = await rewrite(model, { loss: "softmax-cross-entropy" });
    const forward = forwardOf(program);
    const x = golden.tensors.get("input/x");
    const feeds = { x: f32(x?.data as Float32Array, x?.dims ?? []) };
    const [expected, found] = [await runModel(model, feeds), await runModel(forward, feeds)];
    expect(found.output?.data).toEqual(expected.output?.data);
    expect(Object.keys(found)).toEqual(["output"]);
    expect(forward.graph.input.map((input) => input.name)).toEqual(["x"]);
  });

  test("is trained and exported from its file", async () => {
    const path = join(folder, "program.onnx");
    const { model } = loadGolden("mlp_tanh");
    await saveModel({ proto: (await rewrite(model, { loss: "softmax-cross-entropy" })).model }, path);
    const result = await train({
      model: path,
      data: clusters(100, 20, 5),
      optimizer: { name: "sgd", learningRate: 0.1 },
      batchSize: 20,
      steps: 3,
      outDir: join(folder, "program-run"),
    });
    const exported = (await loadModel(result.modelFile as string)).proto;
    expect(contents(exported).get("0.weight")?.data).toEqual(result.state?.model.get("0.weight")?.data);
  });
});

describe("a run's export", () => {
  test("finds the source's external data, and takes the checkpoint that is asked for", async () => {
    mkdirSync(join(folder, "external"));
    const path = join(folder, "external", "model.onnx");
    const { model } = loadGolden("mlp_tanh");
    await saveModel({ proto: model }, path, { externalData: true, externalThreshold: 0 });
    const run = join(folder, "external-run");
    const result = await train({
      model: path,
      rewrite: { loss: "softmax-cross-entropy", freeze: ["0.*"] },
      data: clusters(100, 20, 5),
      optimizer: { name: "sgd", learningRate: 0.1 },
      batchSize: 20,
      steps: 4,
      checkpointEvery: 2,
      outDir: run,
    });
    const inline = await train({
      model: { proto: model },
      rewrite: { loss: "softmax-cross-entropy", freeze: ["0.*"] },
      data: clusters(100, 20, 5),
      optimizer: { name: "sgd", learningRate: 0.1 },
      batchSize: 20,
      steps: 4,
    });
    expect(result.losses).toEqual(inline.losses);

    const out = join(folder, "exported.onnx");
    await exportModel(run, out);
    const x = f32(gaussians(40, 1, 3n), [2, 20]);
    const { output } = await runModel(replaceInitializers(model, inline.state?.model ?? new Map()), { x });
    const session = await import("onnxruntime-node").then((ort) => ort.InferenceSession.create(out));
    expect((await session.run({ x })).output?.data).toEqual(output?.data);
    await session.release();

    const earlier = join(folder, "earlier.onnx");
    await exportModel(run, earlier, { checkpoint: join(run, "checkpoint-2") });
    expect(Buffer.compare(readFileSync(earlier), readFileSync(out))).not.toBe(0);
    await expect(exportModel(folder, out)).rejects.toThrow(/holds no run/);
  });
});
