/** What trains: floats that the loss depends on, and nothing that only says how to compute. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { decodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import { tensorFromNumbers } from "../../src/onnx/tensor.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { modelOf } from "../support/run.js";
import { GRAPHS, loadGolden } from "../support/shared.js";

const loss = "softmax-cross-entropy";
const names = async (model: Parameters<typeof rewrite>[0], options: Parameters<typeof rewrite>[1] = {}) => {
  const { manifest } = await rewrite(model, { loss, ...options });
  return manifest.parameters.map((parameter) => parameter.name);
};

describe("parameters", () => {
  it("are no running statistics", async () => {
    const trained = await names(loadGolden("resnet_small").model);
    expect(trained).toContain("stem.1.weight");
    expect(trained.filter((name) => name.includes("running"))).toEqual([]);
  });

  it("are no scales of a Resize, though those are floats", async () => {
    const model = decodeModel(readFileSync(join(GRAPHS, "architectures/feature_pyramid/dynamo.onnx")));
    const scales = model.graph.node.filter((node) => node.opType === "Resize").map((node) => node.input[2]);
    expect(scales.length).toBeGreaterThan(0);
    const trained = await names(model);
    for (const name of scales) expect(trained).not.toContain(name);
  });

  it("are no single numbers under names that an exporter made up, unless they are named", async () => {
    const graph = emptyGraph("scaled");
    const b = new GraphBuilder(graph);
    b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 3] });
    graph.initializer.push(tensorFromNumbers(b.reserve("w"), DataType.FLOAT, [3, 4], Array(12).fill(0.1)));
    graph.initializer.push(tensorFromNumbers(b.reserve("val_3"), DataType.FLOAT, [], [2]));
    graph.initializer.push(tensorFromNumbers(b.reserve("temperature"), DataType.FLOAT, [1], [2]));
    b.output(b.mul(b.mul(b.matMul("x", "w"), "val_3"), "temperature"), {
      elemType: DataType.FLOAT,
      shape: ["batch", 4],
    });
    expect(await names(modelOf(graph))).toEqual(["w", "temperature"]);
    expect(await names(modelOf(graph), { trainable: ["w", "val_3"] })).toEqual(["w", "val_3"]);
  });

  it("are none of what --freeze names, by pattern", async () => {
    const { model } = loadGolden("autoencoder_tanh");
    const trained = await names(model, { loss: "sigmoid-cross-entropy", freeze: ["encoder.*", "*.bias"] });
    expect(trained).toEqual(["decoder.0.weight", "decoder.2.weight", "decoder.4.weight"]);
  });
});
