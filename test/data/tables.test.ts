import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { BoundDataset, type WantedInput } from "../../src/data/bind.js";
import { decodeCsv } from "../../src/data/csv.js";
import type { Dataset } from "../../src/data/dataset.js";
import { loadDataset } from "../../src/data/load.js";
import { DataType } from "../../src/onnx/proto.js";
import type { TensorData } from "../../src/onnx/tensor.js";
import { npyBytes } from "../support/npy.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-tables-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, content: string | Uint8Array): string {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
}

const column = (dataset: Dataset, name: string) => Array.from(dataset.columns.get(name)?.data as Float32Array, Number);
const csv = (text: string) => decodeCsv(Buffer.from(text), "x.csv");

describe("CSV", () => {
  test("numbers, quotes, line ends of Windows, texts as classes", () => {
    const dataset = csv('﻿"a, b",whole,kind\r\n1.5,7,"dog"\r\n-2e-1,-3,"ca""t"\r\n\r\n.25,0,dog\r\n');
    expect([...dataset.columns.keys()]).toEqual(["a, b", "whole", "kind"]);
    expect(dataset.columns.get("a, b")?.type).toBe(DataType.FLOAT);
    expect(column(dataset, "a, b")).toEqual([1.5, Math.fround(-0.2), 0.25]);
    expect(dataset.columns.get("whole")?.type).toBe(DataType.INT32);
    expect(column(dataset, "whole")).toEqual([7, -3, 0]);
    expect(dataset.columns.get("kind")).toMatchObject({ type: DataType.INT64, categories: ['ca"t', "dog"] });
    expect(column(dataset, "kind")).toEqual([1, 0, 1]);
  });

  test("fields that span lines, tabs, and a file without a last line end", () => {
    expect(csv('text,n\n"two\nlines",1\nb,2').columns.get("text")?.categories).toEqual(["b", "two\nlines"]);
    expect(column(csv("a\tb\n1\t2\n3\t4"), "b")).toEqual([2, 4]);
  });

  test("whole numbers of many digits are int64 and exact; beyond it they are refused", () => {
    const dataset = csv("id\n9007199254740993\n+5\n-9223372036854775808\n");
    const { type, data } = dataset.columns.get("id") ?? {};
    expect(type).toBe(DataType.INT64);
    expect([...(data as BigInt64Array)]).toEqual([9007199254740993n, 5n, -(2n ** 63n)]);
    expect(() => csv("id\n1\n9223372036854775808\n")).toThrow(/row 1 .* holds 9223372036854775808.* beyond int64/);
    expect(csv("id\n1.5\n9223372036854775808\n").columns.get("id")?.type).toBe(DataType.FLOAT);
  });

  test("what is not right is named with its row", () => {
    expect(() => csv('a\n1\n""\n2\n')).toThrow(/'a' of x\.csv, row 1 .* is empty/);
    expect(() => csv("a,b\n1,2\n3\n")).toThrow(/1 fields in row 1 .*the header has 2/);
    expect(() => csv("a,b\n1,\n")).toThrow(/'b' of x\.csv, row 0 .* is empty/);
    expect(() => csv("a\n1\ntwo\n")).toThrow(/row 1 .* holds 'two', and other rows hold numbers/);
    expect(() => csv('a\n"1\n')).toThrow(/ends inside quotes/);
    expect(() => csv('a\nx\n"y"z\n')).toThrow(/text behind the closing quote of 'y' in row 1/);
    expect(() => csv("1,2\n3,4\n")).toThrow(/has no header/);
    expect(() => csv("a;b\n1;2\n")).toThrow(/x\.csv is separated by semicolons. Save it with commas or tabs/);
    const latin = Uint8Array.of(0x61, 0x0a, 0x63, 0xe9, 0x0a);
    expect(() => decodeCsv(latin, "x.csv")).toThrow(/x\.csv is no text in UTF-8/);
    expect(() => csv("a,b\n")).toThrow(/holds no rows/);
  });

  test("files follow one another, compressed or not; their texts share one numbering", async () => {
    const one = file("train-1.csv", "x,label\n1,b\n2,a\n");
    const two = file("train-2.csv.gz", gzipSync("x,label\n3,c\n4,b\n"));
    const dataset = await loadDataset([one, two]);
    expect(column(dataset, "x")).toEqual([1, 2, 3, 4]);
    expect(dataset.columns.get("label")?.categories).toEqual(["a", "b", "c"]);
    expect(column(dataset, "label")).toEqual([1, 0, 2, 1]);
    const odd = (text: string) => loadDataset([one, file("odd.csv", text)]);
    await expect(odd("label\na\n")).rejects.toThrow(/odd\.csv has no column 'x', which .*train-1\.csv has/);
    await expect(odd("x,label,y\n1,a,2\n")).rejects.toThrow(/odd\.csv has a column 'y', which .* lacks/);
    await expect(odd("x,label\n1,2\n")).rejects.toThrow(/odd\.csv holds numbers in the column 'label', .* texts/);
    await expect(odd("x,label\nb,a\n")).rejects.toThrow(/odd\.csv holds texts in the column 'x', .* numbers/);
    // What one file needs holds for both.
    for (const [text, type, values] of [
      ["x,label\n2.5,a\n", DataType.FLOAT, [1, 2, 2.5]],
      ["x,label\n4294967296,a\n", DataType.INT64, [1, 2, 4294967296]],
    ] as const) {
      const joined = await odd(text);
      expect(joined.columns.get("x")?.type).toBe(type);
      expect(column(joined, "x")).toEqual(values);
    }
  });
});

