/** A dataset in memory: named columns of equal length. */
import { FishyError } from "../errors.js";
import type { DataType } from "../onnx/proto.js";
import { elementCount, type TensorData } from "../onnx/tensor.js";

/** One column; row `i` is `data[i·size … (i+1)·size)` with size the product of `dims`. */
export interface Column {
  readonly name: string;
  readonly type: DataType;
  /** Shape of one example: `[28, 28]` for images, `[]` for labels. */
  readonly dims: readonly number[];
  readonly data: TensorData;
  /** Texts by index, where the column was one of texts. */
  readonly categories?: readonly string[];
  /** Whether examples are images [channels, height, width], which a model may also take channels last. */
  readonly isImage?: boolean;
}

/** Examples in memory, as columns. */
export interface Dataset {
  /** What to call it in messages: the path. */
  readonly name: string;
  /** Number of examples. */
  readonly length: number;
  readonly columns: ReadonlyMap<string, Column>;
}

/** Elements of one example. */
export function exampleSize(column: Pick<Column, "dims">): number {
  return elementCount(column.dims);
}

/**
 * Puts columns together.
 * @throws FishyError when there is none, when two share a name, or when their lengths differ.
 */
export function makeDataset(name: string, columns: readonly Column[]): Dataset {
  const byName = new Map<string, Column>();
  for (const column of columns) {
    if (byName.has(column.name)) {
      throw new FishyError(
        `The dataset ${name} has two columns named '${column.name}'. Rename one when it is read (NAME=FILE).`,
      );
    }
    byName.set(column.name, column);
  }
  const lengths = columns.map(({ name: own, dims, data }) => data.length / requireNumbers(name, own, dims));
  const length = lengths[0];
  if (length === undefined) throw new FishyError(`The dataset ${name} has no columns.`);
  if (lengths.some((other) => other !== length)) {
    const list = columns.map((column, i) => `'${column.name}' has ${lengths[i]}`).join(", ");
    throw new FishyError(`The columns of the dataset ${name} differ in length: ${list} examples.`);
  }
  if (length === 0) throw new FishyError(`The dataset ${name} has no examples.`);
  return { name, length, columns: byName };
}

/**
 * Elements of an example of a column.
 * @throws FishyError when there is none.
 */
export function requireNumbers(dataset: string, column: string, dims: readonly number[]): number {
  const size = elementCount(dims);
  if (size > 0) return size;
  throw new FishyError(
    `Column '${column}' of the dataset ${dataset} has examples of shape [${dims.join(", ")}], which hold no number. Leave it out.`,
  );
}

/** A column from a whole tensor, whose first axis counts the examples. */
export function columnOf(name: string, type: DataType, dims: readonly number[], data: TensorData): Column {
  if (dims.length === 0) {
    throw new FishyError(`Column '${name}' is a single number; the first axis of a column counts the examples.`);
  }
  return { name, type, dims: dims.slice(1), data };
}
