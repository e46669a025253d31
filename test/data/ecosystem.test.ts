/** Datasets as NumPy, pyarrow, Pillow and CIFAR's authors write them (tools/export/data_fixtures.py), and what those read. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type ChunkedDataset, isChunked } from "../../src/data/chunked.js";
import { decodeImage, withChannels } from "../../src/data/images.js";
import { loadDataset, openDataset } from "../../src/data/load.js";
import { decodeNpz } from "../../src/data/npz.js";
import { resize, resizeAndCrop } from "../../src/data/resize.js";
import { DataType } from "../../src/onnx/proto.js";

const FIXTURES = join(import.meta.dirname, "../fixtures/data/formats");
const expected = decodeNpz(readFileSync(join(FIXTURES, "expected.npz")), "expected.npz");
const values = (name: string) => {
  const array = expected.get(name.replaceAll("/", "|"));
  if (!array) throw new Error(`no expected values of ${name}`);
  return array;
};
const numbers = (data: ArrayLike<unknown>) => Array.from(data, Number);
const image = (name: string) => decodeImage(readFileSync(join(FIXTURES, "images", name)), name);

describe("images", () => {
  test.each(["rgb.png", "grey.png", "alpha.png", "palette.png", "bits1.png", "rgb.jpg", "progressive.jpg", "grey.jpg"])(
    "%s: Pillow's pixels, every one",
    async (name) => {
      const decoded = await image(name);
      const { dims, data } = values(`images/${name}`);
      expect([decoded.channels, decoded.height, decoded.width]).toEqual(dims);
      expect(decoded.data).toEqual(data);
    },
  );

  test("grey levels of colours, and colours of grey levels", async () => {
    const rgb = await image("rgb.png");
    expect(withChannels(rgb, 1).data).toEqual(values("luma/rgb.png").data);
    const grey = await image("grey.png");
    const colours = withChannels(grey, 3);
    for (const c of [0, 1, 2]) expect(colours.data.subarray(99 * c, 99 * (c + 1))).toEqual(grey.data);
  });

  test.each(["20x30", "17x23", "80x120"])("resized to %s as Pillow's BILINEAR, up to its rounding", async (size) => {
    const { dims, data } = values(`resize/${size}`);
    const resized = resize(await image("big.png"), dims[1] as number, dims[2] as number);
    const difference = numbers(resized.data).map((value, i) => Math.abs(value - Number(data[i])));
    expect(Math.max(...difference)).toBeLessThanOrEqual(1);
    // Pillow sums in fixed point: a few values fall to the other side of one half.
    expect(difference.filter((value) => value > 0).length).toBeLessThan(0.01 * difference.length);
  });

  test("the shorter side resized and the middle cut out", async () => {
    const cropped = resizeAndCrop(await image("big.png"), [16, 16]);
    const { data } = values("crop/16x16");
    expect(Math.max(...numbers(cropped.data).map((value, i) => Math.abs(value - Number(data[i]))))).toBeLessThanOrEqual(
      1,
    );
  });

  test("that are cut off or none are refused", async () => {
    const jpeg = readFileSync(join(FIXTURES, "images/rgb.jpg"));
    await expect(decodeImage(jpeg.subarray(0, 700), "x.jpg")).rejects.toThrow(
      /x\.jpg is not a whole JPEG image: Premature end/,
    );
    const png = readFileSync(join(FIXTURES, "images/rgb.png"));
    await expect(decodeImage(png.subarray(0, 300), "x.png")).rejects.toThrow(/x\.png is not a whole PNG image/);
    await expect(decodeImage(Buffer.from("GIF89a"), "x.gif")).rejects.toThrow(/neither a PNG nor a JPEG/);
    await expect(decodeImage(Uint8Array.of(0xff, 0xd8, 1, 2), "y.jpg")).rejects.toThrow(/y\.jpg is not a whole JPEG/);
  });

  test("a folder by class, in an order that mixes the classes", async () => {
    const { columns, length } = await loadDataset(join(FIXTURES, "classes"));
    expect(length).toBe(9);
    expect(columns.get("images")).toMatchObject({ type: DataType.UINT8, dims: [3, 4, 5], isImage: true });
    const labels = numbers(columns.get("labels")?.data as BigInt64Array);
    expect(columns.get("labels")?.categories).toEqual(["ant", "bee", "cat"]);
    expect([...labels].sort()).toEqual([0, 0, 0, 1, 1, 1, 2, 2, 2]);
    expect(labels).not.toEqual([...labels].sort());
    // Every image is filled with 10·class + number.
    const pixels = columns.get("images")?.data as Uint8Array;
    const seen = labels.map((label, i) => {
      const own = pixels.subarray(60 * i, 60 * (i + 1));
      expect(Math.floor((own[0] as number) / 10)).toBe(label);
      expect(own.every((value) => value === own[0])).toBe(true);
      return own[0];
    });
    expect(new Set(seen).size).toBe(9);
  });
});

describe("CIFAR's binary version", () => {
  test.each([
    ["cifar10", ["data_batch_1.bin", "data_batch_2.bin"], { labels: "labels" }],
    ["cifar100", ["train.bin"], { labels: "fine_labels", coarse_labels: "coarse_labels" }],
  ] as const)("%s: the folder's training files one after the other", async (name, files, labels) => {
    const { columns, length } = await loadDataset(join(FIXTURES, name));
    expect(length).toBe(3 * files.length);
    const all = (column: string) => files.flatMap((file) => numbers(values(`${name}/${file}/${column}`).data));
    expect(columns.get("images")).toMatchObject({ dims: [3, 32, 32], isImage: true });
    expect(numbers(columns.get("images")?.data as Uint8Array)).toEqual(all("images"));
    for (const [own, theirs] of Object.entries(labels)) {
      expect(numbers(columns.get(own)?.data as Uint8Array)).toEqual(all(theirs));
    }
  });

  test("a test file by name, and one that is cut off", async () => {
    const dataset = await loadDataset(join(FIXTURES, "cifar10/test_batch.bin"));
    expect(numbers(dataset.columns.get("labels")?.data as Uint8Array)).toEqual(
      numbers(values("cifar10/test_batch.bin/labels").data),
    );
    const { decodeCifar } = await import("../../src/data/cifar.js");
    expect(() => decodeCifar(new Uint8Array(3074), "test_batch.bin", "x")).toThrow(
      /no whole file of CIFAR-10.*3074.*3073/,
    );
  });
});

describe("Parquet", () => {
  test.each(["snappy", "zstd", "gzip", "brotli", "lz4", "none"])("compressed by %s", async (codec) => {
    const { columns, length } = await loadDataset(join(FIXTURES, `parquet/${codec}.parquet`));
    expect(length).toBe(23);
    const types = {
      float: DataType.FLOAT,
      double: DataType.DOUBLE,
      int: DataType.INT32,
      long: DataType.INT64,
      byte: DataType.UINT8,
      flag: DataType.BOOL,
      list: DataType.FLOAT,
      matrix: DataType.INT64,
    };
    for (const [name, type] of Object.entries(types)) {
      const column = columns.get(name);
      const { dims, data } = values(`parquet/${name}`);
      expect(column?.type).toBe(type);
      expect(column?.dims).toEqual(dims.slice(1));
      expect(numbers(column?.data as Float64Array)).toEqual(numbers(data));
    }
    // Texts are numbered by their sorted set, though the last row group lacks one of them.
    const word = columns.get("word");
    expect(word?.categories).toEqual(["ant", "bee", "cat"]);
    const words = numbers(word?.data as BigInt64Array).map((i) => word?.categories?.[i]);
    expect(words).toEqual(Array.from({ length: 23 }, (_, i) => ["bee", "ant", "cat"][i < 12 ? i % 3 : i % 2]));
  });

  test("as the hub keeps images: shards of the training split, row groups as chunks, pixels as Pillow's", async () => {
    const dataset = (await openDataset(join(FIXTURES, "hub"), { stream: true })) as ChunkedDataset;
    expect(isChunked(dataset)).toBe(true);
    expect(dataset).toMatchObject({ length: 7, chunks: [3, 1, 3] });
    const last = await dataset.read(2);
    expect(numbers(last.columns.get("label")?.data as BigInt64Array)).toEqual([1, 2, 0]);
    const { columns } = await loadDataset(join(FIXTURES, "hub"));
    const { dims, data } = values("hub/image");
    expect(columns.get("image")).toMatchObject({ dims: dims.slice(1), isImage: true });
    expect(columns.get("image")?.data).toEqual(data);
    expect(numbers(last.columns.get("image")?.data as Uint8Array)).toEqual(numbers(data).slice(-3 * 3 * 8 * 6));
    expect(numbers(columns.get("label")?.data as BigInt64Array)).toEqual(numbers(values("hub/label").data));
  });

  test("that is cut off, of other columns, or beside other formats, is refused", async () => {
    const { writeFileSync, mkdtempSync, rmSync } = await import("node:fs");
    const { tmpdir } = await import("node:os");
    const folder = mkdtempSync(join(tmpdir(), "fishy-parquet-"));
    try {
      const bytes = readFileSync(join(FIXTURES, "parquet/snappy.parquet"));
      writeFileSync(join(folder, "cut.parquet"), bytes.subarray(0, bytes.length - 100));
      await expect(loadDataset(join(folder, "cut.parquet"))).rejects.toThrow(
        /cut\.parquet is not a whole Parquet file/,
      );
      const damaged = Buffer.from(bytes);
      damaged.fill(0, 20, 200);
      writeFileSync(join(folder, "bad.parquet"), damaged);
      await expect(loadDataset(join(folder, "bad.parquet"))).rejects.toThrow(/bad\.parquet/);
      const hub = join(FIXTURES, "hub/test-00000-of-00001.parquet");
      const otherFormat = readFileSync(hub, "latin1").replaceAll("\xff\xd8", "\xfe\xd8");
      writeFileSync(join(folder, "binary.parquet"), otherFormat, "latin1");
      await expect(loadDataset(join(folder, "binary.parquet"))).rejects.toThrow(
        /'image' of .*binary\.parquet, row 0 .* neither text nor an image in PNG or JPEG/,
      );
      await expect(loadDataset([join(FIXTURES, "parquet/none.parquet"), hub])).rejects.toThrow(
        /has the columns image, label, but .* float, double/,
      );
      await expect(loadDataset([hub, join(FIXTURES, "../int64_c.npy")])).rejects.toThrow(
        /int64_c\.npy cannot be joined to Parquet/,
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