/** The first input's elements of all rows. */
function filled(dataset: Dataset, wanted: readonly WantedInput[], mapping: Record<string, string> = {}) {
  const bound = BoundDataset.bind(dataset, wanted, { mapping });
  const into = new Map<string, TensorData>(
    bound.inputs.map(({ name, type, dims }) => {
      const length = dataset.length * dims.reduce((product, dim) => product * dim, 1);
      return [name, type === DataType.INT64 ? new BigInt64Array(length) : new Float32Array(length)];
    }),
  );
  bound.batch(Uint32Array.from({ length: dataset.length }, (_, i) => i)).fill(into);
  return [...into.values()].map((data) => Array.from(data as Float32Array, Number));
}

describe("a table for a model", () => {
  const iris = csv("length,width,label,id\n1,2.5,b,7\n3,4,a,8\n");
  const input = (features: number | string): WantedInput => ({
    ...{ name: "x", type: DataType.FLOAT, shape: ["batch", features], isTarget: false },
  });
  const labels: WantedInput = { name: "labels", type: DataType.INT64, shape: ["batch"], isTarget: true, classes: 2 };

  test("its numbers side by side, when there are as many as the model takes", () => {
    expect(filled(iris, [input(3), labels])).toEqual([
      [1, 2.5, 7, 3, 4, 8],
      [1, 0],
    ]);
    expect(filled(iris, [input("features"), labels])[0]).toEqual([1, 2.5, 7, 3, 4, 8]);
  });

  test("those that are named, in that order", () => {
    expect(filled(iris, [input(2), labels], { x: "width,length" })[0]).toEqual([2.5, 1, 4, 3]);
    expect(() => filled(iris, [input(2), labels])).toThrow(
      /Which column fills the input 'x', which takes \[2\] for each example\?.*COLUMN,COLUMN/,
    );
    expect(() => filled(iris, [input(2), labels], { x: "width,label" })).toThrow(/'label' .* holds texts/);
    expect(() => filled(iris, [input(2), labels], { x: "width,depth" })).toThrow(
      /the column 'depth', which .* does not have/,
    );
  });

  test("numbers beyond int32 stay what they are", () => {
    const wide = csv("a,b\n4294967297,1\n2,-4294967298\n");
    const whole: WantedInput = { name: "x", type: DataType.INT64, shape: ["batch", 2], isTarget: false };
    expect(filled(wide, [whole])).toEqual([[4294967297, 1, 2, -4294967298]]);
  });

  test("a target that is mapped is no feature", () => {
    const table = csv("a,b,species\n1,2,0\n3,4,1\n");
    expect(filled(table, [input(2), labels], { labels: "species" })).toEqual([
      [1, 2, 3, 4],
      [0, 1],
    ]);
  });
});

