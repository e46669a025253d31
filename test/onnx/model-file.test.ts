import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { FishyError } from "../../src/errors.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { externalEntries, readTensor } from "../../src/onnx/external.js";
import { loadModel, saveModel } from "../../src/onnx/model-file.js";
import { DataLocation, DataType, type ModelProto, type TensorProto } from "../../src/onnx/proto.js";
import { dataOf, isExternal, tensorFromData } from "../../src/onnx/tensor.js";
import { modelOf, newBuilder } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";
import { temporaryFolder } from "../support/temporary.js";
import { field } from "../support/wire.js";

const AUTOENCODER = join(GRAPHS, "pytorch", "autoencoder_tanh", "model.onnx");

/** y = x · W + b with W of 32 × 32. */
function linearModel(): ModelProto {
  const g = newBuilder();
  const x = g.input("x", { elemType: DataType.FLOAT, shape: ["batch", 32] });
  const weights = Float32Array.from({ length: 32 * 32 }, (_, i) => Math.sin(i));
  const w = g.initializer("w", DataType.FLOAT, [32, 32], weights);
  const b = g.initializer(
    "b",
    DataType.FLOAT,
    [32],
    Float32Array.from({ length: 32 }, (_, i) => i),
  );
  g.output(g.alias(g.gemm(x, w, { c: b }), "y"), { elemType: DataType.FLOAT, shape: ["batch", 32] });
  return modelOf(g.graph);
}

/** The same with W in `weights.bin`, after 16 bytes that are not its own. */
function writeExternalModel(folder: string, changes: Partial<Record<string, string>> = {}): string {
  const proto = linearModel();
  const w = proto.graph.initializer[0] as TensorProto;
  writeFileSync(join(folder, "weights.bin"), Buffer.concat([Buffer.alloc(16, 7), w.rawData as Uint8Array]));
  delete w.rawData;
  w.dataLocation = DataLocation.EXTERNAL;
  const entries = { location: "weights.bin", offset: "16", length: "4096", ...changes };
  w.externalData = Object.entries(entries).flatMap(([key, value]) => (value === undefined ? [] : [{ key, value }]));
  const path = join(folder, "model.onnx");
  writeFileSync(path, encodeModel(proto));
  return path;
}

async function weightOf(path: string): Promise<ArrayLike<number>> {
  const model = await loadModel(path);
  const w = model.proto.graph.initializer.find(({ name }) => name === "w") as TensorProto;
  return (await readTensor(model, w)) as Float32Array;
}

const weights = dataOf(linearModel().graph.initializer[0] as TensorProto) as Float32Array;

/** Runs the file with ONNX Runtime, which has its own reader of external data. */
async function run(path: string): Promise<Float32Array> {
  const session = await ort.InferenceSession.create(path, { logSeverityLevel: 3 });
  const x = new ort.Tensor(
    "float32",
    Float32Array.from({ length: 64 }, (_, i) => Math.cos(i)),
    [2, 32],
  );
  const { y } = await session.run({ x });
  await session.release();
  return y?.data as Float32Array;
}

