import { describe, expect, test } from "vitest";
import { BoundDataset, type WantedInput } from "../../src/data/bind.js";
import { columnOf, type Dataset, makeDataset } from "../../src/data/dataset.js";
import { orderedBatches, shuffledBatches } from "../../src/data/shuffled.js";
import { DataType } from "../../src/onnx/proto.js";
import { newData, type TensorData } from "../../src/onnx/tensor.js";

const image: WantedInput = { name: "image", type: DataType.FLOAT, shape: ["batch", 4], isTarget: false };
const labels: WantedInput = { name: "labels", type: DataType.INT64, shape: ["batch"], isTarget: true, classes: 3 };
const target: WantedInput = { name: "target", type: DataType.FLOAT, shape: ["batch", 4], isTarget: true };

function pictures(values?: Partial<Record<"x" | "y", TensorData>>): Dataset {
  return makeDataset("pictures", [
    columnOf("x", DataType.UINT8, [3, 2, 2], values?.x ?? Uint8Array.of(0, 51, 102, 255, 1, 2, 3, 4, 5, 6, 7, 8)),
    columnOf("y", DataType.UINT8, [3], values?.y ?? Uint8Array.of(2, 0, 1)),
  ]);
}

function fill(bound: BoundDataset, rows: number[]): Map<string, TensorData> {
  const into = new Map(
    bound.inputs.map(({ name, type, dims }) => [name, newData(type, rows.length * dims.reduce((p, d) => p * d, 1))]),
  );
  bound.batch(Uint32Array.from(rows)).fill(into);
  return into;
}

describe("binding", () => {
  test("bytes become fractions, labels int64, pictures flat", () => {
    const bound = BoundDataset.bind(pictures(), [image, labels]);
    const batch = fill(bound, [2, 0]);
    const expected = [5, 6, 7, 8, 0, 51, 102, 255].map((byte) => Math.fround(byte / 255));
    expect([...(batch.get("image") as Float32Array)]).toEqual(expected);
    expect([...(batch.get("labels") as BigInt64Array)]).toEqual([1n, 2n]);
    expect(bound.columns).toEqual(
      new Map([
        ["image", "x"],
        ["labels", "y"],
      ]),
    );
  });

  test("scale none and a factor", () => {
    const one = (scale: "none" | number) => fill(BoundDataset.bind(pictures(), [image], { scale }), [0]).get("image");
    expect([...(one("none") as Float32Array)]).toEqual([0, 51, 102, 255]);
    expect([...(one(2) as Float32Array)]).toEqual([0, 102, 204, 510]);
  });

  test("an autoencoder's target is its input", () => {
    const batch = fill(BoundDataset.bind(pictures(), [image, target], { mapping: { target: "x" } }), [1]);
    expect(batch.get("target")).toEqual(batch.get("image"));
  });

  test("columns that cannot be told apart are asked for", () => {
    const two = makeDataset("two", [
      columnOf("a", DataType.FLOAT, [1, 4], new Float32Array(4)),
      columnOf("b", DataType.FLOAT, [1, 4], new Float32Array(4)),
    ]);
    expect(() => BoundDataset.bind(two, [image])).toThrow(
      /Which column fills the input 'image'.*a, b.*--input image=COLUMN/,
    );
    expect(() => BoundDataset.bind(two, [image], { mapping: { image: "c" } })).toThrow(
      /column 'c', which two does not have/,
    );
    expect(() => BoundDataset.bind(two, [image], { mapping: { imag: "a" } })).toThrow(/no input 'imag'.*image/);
    expect(BoundDataset.bind(two, [image], { mapping: { image: "b" } }).columns.get("image")).toBe("b");
  });

  test("shapes: channels first and last are not taken for each other", () => {
    const wanted = (shape: WantedInput["shape"]): WantedInput => ({ ...image, shape });
    const data = (dims: number[]) =>
      makeDataset("d", [
        columnOf("image", DataType.FLOAT, [1, ...dims], new Float32Array(dims.reduce((p, d) => p * d, 1))),
      ]);
    const dims = (from: number[], to: WantedInput["shape"]) =>
      BoundDataset.bind(data(from), [wanted(to)]).inputs[0]?.dims;
    expect(dims([28, 28], ["batch", 1, 28, 28])).toEqual([1, 28, 28]);
    expect(dims([28, 28, 1], ["batch", 1, 28, 28])).toEqual([1, 28, 28]);
    expect(dims([784], ["batch", 1, 28, 28])).toEqual([1, 28, 28]);
    expect(dims([28, 28], ["batch", 784])).toEqual([784]);
    expect(dims([3, 8], ["batch", "channels", 8])).toEqual([3, 8]);
    expect(dims([1], ["batch"])).toEqual([]);
    expect(() => dims([4, 4, 3], ["batch", 3, 4, 4])).toThrow(/shape \[4, 4, 3\]; the model takes \[3, 4, 4\]/);
    expect(() => dims([28, 27], ["batch", 784])).toThrow(
      /shape \[28, 27\]; the model takes \[784\].*Reshape the column/,
    );
    expect(() => dims([4], [])).toThrow(/without a batch axis/);
  });

  test("augmentation and normalisation that would touch nothing are refused", () => {
    const flat = makeDataset("flat", [columnOf("image", DataType.FLOAT, [1, 4], new Float32Array(4))]);
    const crop = { augment: { crop: 1 } };
    expect(() => BoundDataset.bind(flat, [image], crop)).toThrow(/No input is filled with images of flat/);
    expect(BoundDataset.bind(flat, [image], { augment: { crop: 0, flip: false } }).dataset.length).toBe(1);
    expect(BoundDataset.bind(pictures(), [image, labels], crop).dataset.length).toBe(3);
    const tokens: WantedInput = { name: "ids", type: DataType.INT64, shape: ["batch", 4], isTarget: false };
    const ids = makeDataset("ids", [columnOf("ids", DataType.INT64, [1, 4], new BigInt64Array(4))]);
    const normalize = { mean: [0.5], std: [1] };
    expect(() => BoundDataset.bind(ids, [tokens], { normalize })).toThrow(/No input that ids fills takes floats/);
    expect(BoundDataset.bind(flat, [image], { normalize }).dataset.length).toBe(1);
  });

  test("types: floats do not become labels", () => {
    const floats = makeDataset("d", [columnOf("labels", DataType.FLOAT, [3], Float32Array.of(0, 1, 2))]);
    expect(() => BoundDataset.bind(floats, [labels])).toThrow(/holds float; labels are integers/);
    const { classes: _, ...unknown } = labels;
    expect(() => BoundDataset.bind(floats, [unknown])).toThrow(/holds float and the model takes int64/);
  });
});

