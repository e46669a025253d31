/** The order and the contents of batches: shuffled, streamed, padded, augmented, normalised, and made ahead. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { augmentationOf } from "../../src/data/augment.js";
import { BoundDataset, type WantedInput } from "../../src/data/bind.js";
import type { ChunkedDataset } from "../../src/data/chunked.js";
import { columnOf, type Dataset, makeDataset } from "../../src/data/dataset.js";
import { openDataset } from "../../src/data/load.js";
import { prefetched } from "../../src/data/prefetch.js";
import { allRows, bindRows } from "../../src/data/rows.js";
import type { ShuffleOptions } from "../../src/data/shuffled.js";
import type { Batch, BatchSource } from "../../src/data/source.js";
import { splitRows } from "../../src/data/split.js";
import { DataType } from "../../src/onnx/proto.js";
import { elementCount, newData, type TensorData } from "../../src/onnx/tensor.js";

process.env.NODE_OPTIONS = `--import ${new URL("../support/register-typescript.mjs", import.meta.url).href}`;

const wanted: WantedInput[] = [{ name: "x", type: DataType.FLOAT, shape: ["batch", 2], isTarget: false }];

/** Rows [row, 2·row]. */
function numbered(length: number, offset = 0): Dataset {
  const data = Float32Array.from({ length: 2 * length }, (_, i) => (offset + Math.floor(i / 2)) * (1 + (i % 2)));
  return makeDataset("numbered", [columnOf("x", DataType.FLOAT, [length, 2], data)]);
}

/** The same rows in chunks; `read` lists the chunks that were read. */
function inChunks(chunks: readonly number[], read: number[] = []): ChunkedDataset {
  const offsets = chunks.map((_, i) => chunks.slice(0, i).reduce((sum, rows) => sum + rows, 0));
  return {
    name: "chunks",
    length: chunks.reduce((sum, rows) => sum + rows, 0),
    chunks,
    async read(chunk) {
      read.push(chunk);
      return numbered(chunks[chunk] as number, offsets[chunk]);
    },
  };
}

/** The inputs of a batch, by name. */
function contents({ inputs }: Pick<BatchSource, "inputs">, batch: Batch): Map<string, TensorData> {
  const into = new Map(
    inputs.map(({ name, type, dims }) => [name, newData(type, batch.size * elementCount(dims))] as const),
  );
  batch.fill(into);
  return into;
}

async function rowsOf(source: BatchSource, epoch: number, skip = 0): Promise<number[][]> {
  const all: number[][] = [];
  for await (const batch of source.batches(epoch, skip)) {
    const x = contents(source, batch).get("x") as Float32Array;
    expect(x.length).toBe(2 * batch.size);
    const rows = Array.from({ length: batch.size }, (_, i) => x[2 * i] as number);
    for (const [i, row] of rows.entries()) expect(x[2 * i + 1]).toBe(2 * row);
    all.push(rows);
  }
  return all;
}

const options: ShuffleOptions = { batchSize: 4, seed: 3 };
const CHUNKS = [5, 1, 7, 3, 6];
const sorted = (values: readonly number[]) => [...values].sort((a, b) => a - b);

