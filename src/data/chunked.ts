/** A dataset that is read a part at a time, for those that are larger than memory. */

import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { dataTypeName, newData, type TensorData } from "../onnx/tensor.js";
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
  for (const part of parts) {
    const extra = [...part.columns.keys()].find((column) => !first.columns.has(column));
    if (extra !== undefined) throw noPart(part, `has a column '${extra}', which ${first.name} lacks`);
  }
  const columns = [...first.columns.values()].map((column) => joinColumn(column, parts));
  return makeDataset(name, columns);
}

function joinColumn(column: Column, parts: readonly Dataset[]): Column {
  const { name, dims } = column;
  const first = parts[0]?.name;
  const own = parts.map((part) => {
    const other = part.columns.get(name);
    if (!other) throw noPart(part, `has no column '${name}', which ${first} has`);
    if (other.dims.join() !== dims.join()) {
      throw noPart(part, `holds '${name}' in examples of shape [${other.dims}], ${first} of shape [${dims}]`);
    }
    if (!!other.categories !== !!column.categories) {
      const [here, there] = column.categories ? ["numbers", "texts"] : ["texts", "numbers"];
      throw noPart(part, `holds ${here} in the column '${name}', ${first} ${there}`);
    }
    return other;
  });
  const length = own.reduce((sum, part) => sum + part.data.length, 0);
  if (column.categories) return joinTexts(column, own, length);
  const type = commonType(own.map((part) => part.type));
  if (type === undefined) {
    const odd = own.findIndex((part) => part.type !== column.type);
    const [here, there] = [own[odd] as Column, column].map((part) => dataTypeName(part.type));
    throw noPart(parts[odd] as Dataset, `holds ${here} in the column '${name}', ${first} ${there}`);
  }
  const data = newData(type, length) as { [i: number]: number | bigint };
  const convert = type === DataType.INT64 ? BigInt : Number;
  let at = 0;
  for (const part of own) {
    if (part.type === type) (data as unknown as Float64Array).set(part.data as Float64Array, at);
    else for (const [i, value] of part.data.entries()) data[at + i] = convert(value);
    at += part.data.length;
  }
  return { ...column, type, data: data as unknown as TensorData };
}

/** The types of numbers in texts, each of which holds those before it. */
const OF_TEXTS: readonly DataType[] = [DataType.INT32, DataType.INT64, DataType.FLOAT];

/** One part of a table may hold whole numbers alone, or small ones, where another does not. */
function commonType(types: readonly DataType[]): DataType | undefined {
  if (types.every((type) => type === types[0])) return types[0];
  if (!types.every((type) => OF_TEXTS.includes(type))) return undefined;
  return OF_TEXTS.findLast((type) => types.includes(type));
}

function noPart({ name }: Dataset, problem: string): FishyError {
  return new FishyError(
    `${name} ${problem}, so that they are no parts of one dataset. Name files with the same columns.`,
  );
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
