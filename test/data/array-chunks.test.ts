import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { type ChunkedDataset, isChunked, toMemory } from "../../src/data/chunked.js";
import type { Dataset } from "../../src/data/dataset.js";
import { loadDataset, openDataset } from "../../src/data/load.js";
import { encodeSafetensors } from "../../src/data/safetensors.js";
import { DataType } from "../../src/onnx/proto.js";
import { npyBytes } from "../support/npy.js";

const FIXTURES = join(import.meta.dirname, "../fixtures/data");
const folder = mkdtempSync(join(tmpdir(), "fishy-chunks-"));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);
/** Millions of numbers are compared by their bytes' hash. */
const contents = ({ columns }: Dataset) =>
  [...columns.values()].map(({ name, type, dims, data: { buffer, byteOffset, byteLength } }) => {
    const bytes = new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
    return [name, type, dims, createHash("sha256").update(bytes).digest("hex")];
  });

const [rows, width] = [3000, 1000];
const x = Float32Array.from({ length: rows * width }, (_, i) => i);
const labels = BigInt64Array.from({ length: rows }, (_, i) => BigInt(i % 7));
writeFileSync(path("x.npy"), npyBytes("<f4", [rows, width], x));
writeFileSync(path("labels.npy"), npyBytes("<i8", [rows], labels));
writeFileSync(
  path("both.safetensors"),
  encodeSafetensors(
    new Map([
      ["labels", { type: DataType.INT64, dims: [rows], data: labels }],
      ["x", { type: DataType.FLOAT, dims: [rows, width], data: x }],
    ]),
  ),
);

describe("large arrays", () => {
  test.each([
    ["NumPy's", [path("x.npy"), `labels=${path("labels.npy")}`]],
    ["safetensors'", [path("both.safetensors")]],
    ["NumPy's big-endian", [join(FIXTURES, "float64_big_endian.npy")]],
  ])("%s: read in parts, they are what they are whole", async (_, sources) => {
    const whole = await loadDataset(sources);
    const dataset = (await openDataset(sources, { stream: true })) as ChunkedDataset;
    expect(isChunked(dataset)).toBe(true);
    if (whole.length === rows) expect(dataset.chunks.length).toBe(2);
    expect(dataset.length).toBe(whole.length);
    expect(contents(await toMemory(dataset))).toEqual(contents(whole));
  });

  test("that fit are read at a stroke, and so are those stored column by column", async () => {
    expect(isChunked(await openDataset(path("both.safetensors")))).toBe(false);
    expect(isChunked(await openDataset(join(FIXTURES, "float32_fortran.npy"), { stream: true }))).toBe(false);
  });

  test("without a number in their examples are refused, in parts and whole", async () => {
    writeFileSync(path("hollow.npy"), npyBytes("<f4", [3, 0], new Float32Array()));
    for (const stream of [true, false]) {
      await expect(openDataset(path("hollow.npy"), { stream })).rejects.toThrow(
        /'hollow' of the dataset .* has examples of shape \[0\], which hold no number/,
      );
    }
  });

  test("of different lengths, or cut off, are refused", async () => {
    const other = join(FIXTURES, "int64_c.npy");
    await expect(openDataset([path("labels.npy"), other], { stream: true })).rejects.toThrow(
      /differ in length: 'labels' has 3000, 'int64_c' has 2/,
    );
    truncateSync(path("x.npy"), 1_000_000);
    await expect(openDataset(path("x.npy"), { stream: true })).rejects.toThrow(/x\.npy is cut off: .* \[3000, 1000\]/);
    truncateSync(path("both.safetensors"), 1_000_000);
    await expect(openDataset(path("both.safetensors"), { stream: true })).rejects.toThrow(
      /both\.safetensors is not a whole safetensors file: tensor 'x' lies at bytes/,
    );
  });
});
