/** CIFAR's binary version: records of labels and 3 × 32 × 32 pixels (https://www.cs.toronto.edu/~kriz/cifar.html). */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { type Column, type Dataset, makeDataset } from "./dataset.js";

const PIXELS = 3 * 32 * 32;
const DIMS = [3, 32, 32];

/** Record lengths: CIFAR-10 has one label, CIFAR-100 a coarse and a fine one. */
const RECORDS: readonly { readonly labels: readonly string[]; readonly files: RegExp }[] = [
  { labels: ["labels"], files: /^(data_batch_\d+|test_batch)\.bin$/ },
  { labels: ["coarse_labels", "labels"], files: /^(train|test)\.bin$/ },
];

/** Whether a file of this name may be CIFAR's. */
export function isCifarName(name: string): boolean {
  return RECORDS.some(({ files }) => files.test(name));
}

/**
 * Reads a file of CIFAR-10 or CIFAR-100: columns `images` and `labels` (of CIFAR-100 the fine ones, and `coarse_labels`).
 * @param name the file's own name, which tells which of the two it is.
 * @throws FishyError when the file does not hold whole records.
 */
export function decodeCifar(bytes: Uint8Array, name: string, source: string): Dataset {
  const { labels } = RECORDS.find(({ files }) => files.test(name)) ?? (RECORDS[0] as (typeof RECORDS)[number]);
  const record = labels.length + PIXELS;
  const count = bytes.length / record;
  if (count === 0 || !Number.isInteger(count)) {
    throw new FishyError(
      `${source} is no whole file of CIFAR-${labels.length === 1 ? 10 : 100}: ${bytes.length} bytes are not records of ${record}.`,
    );
  }
  const images = new Uint8Array(count * PIXELS);
  const columns = labels.map((label) => ({ label, data: new Uint8Array(count) }));
  for (let i = 0; i < count; i++) {
    for (const [k, { data }] of columns.entries()) data[i] = bytes[i * record + k] as number;
    images.set(bytes.subarray(i * record + labels.length, (i + 1) * record), i * PIXELS);
  }
  return makeDataset(source, [
    { name: "images", type: DataType.UINT8, dims: DIMS, data: images, isImage: true },
    ...columns.map(({ label, data }): Column => ({ name: label, type: DataType.UINT8, dims: [], data })),
  ]);
}
