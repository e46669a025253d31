import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { decodeIdx } from "../../src/data/idx.js";
import { loadDataset } from "../../src/data/load.js";
import { decodeNpy } from "../../src/data/npy.js";
import { decodeNpz } from "../../src/data/npz.js";
import { DataType } from "../../src/onnx/proto.js";
import { GRAPHS } from "../support/shared.js";

const FIXTURES = join(import.meta.dirname, "../fixtures/data");
const fixture = (name: string) => readFileSync(join(FIXTURES, name));
const FASHION_MNIST = join(GRAPHS, "data/fashion-mnist");
const folder = mkdtempSync(join(tmpdir(), "fishy-"));
afterAll(() => rmSync(folder, { recursive: true }));

const range = Array.from({ length: 24 }, (_, i) => i);

describe("NumPy", () => {
  test("row-major int64", () => {
    const array = decodeNpy(fixture("int64_c.npy"), "file");
    expect(array).toMatchObject({ type: DataType.INT64, dims: [2, 3, 4] });
    expect(Array.from(array.data as BigInt64Array, Number)).toEqual(range);
  });

  test("column-major arrays come out in row-major order", () => {
    const array = decodeNpy(fixture("float32_fortran.npy"), "file");
    expect(array).toMatchObject({ type: DataType.FLOAT, dims: [2, 3, 4] });
    expect([...(array.data as Float32Array)]).toEqual(range.map((i) => i / 2));
  });

  test("big-endian float64, bool, float16, and header version 3", () => {
    expect([...(decodeNpy(fixture("float64_big_endian.npy"), "f").data as Float64Array)]).toEqual(
      range.map((i) => i / 3),
    );
    expect([...(decodeNpy(fixture("bool.npy"), "f").data as Uint8Array)]).toEqual(
      range.map((i) => (i % 2 === 0 ? 1 : 0)),
    );
    expect([...(decodeNpy(fixture("float16.npy"), "f").data as Uint16Array)]).toEqual([0x3c00, 0x3800, 0xc000]);
    expect([...(decodeNpy(fixture("version3.npy"), "f").data as Uint16Array)]).toEqual([1, 2, 3]);
  });

  test("what is no numeric array, or is cut off, is refused", () => {
    expect(() => decodeNpy(fixture("strings.npy"), "names.npy")).toThrow(/names\.npy.*not of plain numbers.*<U1/);
    expect(() => decodeNpy(fixture("int64_c.npy").subarray(0, -1), "x.npy")).toThrow(
      /x\.npy is cut off.*192 bytes.*191/,
    );
    expect(() => decodeNpy(Buffer.from("not numpy at all"), "x.npy")).toThrow(/not a \.npy file/);
  });

  test("archives, stored and deflated", () => {
    const stored = decodeNpz(fixture("stored.npz"), "file");
    expect([...stored.keys()].sort()).toEqual(["labels", "x"]);
    expect(stored.get("x")?.data).toEqual(Float32Array.from(range));
    const deflated = decodeNpz(fixture("deflated.npz"), "file");
    expect(deflated.get("x")).toMatchObject({ dims: [2, 1000] });
    expect(deflated.get("x")?.data).toEqual(new Float32Array(2000).fill(1.25));
  });

  test("damaged archives are refused", () => {
    const bytes = Buffer.from(fixture("stored.npz"));
    expect(() => decodeNpz(bytes.subarray(0, 100), "x.npz")).toThrow(/x\.npz is not a whole \.npz file/);
    bytes[200] = (bytes[200] as number) ^ 1;
    expect(() => decodeNpz(bytes, "x.npz")).toThrow(/x\.npz is not a whole \.npz file.*checksum of 'x\.npy'/);
  });
});

