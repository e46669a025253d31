/** The types that `inferTypes` tells, against the shapes that values have when the models run. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { decodeSafetensors } from "../../src/data/safetensors.js";
import type { Dim, GraphBuilder } from "../../src/onnx/builder.js";
import { decodeModel } from "../../src/onnx/codec.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { inferTypes } from "../../src/onnx/types.js";
import { toProgramOpset } from "../../src/onnx/upgrade/upgrade.js";
import { toOrt } from "../support/golden-run.js";
import { type Feeds, modelOf, newBuilder, runModel } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";

/** Models whose shapes hang on dimensions that exporters compute at run time. */
const MODELS = [
  ["pytorch", "gpt_tied", "model"],
  ["pytorch", "transformer_encoder", "model"],
  ...["bert", "llama", "lstm_classifier", "gru_classifier", "seq2seq", "swin_block", "shufflenet_block", "vit"].flatMap(
    (name) => ["model", "dynamo"].map((file) => ["architectures", name, file]),
  ),
] as [string, string, string][];

/** The size of a dimension such as `6*batch`. */
function sizeOf(dim: Dim, symbols: ReadonlyMap<string, number>): number | undefined {
  if (typeof dim !== "string") return dim ?? undefined;
  const factors = dim.split("*").map((part) => (/^\d+$/.test(part) ? Number(part) : symbols.get(part)));
  return factors.every((factor) => factor !== undefined)
    ? (factors as number[]).reduce((product, factor) => product * factor, 1)
    : undefined;
}

async function unknownDimensions(model: ModelProto, feeds: Feeds): Promise<number> {
  const types = await inferTypes({ ...model, graph: { ...model.graph, valueInfo: [] } });
  const symbols = new Map<string, number>();
  for (const [name, { dims }] of Object.entries(feeds)) {
    for (const [i, dim] of (types.get(name)?.shape ?? []).entries()) {
      if (typeof dim === "string") symbols.set(dim, dims[i] as number);
    }
  }
  const names = model.graph.node.flatMap((node) => node.output).filter(Boolean);
  const graph = { ...model.graph, output: names.map((name) => ({ name })) };
  const results = await runModel({ ...model, graph }, feeds, { graphOptimizationLevel: "disabled" });
  let unknown = 0;
  for (const name of names) {
    const shape = types.get(name)?.shape;
    const { dims } = results[name] as { dims: readonly number[] };
    if (!shape) {
      unknown++;
      continue;
    }
    expect(shape.length, name).toBe(dims.length);
    for (const [i, dim] of shape.entries()) {
      const size = sizeOf(dim, symbols);
      if (size === undefined) unknown++;
      else expect(size, `${name} [${shape}]`).toBe(dims[i]);
    }
  }
  return unknown;
}

describe("inferTypes on PyTorch exports", () => {
  it.each(MODELS)("tells %s/%s/%s's shapes as they are", async (folder, name, file) => {
    const path = join(GRAPHS, folder, name);
    if (!existsSync(join(path, `${file}.onnx`))) throw new Error(`${path} lacks ${file}.onnx`);
    const golden = decodeSafetensors(readFileSync(join(path, "golden.safetensors")), name);
    const model = await toProgramOpset(decodeModel(readFileSync(join(path, `${file}.onnx`)), name));
    const feeds: Feeds = {};
    for (const { name: input = "" } of model.graph.input) {
      const tensor = golden.tensors.get(`input/${input}`) ?? golden.tensors.get(input);
      if (tensor) feeds[input] = toOrt(tensor);
    }
    expect(await unknownDimensions(model, feeds)).toBeLessThan(0.1 * model.graph.node.length);
  });
});

describe("inferTypes on computed shapes", () => {
  const shapeOf = async (build: (b: GraphBuilder, x: string) => string, shape: readonly Dim[] = ["batch", 6, 4]) => {
    const b = newBuilder();
    const result = build(b, b.input("x", { elemType: DataType.FLOAT, shape }));
    b.output(result, { elemType: DataType.FLOAT, shape: undefined });
    return (await inferTypes(modelOf(b.graph))).get(result)?.shape;
  };
  const batchOf = (b: GraphBuilder, x: string) => b.gather(b.shape(x), b.i64([0]));

  it("keeps symbols through Shape, Gather, Concat and Reshape", async () => {
    const shape = await shapeOf((b, x) => b.reshape(x, b.concat([batchOf(b, x), b.i64([-1])], 0)));
    expect(shape).toEqual(["batch", 24]);
  });

  it("names products", async () => {
    expect(await shapeOf((b, x) => b.reshape(x, [-1, 4]))).toEqual(["6*batch", 4]);
    expect(await shapeOf((b, x) => b.reshape(b.reshape(x, [-1, 4]), [-1, 6, 4]))).toEqual(["batch", 6, 4]);
    expect(await shapeOf((b, x) => b.op("Flatten", [x], { axis: 2 }), ["b", "t", 4])).toEqual(["b*t", 4]);
  });

  it("keeps what Resize does not change", async () => {
    const bySizes = (b: GraphBuilder, x: string) =>
      b.op("Resize", [x, "", "", b.concat([b.slice(b.shape(x), [0], [2], [0]), b.i64([9])], 0)]);
    expect(await shapeOf(bySizes, ["batch", "channels", 4])).toEqual(["batch", "channels", 9]);
    expect(await shapeOf((b, x) => b.op("Resize", [x, "", b.f32([1, 1, 1.5])]))).toEqual(["batch", 6, 6]);
    const along = (b: GraphBuilder, x: string) => b.op("Resize", [x, "", "", b.i64([7])], { axes: [-1] });
    expect(await shapeOf(along)).toEqual(["batch", 6, 7]);
  });

  it("gives what rounding makes of a symbol a name of its own", async () => {
    const half = (b: GraphBuilder, x: string) => b.div(batchOf(b, x), b.i64([2]));
    expect(await shapeOf((b, x) => b.expand(b.f32([1]), half(b, x)))).toEqual(["batch / 2"]);
    expect(await shapeOf((b, x) => b.expand(b.f32([1]), half(b, x)), [7, 6, 4])).toEqual([3]);
  });

  it("takes arithmetic on floats for no arithmetic on whole numbers", async () => {
    const scaled = (b: GraphBuilder, x: string) => {
      const size = b.cast(b.gather(b.shape(x), b.i64([1])), DataType.FLOAT);
      return b.cast(b.mul(b.div(size, b.f32(4)), b.f32(4)), DataType.INT64);
    };
    expect(await shapeOf((b, x) => b.expand(b.f32([1]), scaled(b, x)))).toEqual([null]);
  });

  it("leaves a broadcast of two symbols open", async () => {
    const b = newBuilder();
    const [x, y] = [b.input("x", { elemType: 1, shape: ["n"] }), b.input("y", { elemType: 1, shape: ["m"] })];
    b.output(b.add(x, y), { elemType: 1, shape: undefined });
    const sum = b.graph.output[0]?.name as string;
    expect((await inferTypes(modelOf(b.graph))).get(sum)?.shape).toEqual([null]);
  });

  it("takes Expand's ones for the input's own size", async () => {
    expect(await shapeOf((b, x) => b.expand(x, b.concat([batchOf(b, x), b.i64([1, 1])], 0)))).toEqual(["batch", 6, 4]);
  });
});