describe("sequences of tokens", () => {
  test("JSON lines of documents, joined and cut; labels are the next tokens", async () => {
    const path = file("docs.jsonl", '{"input_ids": [1, 2, 3]}\n{"input_ids": [4, 5]}\n\n{"input_ids": [6, 7, 8]}\n');
    const dataset = await loadDataset(path, { sequenceLength: 3 });
    expect(dataset.length).toBe(2);
    expect(column(dataset, "input_ids")).toEqual([1, 2, 3, 4, 5, 6]);
    expect(column(dataset, "labels")).toEqual([2, 3, 4, 5, 6, 7]);
    await expect(loadDataset(path)).rejects.toThrow(
      /'input_ids' .* row 1 .* has the shape \[2\], the first row \[3\].*--sequence-length/,
    );
  });

  test("texts as UTF-8 bytes, alone or in JSON lines", async () => {
    const text = file("corpus.txt", "abcdé\nf");
    const dataset = await loadDataset(text, { sequenceLength: 3 });
    expect(column(dataset, "input_ids")).toEqual([...Buffer.from("abcdé\nf")].slice(0, 6));
    expect(column(dataset, "labels")).toEqual([...Buffer.from("abcdé\nf")].slice(1, 7));
    await expect(loadDataset(text)).rejects.toThrow(
      /corpus\.txt is in no dataset format.*\*\.txt\[\.gz\] with --sequence-length/,
    );
    const lines = file("texts.jsonl", '{"text": "ab"}\n{"text": "cd"}\n');
    expect(column(await loadDataset(lines, { sequenceLength: 5 }), "labels")).toEqual([...Buffer.from("b\ncd\n")]);
  });

  test("uint16 files, flat arrays, and streams that are too short", async () => {
    const bytes = new Uint8Array(Uint16Array.from([300, 1, 2, 60_000, 4]).buffer);
    const dataset = await loadDataset(file("train.bin", bytes), { sequenceLength: 2 });
    expect(column(dataset, "input_ids")).toEqual([300, 1, 2, 60_000]);
    expect(column(dataset, "labels")).toEqual([1, 2, 60_000, 4]);
    await expect(loadDataset(join(folder, "train.bin"), { sequenceLength: 5 })).rejects.toThrow(
      /holds 5 tokens.*take 6/,
    );
    await expect(loadDataset(file("odd.bin", new Uint8Array(3)), { sequenceLength: 1 })).rejects.toThrow(/odd number/);
  });

  test("a flat array of numbers is a stream of tokens only when it is alone", async () => {
    const tokens = file("tokens.npy", npyBytes("<i4", [7], Int32Array.of(1, 2, 3, 4, 5, 6, 7)));
    const alone = await loadDataset(tokens, { sequenceLength: 3 });
    expect(column(alone, "input_ids")).toEqual([1, 2, 3, 4, 5, 6]);
    const x = file("x.npy", npyBytes("<i4", [7, 3], new Int32Array(21)));
    const both = await loadDataset([x, `labels=${tokens}`], { sequenceLength: 3 });
    expect(column(both, "labels")).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect([...(await loadDataset([x, tokens], { sequenceLength: 3 })).columns.keys()]).toEqual(["x", "tokens"]);
  });

  test("JSON lines of fields: a column for each", async () => {
    const wide = await loadDataset(file("wide.jsonl", '{"x": 1e30, "y": 4294967296}\n'));
    expect([column(wide, "x"), column(wide, "y")]).toEqual([[Math.fround(1e30)], [2 ** 32]]);
    const path = file("rows.jsonl", '{"x": [1, 2.5], "y": true, "z": 3}\n{"x": [3, 4], "y": false, "z": -1}\n');
    const dataset = await loadDataset(path);
    expect(dataset.columns.get("x")).toMatchObject({ type: DataType.FLOAT, dims: [2] });
    expect(column(dataset, "x")).toEqual([1, 2.5, 3, 4]);
    expect(column(dataset, "y")).toEqual([1, 0]);
    expect(dataset.columns.get("z")?.type).toBe(DataType.INT32);
    const bad = (text: string) => loadDataset(file("bad.jsonl", text));
    await expect(bad('{"x": [[1, 2], [3, 4]]}\n{"x": [[1, 2], [3]]}\n')).rejects.toThrow(
      /row 1 .* has the shape of lists of unequal lengths, the first row \[2, 2\]/,
    );
    // As many numbers in all as a first list of that length would give.
    await expect(bad('{"x": [[1, 2], [3, 4, 5], [6]]}\n')).rejects.toThrow(/row 0 .* lists of unequal lengths/);
    await expect(bad('{"x": 1}\n{"y": 1}\n')).rejects.toThrow(/Line 2 of .*bad\.jsonl lacks the field 'x'/);
    await expect(bad('{"x": 1}\n{"x": 1, "y": 1}\n')).rejects.toThrow(
      /Line 2 .* has a field 'y' that the first line lacks/,
    );
    await expect(bad('{"x": 1}\n{"x": }\n')).rejects.toThrow(/Line 2 .* is not JSON/);
    await expect(bad('{"x": 1}\n{"x": null}\n')).rejects.toThrow(/row 1 .* is empty/);
    await expect(bad('{"x": 1}\n{"x": "a"}\n')).rejects.toThrow(/row 1 .* holds "a", which is no number/);
  });
});