describe("loadModel", () => {
  it("loads a PyTorch export", async () => {
    const model = await loadModel(AUTOENCODER);
    expect(model.directory).toBe(join(GRAPHS, "pytorch", "autoencoder_tanh"));
    expect(model.proto.graph.node.length).toBe(10);
  });

  const whole = readFileSync(AUTOENCODER);
  const valid = encodeModel(linearModel());
  const opset = (domain: string, version: number) => {
    const model = linearModel();
    model.opsetImport = [{ domain, version }];
    return encodeModel(model);
  };
  it.each<[string, Uint8Array | string, RegExp]>([
    ["an empty file", new Uint8Array(0), /model\.onnx is empty/],
    ["text", "# A README\n\nNot a model.\n", /is not an ONNX model .*Expected a file written by torch\.onnx\.export/],
    ["random bytes", Uint8Array.from({ length: 999 }, (_, i) => (i * i * 31 + 7) % 251), /is not an ONNX model/],
    ["half a file", whole.subarray(0, whole.length / 2), /cut off inside its graph: \d+ bytes are missing/],
    ["a file without its last byte", whole.subarray(0, -1), /cut off/],
    [
      "a file cut between fields",
      valid.subarray(0, valid.length - field(8, [10, 0, 16, 18]).length),
      /cut off .*opset/,
    ],
    ["a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", /git lfs pull/],
    ["a zip archive", "PK\x03\x04aaaaaaaaaaaaaaaaaaa", /torch\.save/],
    ["a web page", "<!DOCTYPE html><html></html>", /web page/],
    [
      "an IR version of the future",
      (() => encodeModel({ ...linearModel(), irVersion: 14 }))(),
      /IR version 14.*up to 13/,
    ],
    ["an opset of the future", opset("", 99), /opset 99.*opset_version=18/],
    ["no default domain", opset("com.microsoft", 1), /no opset of the default domain.*com\.microsoft/],
  ])("explains %s", async (_, bytes, message) => {
    const path = join(temporaryFolder(), "model.onnx");
    writeFileSync(path, bytes);
    const error = await loadModel(path).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(FishyError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toContain(path);
  });

  it("explains a missing file and a folder", async () => {
    const folder = temporaryFolder();
    await expect(loadModel(join(folder, "none.onnx"))).rejects.toThrow(
      /Cannot read .*none\.onnx: there is no such file/,
    );
    await expect(loadModel(folder)).rejects.toThrow(/is a folder/);
  });

  it("accepts the other spelling of the default domain", async () => {
    const path = join(temporaryFolder(), "model.onnx");
    writeFileSync(path, opset("ai.onnx", 18));
    expect((await loadModel(path)).proto.graph.node.length).toBe(2);
  });
});

describe("readTensor", () => {
  it("reads an external tensor at its offset", async () => {
    expect(await weightOf(writeExternalModel(temporaryFolder()))).toEqual(weights);
  });

  it("takes a missing offset as 0 and a missing length from the shape", async () => {
    const folder = temporaryFolder();
    const path = writeExternalModel(folder, { offset: undefined, length: undefined } as never);
    writeFileSync(join(folder, "weights.bin"), weights);
    expect(await weightOf(path)).toEqual(weights);
  });

  it.each<[string, Partial<Record<string, string>>, RegExp]>([
    ["a parent folder", { location: "../weights.bin" }, /leaves the model's folder/],
    ["a parent folder further down", { location: "a/../../weights.bin" }, /leaves the model's folder/],
    ["a parent folder with backslashes", { location: "a\\..\\..\\weights.bin" }, /leaves the model's folder/],
    ["an absolute path", { location: "/etc/passwd" }, /absolute path/],
    ["a Windows path", { location: "C:\\weights.bin" }, /absolute path/],
    ["a network path", { location: "\\\\host\\weights.bin" }, /absolute path/],
    ["a file that is not there", { location: "other.bin" }, /'other\.bin', which is not in .*Put it beside the model/],
    ["no location", { location: undefined } as never, /names no file/],
    ["an offset beyond the end", { offset: "20" }, /bytes 20 to 4116 of 'weights\.bin', which has only 4112/],
    ["a negative offset", { offset: "-4" }, /offset of its external data is '-4'/],
    [
      "a wrong length",
      { length: "4000" },
      /shape \[32, 32\] needs 4096 bytes, but 'weights\.bin' is said to hold 4000/,
    ],
    ["a folder as file", { location: "." }, /symbolic link|regular file|folder/],
  ])("refuses %s", async (_, changes, message) => {
    const path = writeExternalModel(temporaryFolder(), changes);
    const error = await weightOf(path).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(FishyError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toContain("Tensor 'w'");
  });

  it("refuses a symbolic link out of the folder and follows one inside it", async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, "model", "deeper"), { recursive: true });
    writeExternalModel(folder);
    const path = writeExternalModel(join(folder, "model"), { location: "link.bin" });
    symlinkSync(join(folder, "weights.bin"), join(folder, "model", "link.bin"));
    await expect(weightOf(path)).rejects.toThrow(/symbolic link that leaves/);
    const inside = writeExternalModel(join(folder, "model"), { location: "deeper/link.bin" });
    symlinkSync(join(folder, "model", "weights.bin"), join(folder, "model", "deeper", "link.bin"));
    expect(await weightOf(inside)).toEqual(weights);
  });

  it("does not take a folder of the same beginning for the model's own", async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, "model"));
    mkdirSync(join(folder, "model-evil"));
    writeExternalModel(join(folder, "model-evil"));
    const path = writeExternalModel(join(folder, "model"), { location: "link.bin" });
    symlinkSync(join(folder, "model-evil", "weights.bin"), join(folder, "model", "link.bin"));
    await expect(weightOf(path)).rejects.toThrow(/symbolic link that leaves/);
  });

  it("says so when the model came from memory", async () => {
    const { proto } = await loadModel(writeExternalModel(temporaryFolder()));
    await expect(readTensor({}, proto.graph.initializer[0] as TensorProto)).rejects.toThrow(/given as bytes/);
  });
});

