import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { decodeSafetensors, type NamedTensor } from "../../src/data/safetensors.js";
import { problemsOf } from "../../src/onnx/check.js";
import { decodeModel, encodeModel } from "../../src/onnx/codec.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { inferTypes } from "../../src/onnx/types.js";
import { toProgramOpset } from "../../src/onnx/upgrade/upgrade.js";
import { opsetOf } from "../../src/onnx/versions.js";
import { relativeError, runModel } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";

const folder = join(GRAPHS, "architectures");
const names = readdirSync(folder);
// Some models only one of the exporters can write.
const files = names.flatMap((name) =>
  ["model.onnx", "dynamo.onnx"]
    .filter((file) => existsSync(join(folder, name, file)))
    .map((file) => [name, file] as const),
);

function feedOf({ type, dims, data }: NamedTensor): ort.Tensor {
  return type === DataType.INT64
    ? new ort.Tensor("int64", data as BigInt64Array, [...dims])
    : new ort.Tensor("float32", data as Float32Array, [...dims]);
}

describe("the zoo", () => {
  it("has architectures enough, in both exporters' words and in opsets 9 to 23", () => {
    expect(names.length).toBeGreaterThanOrEqual(25);
    const opsets = files.map(([name, file]) => opsetOf(decodeModel(readFileSync(join(folder, name, file)))));
    expect(Math.min(...opsets)).toBe(9);
    expect(Math.max(...opsets)).toBe(23);
  });

  it.each(files)("%s/%s gives PyTorch's output, as exported and in the program's opset", async (name, file) => {
    const model = decodeModel(readFileSync(join(folder, name, file)));
    const { tensors } = decodeSafetensors(readFileSync(join(folder, name, "golden.safetensors")));
    const key = tensors.has("output") ? "output" : "loss";
    // The dynamo exporter writes BatchNormalization for inference: PyTorch's eval() is the reference then.
    const expected = (file === "dynamo.onnx" && tensors.get(`eval/${key}`)) || (tensors.get(key) as NamedTensor);
    const feeds: Record<string, ort.Tensor> = {};
    for (const [tensor, value] of tensors) if (tensor.startsWith("input/")) feeds[tensor.slice(6)] = feedOf(value);
    const check = async (candidate: ModelProto) => {
      const output = (await runModel(candidate, feeds))[key];
      if (key === "output") expect(output?.dims).toEqual(expected.dims);
      expect(relativeError(output?.data as Float32Array, expected.data as Float64Array)).toBeLessThan(1e-6);
    };
    await check(model);
    const converted = await toProgramOpset(model);
    expect(problemsOf(converted)).toEqual([]);
    await check(converted);
    const types = await inferTypes(converted);
    // Sequences are no tensors, and come out of Loops as well.
    if (converted.graph.node.some(({ opType = "" }) => opType.includes("Sequence"))) return;
    for (const node of converted.graph.node) {
      for (const output of node.output) if (output) expect(types.has(output), output).toBe(true);
    }
  });

  it.each(names)("%s has a gradient for every parameter that trains", (name) => {
    const golden = decodeSafetensors(readFileSync(join(folder, name, "golden.safetensors")));
    const gradients = [...golden.tensors.keys()].filter((key) => key.startsWith("grad/"));
    expect(gradients.length).toBeGreaterThan(0);
    for (const [file, key] of [
      ["model.onnx", "renamed"],
      ["dynamo.onnx", "dynamo_renamed"],
    ] as const) {
      if (!existsSync(join(folder, name, file))) continue;
      const { graph } = decodeModel(readFileSync(join(folder, name, file)));
      const initializers = new Set(graph.initializer.map((tensor) => tensor.name));
      const renamed: Record<string, string> = JSON.parse(golden.metadata[key] ?? "{}");
      for (const gradient of gradients) {
        const parameter = gradient.slice(5);
        expect(initializers.has((renamed[parameter] ?? parameter).split(":")[0] as string), parameter).toBe(true);
      }
    }
  });

  it.each(files)("%s/%s survives the codec byte for byte", (name, file) => {
    const bytes = readFileSync(join(folder, name, file));
    expect(Buffer.compare(encodeModel(decodeModel(bytes)), bytes)).toBe(0);
  });
});
