/** A dataset that is read a part at a time, for those that are larger than memory. */

import { FishyError } from "../errors.js";
import { newData } from "../onnx/tensor.js";
import { type Column, type Dataset, makeDataset } from "./dataset.js";

/** A dataset that is read a chunk at a time. */
export interface ChunkedDataset {
  /** What to call it in messages: the path. */
  readonly name: string;
  /** Number of examples. */
  readonly length: number;
  /** Examples in each chunk, in order. */
  readonly chunks: readonly number[];
  /** Reads the examples of a chunk. */
  read(chunk: number): Promise<Dataset>;
}

export function isChunked(dataset: Dataset | ChunkedDataset): dataset is ChunkedDataset {
  return "chunks" in dataset;
}

/** Bytes of the columns of a dataset in memory. */
export function bytesOf(dataset: Dataset): number {
  return [...dataset.columns.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
}

/** Reads everything into memory. */
export async function toMemory(dataset: ChunkedDataset): Promise<Dataset> {
  const parts: Dataset[] = [];
  for (let chunk = 0; chunk < dataset.chunks.length; chunk++) parts.push(await dataset.read(chunk));
  return joinRows(dataset.name, parts);
}

/**
 * One dataset of the rows of several.
 * @throws FishyError when their columns differ in name, type or shape.
 */
export function joinRows(name: string, parts: readonly Dataset[]): Dataset {
  const [first, ...others] = parts;
  if (!first) throw new FishyError(`The dataset ${name} has no examples.`);
  if (others.length === 0) return { ...first, name };
  const columns = [...first.columns.values()].map((column) => joinColumn(column, parts));
  return makeDataset(name, columns);
}

function joinColumn(column: Column, parts: readonly Dataset[]): Column {
  const own = parts.map((part) => {
    const other = part.columns.get(column.name);
    if (!other || other.type !== column.type || other.dims.join() !== column.dims.join()) {
      throw new FishyError(
        `${part.name} has no column '${column.name}' of the type and shape that ${parts[0]?.name} has, so that they are no parts of one dataset. Name the files that are.`,
      );
    }
    return other;
  });
  const length = own.reduce((sum, part) => sum + part.data.length, 0);
  if (column.categories) return joinTexts(column, own, length);
  const data = newData(column.type, length) as Float64Array;
  let at = 0;
  for (const part of own) {
    data.set(part.data as Float64Array, at);
    at += part.data.length;
  }
  return { ...column, data };
}

/** Indices into the sorted set of the texts of all parts. */
function joinTexts(column: Column, parts: readonly Column[], length: number): Column {
  const categories = [...new Set(parts.flatMap((part) => part.categories ?? []))].sort();
  const index = new Map(categories.map((text, i) => [text, BigInt(i)]));
  const data = new BigInt64Array(length);
  let at = 0;
  for (const part of parts) {
    const own = (part.categories ?? []).map((text) => index.get(text) as bigint);
    for (const value of part.data as BigInt64Array) data[at++] = own[Number(value)] as bigint;
  }
  return { ...column, data, categories };
}