describe("streamed epochs", () => {
  test("hold every row at most once, in an order of their own, chunk by chunk", async () => {
    const bound = await bindRows(inChunks(CHUNKS), wanted);
    const source = bound.shuffled(allRows(22), options);
    expect(source.batchesPerEpoch).toBe(5);
    const [first, second] = [await rowsOf(source, 0), await rowsOf(source, 1)];
    expect(first).toHaveLength(5);
    expect(new Set(first.flat()).size).toBe(20);
    expect(first).not.toEqual(second);
    expect(await rowsOf(source, 0)).toEqual(first);
    expect(first.flat()).not.toEqual(sorted(first.flat()));
    // Chunks are not mixed: every chunk's rows follow one another.
    const chunkOf = (row: number) => [5, 6, 13, 16, 22].findIndex((end) => row < end);
    const runs = first
      .flat()
      .map(chunkOf)
      .filter((chunk, i, all) => chunk !== all[i - 1]);
    expect(new Set(runs).size).toBe(runs.length);
    expect(await rowsOf(bound.shuffled(allRows(22), { ...options, seed: 4 }), 0)).not.toEqual(first);
    const kept = await rowsOf(bound.shuffled(allRows(22), { ...options, shuffle: false }), 0);
    expect(kept.flat()).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  test("go on where they were left, without reading what comes before", async () => {
    const read: number[] = [];
    const source = (await bindRows(inChunks(CHUNKS, read), wanted)).shuffled(allRows(22), options);
    const whole = await rowsOf(source, 2);
    for (let skip = 0; skip <= 5; skip++) expect(await rowsOf(source, 2, skip)).toEqual(whole.slice(skip));
    read.length = 0;
    await rowsOf(source, 2, 4);
    expect(read.length).toBeLessThan(CHUNKS.length);
  });

  test("leave out what is held out, and evaluate it in order", async () => {
    const bound = await bindRows(inChunks(CHUNKS), wanted);
    const { train, heldOut } = splitRows(22, 6);
    const rows = (await rowsOf(bound.shuffled(train, { ...options, lastBatch: "pad" }), 0)).flat();
    expect(new Set(rows)).toEqual(new Set(train));
    const evaluated: number[] = [];
    for await (const batch of bound.ordered(heldOut, 4))
      evaluated.push(...(contents(bound, batch).get("x") as Float32Array));
    expect(evaluated.filter((_, i) => i % 2 === 0)).toEqual([...heldOut]);
    const some = bound.some(train, 5);
    expect(some).toHaveLength(5);
    expect(some.every((row) => train.includes(row))).toBe(true);
  });

  test("refuse a chunk that is not like the first", async () => {
    const odd = inChunks([3, 3]);
    const texts = (categories: string[]): Dataset =>
      makeDataset("texts", [
        { name: "x", type: DataType.INT64, dims: [], data: BigInt64Array.of(0n, 1n, 0n), categories },
      ]);
    const changing = { ...odd, read: async (i: number) => texts(i === 0 ? ["a", "b"] : ["b", "c"]) };
    const scalar: WantedInput[] = [{ name: "x", type: DataType.INT64, shape: ["batch"], isTarget: false }];
    const source = (await bindRows(changing, scalar)).shuffled(allRows(6), { batchSize: 6, seed: 1 });
    await expect(rowsOf(source, 0)).rejects.toThrow(/holds b, c in texts and a, b in texts.*equal indices/);
  });
});

describe("the last batch", () => {
  test.each([["memory", numbered(22)] as const, ["chunks", inChunks(CHUNKS)] as const])(
    "of data in %s is filled up with the epoch's first examples",
    async (_, dataset) => {
      const bound = await bindRows(dataset, wanted);
      const dropped = await rowsOf(bound.shuffled(allRows(22), options), 1);
      const source = bound.shuffled(allRows(22), { ...options, lastBatch: "pad" });
      expect(source.batchesPerEpoch).toBe(6);
      const padded = await rowsOf(source, 1);
      expect(padded.slice(0, 5)).toEqual(dropped);
      const order = padded.flat();
      expect(sorted(order.slice(0, 22))).toEqual(Array.from({ length: 22 }, (_, i) => i));
      expect(order.slice(22)).toEqual(order.slice(0, 2));
      expect(await rowsOf(source, 1, 5)).toEqual(padded.slice(5));
    },
  );

  test("of fewer examples than a batch repeats them; without padding that is refused", async () => {
    const bound = await bindRows(numbered(3), wanted);
    const [only] = await rowsOf(bound.shuffled(allRows(3), { batchSize: 8, seed: 1, lastBatch: "pad" }), 0);
    expect(new Set(only)).toEqual(new Set([0, 1, 2]));
    expect(only?.slice(3, 6)).toEqual(only?.slice(0, 3));
    expect(() => bound.shuffled(allRows(3), { batchSize: 8, seed: 1 })).toThrow(/batch size is 8.*3 examples/);
  });
});

describe("augmentation", () => {
  /** Pixel (c, y, x) of an image holds 100c + 10y + x + 1. */
  const image = (channelsLast: boolean) => {
    const at = (c: number, y: number, x: number) => 100 * c + 10 * y + x + 1;
    const [C, H, W] = [3, 6, 5];
    const data = new Uint8Array(C * H * W);
    for (let c = 0; c < C; c++)
      for (let y = 0; y < H; y++)
        for (let x = 0; x < W; x++) data[channelsLast ? (y * W + x) * C + c : (c * H + y) * W + x] = at(c, y, x);
    return { name: "image", type: DataType.UINT8, dims: channelsLast ? [H, W, C] : [C, H, W], data };
  };

  test("shifts by up to the padding, mirrors half, and depends on (seed, epoch, row) alone", () => {
    const augment = augmentationOf(image(false), { crop: 2, flip: true });
    const shifts = new Map<string, number>();
    for (let row = 0; row < 2000; row++) {
      const out = new Uint8Array(90);
      augment(image(false).data, 0, out, { seed: 1, epoch: 0 }, row);
      // Where pixel (1, 2, 2), which no shift drops, went.
      const at = out.indexOf(123);
      expect(at).toBeGreaterThanOrEqual(30);
      const [y, x] = [Math.floor((at - 30) / 5), at % 5];
      const next = out[at + 1];
      const mirrored = x < 4 ? next === 122 : out[at - 1] === 124;
      shifts.set(`${y},${x},${mirrored}`, (shifts.get(`${y},${x},${mirrored}`) ?? 0) + 1);
      // All channels move alike, and what comes in is black.
      for (let i = 0; i < 30; i++) {
        if (out[i] === 0) expect(out[30 + i]).toBe(0);
        else expect(out[30 + i]).toBe((out[i] as number) + 100);
      }
    }
    expect(shifts.size).toBe(5 * 5 * 2);
    const counts = [...shifts.values()];
    // Each has probability 1/50: 2000/50 = 40 ± 6.3.
    expect(Math.min(...counts)).toBeGreaterThan(40 - 4 * 6.3);
    const again = (key: { seed: number; epoch: number }, row: number) => {
      const out = new Uint8Array(90);
      augment(image(false).data, 0, out, key, row);
      return out.join();
    };
    expect(again({ seed: 1, epoch: 5 }, 7)).toBe(again({ seed: 1, epoch: 5 }, 7));
    const others = [again({ seed: 2, epoch: 5 }, 7), again({ seed: 1, epoch: 6 }, 7), again({ seed: 1, epoch: 5 }, 8)];
    expect(others.some((other) => other !== again({ seed: 1, epoch: 5 }, 7))).toBe(true);
  });

  test("is the same with channels last", () => {
    const [first, last] = [image(false), image(true)];
    for (let row = 0; row < 20; row++) {
      const [a, b] = [new Uint8Array(90), new Uint8Array(90)];
      augmentationOf(first, { crop: 1, flip: true })(first.data, 0, a, { seed: 1, epoch: 2 }, row);
      augmentationOf(last, { crop: 1, flip: true })(last.data, 0, b, { seed: 1, epoch: 2 }, row);
      for (let c = 0; c < 3; c++) for (let i = 0; i < 30; i++) expect(b[3 * i + c]).toBe(a[30 * c + i]);
    }
  });

  test("is for training alone, comes before normalisation, and reaches models with channels last", async () => {
    const { data } = image(false);
    const dataset = makeDataset("images", [{ name: "x", type: DataType.UINT8, dims: [3, 6, 5], data, isImage: true }]);
    const last: WantedInput[] = [{ name: "x", type: DataType.FLOAT, shape: ["batch", 6, 5, 3], isTarget: false }];
    const normalize = { mean: [0.1, 0.2, 0.3], std: [0.5, 1, 2] };
    const bound = await bindRows(dataset, last, { augment: { crop: 4 }, normalize });
    const [batch] = [...(bound.ordered(allRows(1), 1) as Iterable<Batch>)];
    const plain = contents(bound, batch as Batch).get("x") as Float32Array;
    for (let i = 0; i < 90; i++) {
      const c = i % 3;
      const pixel = data[30 * c + Math.floor(i / 3)] as number;
      expect(plain[i]).toBeCloseTo((pixel / 255 - (normalize.mean[c] as number)) / (normalize.std[c] as number), 5);
    }
    // Black pixels that come in are normalised as black.
    const blacks = new Set<number>();
    for (let epoch = 0; epoch < 30; epoch++) {
      for await (const moved of bound.shuffled(allRows(1), { batchSize: 1, seed: 0 }).batches(epoch, 0)) {
        const x = contents(bound, moved).get("x") as Float32Array;
        for (let i = 0; i < 90; i += 3) if (!plain.includes(x[i] as number)) blacks.add(x[i] as number);
      }
    }
    expect([...blacks]).toEqual([Math.fround(-0.2)]);
    expect(() => augmentationOf({ name: "x", type: DataType.FLOAT, dims: [784], data: plain }, { flip: true })).toThrow(
      /are no images to crop or flip/,
    );
    await expect(bindRows(numbered(2), wanted, { normalize: { mean: [1, 2, 3], std: [1, 1, 1] } })).rejects.toThrow(
      /'x' has the shape \[2\], and 3 means/,
    );
  });
});

describe("batches made ahead", () => {
  const hub = join(import.meta.dirname, "../fixtures/data/formats/hub");
  const images: WantedInput[] = [
    { name: "image", type: DataType.FLOAT, shape: ["batch", 3, 8, 6], isTarget: false },
    { name: "labels", type: DataType.INT64, shape: ["batch"], isTarget: true, classes: 3 },
  ];
  const open = { stream: true };
  const bind = { augment: { crop: 1, flip: true }, normalize: { mean: [0.5], std: [0.25] } };
  const shuffle: ShuffleOptions = { batchSize: 2, seed: 5, lastBatch: "pad" };
  const orders = { paths: [hub], open, wanted: images, bind, shuffle, heldOut: 1, splitSeed: 2 };

  async function direct(): Promise<BatchSource> {
    const bound = await bindRows(await openDataset(hub, open), images, bind);
    return bound.shuffled(splitRows(bound.length, 1, 2).train, shuffle);
  }

  const all = async (source: BatchSource, epoch: number, skip = 0) => {
    const batches: Map<string, TensorData>[] = [];
    for await (const batch of source.batches(epoch, skip)) batches.push(contents(source, batch));
    return batches;
  };

  test("are the same, in every epoch, from any place, and after an epoch that was left", async () => {
    const source = await direct();
    const ahead = prefetched(source, orders, 2);
    try {
      expect(await all(ahead, 0)).toEqual(await all(source, 0));
      for await (const _ of ahead.batches(1, 0)) break;
      expect(await all(ahead, 1, 1)).toEqual(await all(source, 1, 1));
      expect(await all(ahead, 2)).toEqual(await all(source, 2));
    } finally {
      await ahead.close?.();
    }
  });

  test("pass errors on", async () => {
    const broken = prefetched(await direct(), { ...orders, paths: [join(hub, "nothing.parquet")] }, 2);
    try {
      await expect(all(broken, 0)).rejects.toThrow(/nothing\.parquet/);
    } finally {
      await broken.close?.();
    }
  });
});

describe("texts as labels", () => {
  test("that mean something else in the held-out data are refused", async () => {
    const labelled = (categories: string[]) =>
      makeDataset(categories.join("+"), [
        { name: "label", type: DataType.INT64, dims: [], data: BigInt64Array.of(0n, 1n), categories },
      ]);
    const input: WantedInput[] = [
      { name: "label", type: DataType.INT64, shape: ["batch"], isTarget: true, classes: 2 },
    ];
    const one = BoundDataset.bind(labelled(["a", "b"]), input);
    expect(() => one.requireSameTexts(BoundDataset.bind(labelled(["a", "b"]), input))).not.toThrow();
    expect(() => one.requireSameTexts(BoundDataset.bind(labelled(["b", "c"]), input))).toThrow(
      /holds a, b in a\+b and b, c in b\+c/,
    );
  });
});
