import { describe, expect, test } from "vitest";
import type { WantedInput } from "../../src/data/bind.js";
import { type StreamBatch, streamBatches } from "../../src/data/stream.js";
import { DataType } from "../../src/onnx/proto.js";

const wanted: WantedInput[] = [
  { name: "x", type: DataType.FLOAT, shape: ["batch", 2], isTarget: false },
  { name: "labels", type: DataType.INT64, shape: ["batch"], isTarget: true, classes: 4 },
];

function batch(size: number, value: number, label = 1): StreamBatch {
  return {
    x: { type: DataType.FLOAT, dims: [size, 2], data: new Float32Array(2 * size).fill(value) },
    labels: { type: DataType.INT32, dims: [size], data: new Int32Array(size).fill(label) },
  };
}

async function firstValues(batches: StreamBatch[], epoch = 0, skip = 0): Promise<number[]> {
  const source = await streamBatches(() => batches, wanted);
  const values: number[] = [];
  for await (const item of source.batches(epoch, skip)) {
    const into = new Map<string, Float32Array | BigInt64Array>([
      ["x", new Float32Array(2 * source.batchSize)],
      ["labels", new BigInt64Array(source.batchSize)],
    ]);
    item.fill(into);
    expect(into.get("labels")?.[0]).toBe(1n);
    values.push(into.get("x")?.[0] as number);
  }
  return values;
}

describe("batches from code", () => {
  test("async generators; a short last batch is dropped; skipping", async () => {
    expect(await firstValues([batch(3, 1), batch(3, 2), batch(2, 3)])).toEqual([1, 2]);
    expect(await firstValues([batch(3, 1), batch(3, 2), batch(3, 3)], 0, 2)).toEqual([3]);
    const source = await streamBatches(async function* (epoch) {
      yield batch(4, epoch);
    }, wanted);
    expect(source).toMatchObject({ batchSize: 4, batchesPerEpoch: undefined });
  });

  test("errors name the input and the batch", async () => {
    await expect(firstValues([])).rejects.toThrow(/ended before its first batch/);
    await expect(firstValues([{ x: batch(2, 0).x as never }])).rejects.toThrow(/no 'labels'.*they have x/);
    await expect(firstValues([batch(2, 0), batch(3, 0)])).rejects.toThrow(
      /'x' in batch 1 of epoch 0.*\[3, 2\].*\[2, 2\]/,
    );
    await expect(firstValues([batch(2, 0), batch(2, Number.NaN)])).rejects.toThrow(/'x' holds NaN.*batch 1 of epoch 0/);
    await expect(firstValues([batch(2, 0), batch(2, 0, 4)])).rejects.toThrow(/label 4; the model has 4 classes/);
    const wide = { ...batch(2, 0), x: { type: DataType.FLOAT, dims: [2, 3], data: new Float32Array(6) } };
    await expect(firstValues([wide])).rejects.toThrow(/'x' has the shape \[2, 3\]; the model takes \[batch, 2\]/);
  });
});
