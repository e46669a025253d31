/** Arrays in .npy and safetensors files that are larger than memory: some rows of each at a time. */
import { statSync } from "node:fs";
import { basename } from "node:path";
import { FishyError, messageOf } from "../errors.js";
import type { DataType } from "../onnx/proto.js";
import { bytesPerElement, dataFromBytes, elementCount } from "../onnx/tensor.js";
import { readRange, swapBytes } from "./bytes.js";
import type { ChunkedDataset } from "./chunked.js";
import { type Column, columnOf, makeDataset, requireNumbers } from "./dataset.js";
import { decodeNpyHeader } from "./npy.js";
import { decodeSafetensorsHeader } from "./safetensors.js";

/** Bytes of all columns in one chunk. */
const CHUNK_BYTES = 2 ** 23;
/** More than the header of a .npy file takes. */
const NPY_HEADER = 2 ** 16;

interface Place {
  readonly name: string;
  readonly path: string;
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly start: number;
  readonly isBigEndian: boolean;
}

/**
 * Opens arrays to read them a part at a time.
 * @param sources files, each `PATH` or `NAME=PATH`.
 * @param least bytes that they must have in all.
 * @returns undefined when they are smaller, or not all in such files, or stored column by column.
 * @throws FishyError for a damaged file, and for columns of different lengths.
 */
export function openArrays(sources: readonly string[], least: number): ChunkedDataset | undefined {
  const files = sources.map((source) => {
    const named = /^([\w.-]+)=(.+)$/.exec(source);
    return { name: named?.[1], path: named?.[2] ?? source };
  });
  if (files.length === 0 || !files.every(({ path }) => /\.(npy|safetensors)$/.test(path) && isFile(path)))
    return undefined;
  if (files.reduce((sum, { path }) => sum + statSync(path).size, 0) < least) return undefined;
  const places: Place[] = [];
  for (const { name, path } of files) {
    const own = path.endsWith(".npy") ? npyPlace(path, name) : safetensorsPlaces(path, name);
    if (!own) return undefined;
    places.push(...own);
  }
  const dataset = files.map(({ path }) => path).join(" + ");
  const columns = places.map(
    (place): Column => ({ ...columnOf(place.name, place.type, place.dims, new Uint8Array()) }),
  );
  const lengths = places.map(({ dims }) => dims[0] as number);
  const [length = 0] = lengths;
  if (lengths.some((other) => other !== length)) {
    const list = places.map(({ name }, i) => `'${name}' has ${lengths[i]}`).join(", ");
    throw new FishyError(`The columns of the dataset ${dataset} differ in length: ${list} examples.`);
  }
  if (length === 0) throw new FishyError(`The dataset ${dataset} has no examples.`);
  const rowBytes = columns.map(
    ({ name, type, dims }) => (bytesPerElement(type) as number) * requireNumbers(dataset, name, dims),
  );
  const rows = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes.reduce((sum, bytes) => sum + bytes, 0)));
  return {
    name: dataset,
    length,
    chunks: Array.from({ length: Math.ceil(length / rows) }, (_, i) => Math.min(rows, length - i * rows)),
    async read(chunk) {
      const count = Math.min(rows, length - chunk * rows);
      const read = places.map((place, i): Column => {
        const size = rowBytes[i] as number;
        const start = place.start + chunk * rows * size;
        const bytes = rangeOf(place.path, start, start + count * size);
        const ordered = place.isBigEndian ? swapBytes(bytes, bytesPerElement(place.type) as number) : bytes;
        return { ...(columns[i] as Column), data: dataFromBytes(place.type, ordered, `column '${place.name}'`) };
      });
      return makeDataset(dataset, read);
    },
  };
}

function npyPlace(path: string, name?: string): Place[] | undefined {
  const { size } = statSync(path);
  const { type, dims, isBigEndian, isColumnMajor, start } = decodeNpyHeader(
    rangeOf(path, 0, Math.min(size, NPY_HEADER)),
    path,
  );
  if (isColumnMajor) return undefined;
  const expected = start + elementCount(dims) * (bytesPerElement(type) as number);
  if (size < expected) {
    throw new FishyError(
      `${path} is cut off: the shape [${dims.join(", ")}] takes ${expected} bytes, the file holds ${size}.`,
    );
  }
  return [{ name: name ?? basename(path, ".npy"), path, type, dims, start, isBigEndian }];
}

function safetensorsPlaces(path: string, name?: string): Place[] {
  const { size } = statSync(path);
  const prefix = rangeOf(path, 0, Math.min(size, 8));
  const length = size < 8 ? 0 : Number(Buffer.from(prefix).readBigUInt64LE());
  const { places } = decodeSafetensorsHeader(rangeOf(path, 0, Math.min(size, 8 + length)), size, path);
  if (name !== undefined && places.size !== 1) {
    throw new FishyError(
      `${path} holds ${places.size} columns (${[...places.keys()].join(", ")}), so that '${name}=' names none of them. Leave '${name}=' out.`,
    );
  }
  return [...places].map(([own, { type, dims, start }]) => ({
    name: name ?? own,
    path,
    type,
    dims,
    start,
    isBigEndian: false,
  }));
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function rangeOf(path: string, start: number, end: number): Uint8Array {
  try {
    return readRange(path, start, end);
  } catch (error) {
    throw new FishyError(`${path} cannot be read: ${messageOf(error)}.`);
  }
}