describe("bad data is refused with its column and row", () => {
  test("a label out of range", () => {
    expect(() => BoundDataset.bind(pictures({ y: Uint8Array.of(0, 3, 1) }), [image, labels])).toThrow(
      /Column 'y' of pictures holds the label 3 in row 1.*3 classes, 0 to 2/,
    );
  });

  test.each([Number.NaN, Number.NEGATIVE_INFINITY])("%s", (bad) => {
    const data = new Float32Array(12);
    data[9] = bad;
    const dataset = makeDataset("d", [columnOf("image", DataType.FLOAT, [3, 4], data)]);
    expect(() => BoundDataset.bind(dataset, [image])).toThrow(new RegExp(`Column 'image' of d holds ${bad} in row 2`));
  });
});

describe("batches", () => {
  const data = makeDataset("d", [
    columnOf(
      "image",
      DataType.FLOAT,
      [10, 4],
      Float32Array.from({ length: 40 }, (_, i) => i >> 2),
    ),
  ]);
  const bound = BoundDataset.bind(data, [image]);
  const rows = Uint32Array.from({ length: 10 }, (_, i) => i);
  const read = (batches: Iterable<{ size: number; fill(into: Map<string, TensorData>): void }>) =>
    [...batches].map((batch) => {
      const into = new Map([["image", new Float32Array(4 * batch.size)]]);
      batch.fill(into);
      return [...(into.get("image") as Float32Array)].filter((_, i) => i % 4 === 0);
    });

  test("an epoch holds whole batches of different rows, in an order of its own; skipping goes on where it was", () => {
    const source = shuffledBatches(bound, rows, { batchSize: 3, seed: 7 });
    expect(source.batchesPerEpoch).toBe(3);
    const epoch = (n: number, skip = 0) => read(source.batches(n, skip) as Iterable<never>);
    expect(new Set(epoch(0).flat()).size).toBe(9);
    expect(epoch(0)).toEqual(epoch(0));
    expect(epoch(0)).not.toEqual(epoch(1));
    expect(epoch(1, 2)).toEqual(epoch(1).slice(2));
    const other = shuffledBatches(bound, rows, { batchSize: 3, seed: 8 });
    expect(read(other.batches(0, 0) as Iterable<never>)).not.toEqual(epoch(0));
  });

  test("evaluation takes every row in order", () => {
    expect(read(orderedBatches(bound, rows, 4))).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
      [8, 9],
    ]);
  });

  test("a batch larger than the data is refused", () => {
    expect(() => shuffledBatches(bound, rows, { batchSize: 11, seed: 0 })).toThrow(/batch size is 11.*10 examples/);
  });
});