describe("saveModel", () => {
  it("writes the bytes that it read", async () => {
    const path = join(temporaryFolder(), "copy.onnx");
    expect(await saveModel(await loadModel(AUTOENCODER), path)).toEqual({ path });
    expect(readFileSync(path).equals(readFileSync(AUTOENCODER))).toBe(true);
  });

  it("moves weights to external data on request, and ONNX Runtime reads them", async () => {
    const folder = temporaryFolder();
    const plain = join(folder, "plain.onnx");
    const path = join(folder, "model.onnx");
    await saveModel({ proto: linearModel() }, plain);
    expect(await saveModel({ proto: linearModel() }, path, { externalData: true })).toEqual({
      path,
      dataPath: `${path}.data`,
    });
    const [w, b] = (await loadModel(path)).proto.graph.initializer as [TensorProto, TensorProto];
    expect(Object.fromEntries(externalEntries(w))).toEqual({
      location: "model.onnx.data",
      offset: "0",
      length: "4096",
    });
    expect(isExternal(b), "128 bytes stay in the model").toBe(false);
    expect(await weightOf(path)).toEqual(weights);
    expect(await run(path)).toEqual(await run(plain));
    expect(readdirSync(folder).sort()).toEqual(["model.onnx", "model.onnx.data", "plain.onnx"]);
  });

  it("moves them by itself when the file would grow too large", async () => {
    const path = join(temporaryFolder(), "model.onnx");
    const saved = await saveModel({ proto: linearModel() }, path, { maxBytes: 4000 });
    expect(saved.dataPath).toBe(`${path}.data`);
    expect(statSync(path).size).toBeLessThan(1000);
    expect(await weightOf(path)).toEqual(weights);
  });

  it("aligns to pages, large tensors to 64 KiB, and writes shared bytes once", async () => {
    const proto = linearModel();
    const large = new Float32Array(2 ** 18).fill(3);
    proto.graph.initializer.push(
      tensorFromData("large", DataType.FLOAT, [2 ** 18], large),
      tensorFromData("tied", DataType.FLOAT, [2 ** 9, 2 ** 9], large),
      { name: "floats", dataType: DataType.FLOAT, dims: [2], floatData: [1, 2] },
    );
    const path = join(temporaryFolder(), "model.onnx");
    await saveModel({ proto }, path, { externalData: true, externalThreshold: 1 });
    const model = await loadModel(path);
    const places = model.proto.graph.initializer.map((tensor) => Object.fromEntries(externalEntries(tensor)));
    expect(places.map(({ offset, length }) => [Number(offset), Number(length)])).toEqual([
      [0, 4096],
      [4096, 128],
      [65536, 2 ** 20],
      [65536, 2 ** 20],
      [65536 + 2 ** 20, 8],
    ]);
    expect(await readTensor(model, model.proto.graph.initializer[4] as TensorProto)).toEqual(Float32Array.of(1, 2));
    expect(proto.graph.initializer.some(isExternal), "the given model is not changed").toBe(false);
  });

  it("keeps pointing to external weights in their own folder", async () => {
    const folder = temporaryFolder();
    const model = await loadModel(writeExternalModel(folder));
    const path = join(folder, "rewritten.onnx");
    expect(await saveModel(model, path)).toEqual({ path });
    expect(await weightOf(path)).toEqual(weights);
    expect(readdirSync(folder).sort()).toEqual(["model.onnx", "rewritten.onnx", "weights.bin"]);
  });

  it("copies external weights to another folder", async () => {
    const folder = temporaryFolder();
    const model = await loadModel(writeExternalModel(folder));
    mkdirSync(join(folder, "elsewhere"));
    const path = join(folder, "elsewhere", "rewritten.onnx");
    expect((await saveModel(model, path)).dataPath).toBe(`${path}.data`);
    expect(await weightOf(path)).toEqual(weights);
    expect(readFileSync(`${path}.data`).length).toBe(4096);
    expect(await run(path)).toEqual(await run(join(folder, "model.onnx")));
  });

  it("never overwrites the external data that the model itself uses", async () => {
    const folder = temporaryFolder();
    const path = join(folder, "model.onnx");
    await saveModel({ proto: linearModel() }, path, { externalData: true });
    const model = await loadModel(path);
    const extra = Float32Array.from({ length: 512 }, (_, i) => i);
    model.proto.graph.initializer.push(tensorFromData("extra", DataType.FLOAT, [512], extra));
    expect((await saveModel(model, path, { externalData: true })).dataPath).toBe(join(folder, "model.onnx.1.data"));
    expect(await weightOf(path)).toEqual(weights);
  });

  it("moves external tensors of attributes and subgraphs too", async () => {
    const folder = temporaryFolder();
    const { proto, directory } = await loadModel(writeExternalModel(folder));
    const g = newBuilder();
    const w = proto.graph.initializer[0] as TensorProto;
    const then = newBuilder();
    then.graph.initializer.push({ ...w, name: "then_w" });
    then.output("then_w", { elemType: DataType.FLOAT, shape: [32, 32] });
    const other = newBuilder();
    other.output(other.op("Constant", [], { value: { ...w, name: "" } }), {
      elemType: DataType.FLOAT,
      shape: [32, 32],
    });
    const c = g.input("c", { elemType: DataType.BOOL, shape: [] });
    g.output(g.op("If", [c], { then_branch: then.graph, else_branch: other.graph }), {
      elemType: DataType.FLOAT,
      shape: [32, 32],
    });
    mkdirSync(join(folder, "elsewhere"));
    const path = join(folder, "elsewhere", "if.onnx");
    await saveModel({ proto: modelOf(g.graph), directory }, path);
    expect(statSync(`${path}.data`).size).toBe(4096);
    const session = await ort.InferenceSession.create(path, { logSeverityLevel: 3 });
    const outputs = await session.run({ c: new ort.Tensor("bool", [true], []) });
    expect(Object.values(outputs)[0]?.data).toEqual(weights);
    await session.release();
  });

  it("leaves the old file and no others when it fails", async () => {
    const folder = temporaryFolder();
    const model = await loadModel(writeExternalModel(folder, { length: "9999" }));
    mkdirSync(join(folder, "elsewhere"));
    const path = join(folder, "elsewhere", "model.onnx");
    writeFileSync(path, "old");
    await expect(saveModel(model, path)).rejects.toThrow(/is said to hold 9999/);
    expect(readdirSync(join(folder, "elsewhere"))).toEqual(["model.onnx"]);
    expect(readFileSync(path, "utf8")).toBe("old");
  });

  it("explains a missing folder, a folder as target, and an invalid model", async () => {
    const folder = temporaryFolder();
    const model = { proto: linearModel() };
    await expect(saveModel(model, join(folder, "none", "m.onnx"))).rejects.toThrow(/folder .*none does not exist/);
    await expect(saveModel(model, folder)).rejects.toThrow(/is a folder/);
    model.proto.graph.node.reverse();
    await expect(saveModel(model, join(folder, "m.onnx"))).rejects.toThrow(/not in order/);
  });
});