describe("IDX", () => {
  test("Fashion-MNIST: known shapes, labels and pixels", async () => {
    const dataset = await loadDataset(FASHION_MNIST);
    expect(dataset.length).toBe(10_000);
    expect(dataset.columns.get("images")).toMatchObject({ type: DataType.UINT8, dims: [28, 28] });
    const labels = dataset.columns.get("labels")?.data as Uint8Array;
    const counts = new Array(10).fill(0);
    for (const label of labels) counts[label]++;
    expect(counts).toEqual(new Array(10).fill(1000));
    // The first test image is an ankle boot.
    expect(labels[0]).toBe(9);
    const raw = gunzipSync(readFileSync(join(FASHION_MNIST, "t10k-images-idx3-ubyte.gz")));
    expect(Buffer.compare(dataset.columns.get("images")?.data as Uint8Array, raw.subarray(16))).toBe(0);
  });

  test("elements of several bytes are big-endian", () => {
    const bytes = Uint8Array.of(0, 0, 0x0c, 1, 0, 0, 0, 2, 0, 0, 1, 2, 0xff, 0xff, 0xff, 0xfe);
    const array = decodeIdx(bytes, "file");
    expect(array).toMatchObject({ type: DataType.INT32, dims: [2] });
    expect([...(array.data as Int32Array)]).toEqual([258, -2]);
  });

  test("cut off or not IDX", () => {
    expect(() => decodeIdx(Uint8Array.of(0, 0, 8, 1, 0, 0, 0, 9, 1), "x.idx")).toThrow(
      /x\.idx is cut off.*takes 9 bytes.*holds 1/,
    );
    expect(() => decodeIdx(Buffer.from("PNG...."), "x.idx")).toThrow(/not an IDX file/);
  });
});

describe("loadDataset", () => {
  test("safetensors, and NAME=PATH renames", async () => {
    const two = await loadDataset(join(FIXTURES, "two.safetensors"));
    expect([...two.columns.keys()].sort()).toEqual(["labels", "x"]);
    expect(two.length).toBe(2);
    const mixed = await loadDataset([`a=${join(FIXTURES, "int64_c.npy")}`, `b=${join(FIXTURES, "bool.npy")}`]);
    expect([...mixed.columns.keys()]).toEqual(["a", "b"]);
    expect(mixed.columns.get("a")?.dims).toEqual([3, 4]);
  });

  test("a folder of several splits gives the one to train on", async () => {
    const idx = (values: number[]) => Uint8Array.of(0, 0, 8, 1, 0, 0, 0, values.length, ...values);
    writeFileSync(join(folder, "train-labels-idx1-ubyte.gz"), gzipSync(idx([1, 2, 3])));
    writeFileSync(join(folder, "t10k-labels-idx1-ubyte.gz"), gzipSync(idx([4])));
    expect((await loadDataset(folder)).length).toBe(3);
  });

  test("errors name the file and the remedy", async () => {
    await expect(loadDataset(join(folder, "nowhere"))).rejects.toThrow(/no file or folder .*nowhere/);
    const text = join(folder, "data.txt");
    writeFileSync(text, "1 2 3");
    await expect(loadDataset(text)).rejects.toThrow(/data\.txt is in no dataset format.*IDX.*NumPy.*safetensors/);
    const broken = join(folder, "broken-idx1-ubyte.gz");
    writeFileSync(broken, gzipSync(Uint8Array.of(0, 0, 8, 1, 0, 0, 0, 1, 5)).subarray(0, 12));
    await expect(loadDataset(broken)).rejects.toThrow(/broken-idx1-ubyte\.gz is not a whole gzip file/);
    await expect(loadDataset([join(FIXTURES, "int64_c.npy"), join(FIXTURES, "version3.npy")])).rejects.toThrow(
      /differ in length.*'int64_c' has 2, 'version3' has 3/,
    );
    await expect(loadDataset([`x=${join(FIXTURES, "stored.npz")}`])).rejects.toThrow(
      /holds 2 columns \((x, labels|labels, x)\)/,
    );
  });
});
