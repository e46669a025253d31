/** Which column fills which input of the program, and in what shape. */
import { FishyError, UsageError } from "../errors.js";
import type { Dim } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import { newData, type TensorData } from "../onnx/tensor.js";
import { isFloat } from "./convert.js";
import { type Column, type Dataset, exampleSize } from "./dataset.js";

/** An input that data must fill. */
export interface WantedInput {
  readonly name: string;
  readonly type: DataType;
  /** With the batch axis first; undefined when the model does not tell. */
  readonly shape: readonly Dim[] | undefined;
  /** Whether it is what the loss compares with. */
  readonly isTarget: boolean;
  /** The number of classes, when it holds class indices and the number is known. */
  readonly classes?: number;
}

const TARGET_COLUMNS = ["labels", "label", "target", "targets", "y"];

/**
 * The column of an input: the mapped one (several, separated by commas, are joined), the one of its name, or the only
 * one left. Single numbers that are left over are joined for an input of as many.
 */
export function chooseColumn(
  dataset: Dataset,
  wanted: readonly WantedInput[],
  input: WantedInput,
  mapping: Readonly<Record<string, string>>,
): Column {
  const names = [...dataset.columns.keys()];
  const mapped = mapping[input.name];
  if (mapped !== undefined) return mappedColumn(dataset, input, mapped);
  const same = dataset.columns.get(input.name);
  if (same) return same;
  const candidates = input.isTarget
    ? TARGET_COLUMNS.filter((name) => names.includes(name)).slice(0, 1)
    : freeColumns(names, wanted, input, mapping);
  const columns = candidates.map((name) => dataset.columns.get(name) as Column);
  const [only] = columns;
  if (only && columns.length === 1) return only;
  const [, width, ...rest] = input.shape ?? [];
  const isRow =
    input.shape?.length === 2 && rest.length === 0 && (typeof width !== "number" || width === columns.length);
  if (columns.length > 1 && isRow && columns.every(({ dims, categories }) => dims.length === 0 && !categories)) {
    return joinNumbers(columns, dataset);
  }
  const shown = (input.shape ?? []).slice(1).map((dim) => dim ?? "?");
  const takes = input.shape && input.shape.length > 1 ? `, which takes [${shown.join(", ")}] for each example` : "";
  throw new UsageError(
    `Which column fills the input '${input.name}'${takes}? The dataset ${dataset.name} has ${listed(names)}. Say it with --input ${input.name}=COLUMN, or COLUMN,COLUMN,… to join numbers.`,
  );
}

function mappedColumn(dataset: Dataset, input: WantedInput, mapped: string): Column {
  const names = dataset.columns.has(mapped) ? [mapped] : mapped.split(",").map((name) => name.trim());
  const columns = names.map((name) => {
    const column = dataset.columns.get(name);
    if (!column) {
      throw new UsageError(
        `Input '${input.name}' is mapped to the column '${name}', which ${dataset.name} does not have. Its columns: ${listed([...dataset.columns.keys()])}.`,
      );
    }
    return column;
  });
  return columns.length === 1 ? (columns[0] as Column) : joinNumbers(columns, dataset);
}

function listed(names: readonly string[]): string {
  return names.length > 20 ? `${names.slice(0, 20).join(", ")} and ${names.length - 20} more` : names.join(", ");
}

/** One column [number of columns] of single numbers side by side: float32 when any is a float, otherwise int32 or int64. */
function joinNumbers(columns: readonly Column[], dataset: Dataset): Column {
  const odd = columns.find(({ dims, categories, type }) => dims.length > 0 || categories || type === DataType.UINT64);
  if (odd) {
    const what = odd.categories ? "texts" : odd.dims.length > 0 ? "arrays" : "uint64";
    throw new FishyError(
      `Column '${odd.name}' of ${dataset.name} holds ${what}, and cannot be joined to others: joined columns hold single numbers.`,
    );
  }
  const width = columns.length;
  const isWide = columns.some(({ type }) => type === DataType.INT64 || type === DataType.UINT32);
  const type = columns.some((column) => isFloat(column.type))
    ? DataType.FLOAT
    : isWide
      ? DataType.INT64
      : DataType.INT32;
  const data = newData(type, dataset.length * width) as { [i: number]: number | bigint };
  const convert = type === DataType.INT64 ? BigInt : Number;
  for (const [k, column] of columns.entries()) {
    for (let row = 0; row < dataset.length; row++) data[row * width + k] = convert(column.data[row] as number | bigint);
  }
  return { name: columns.map(({ name }) => name).join(","), type, dims: [width], data: data as unknown as TensorData };
}

/**
 * Columns that no other model input takes and that are not named as targets are: what the last unmapped input can mean.
 * A column that the target is mapped to is free, as an autoencoder's input is its target.
 */
function freeColumns(
  names: readonly string[],
  wanted: readonly WantedInput[],
  input: WantedInput,
  mapping: Readonly<Record<string, string>>,
): string[] {
  const others = wanted.filter((other) => !other.isTarget && other !== input);
  if (others.some((other) => mapping[other.name] === undefined && !names.includes(other.name))) return [];
  const taken = new Set(others.map((other) => mapping[other.name] ?? other.name));
  const mappedTargets = wanted.filter((other) => other.isTarget).map((other) => mapping[other.name]);
  const free = names.filter((name) => !TARGET_COLUMNS.includes(name) && !taken.has(name));
  // A table's columns of single numbers are its features, but for the one that is the target.
  return free.length > 1 ? free.filter((name) => !mappedTargets.includes(name)) : free;
}

/** How a column fills an input: the example shape, and whether an image's channels go last. */
export interface Fit {
  readonly dims: readonly number[];
  readonly channelsLast: boolean;
}

/**
 * The example shape of the input, filled by the column: equal, equal up to axes of length 1, or flat on one side.
 * Images also fit with their channels last. Other shapes of as many elements are refused: their order differs.
 */
export function fitOf(input: WantedInput, column: Column, what: string): Fit {
  const as = (dims: readonly number[], channelsLast = false): Fit => ({ dims, channelsLast });
  if (input.shape === undefined) return as(column.dims);
  if (input.shape.length === 0) {
    throw new FishyError(`The input '${input.name}' is a single number, without a batch axis; data cannot fill it.`);
  }
  const wanted = input.shape.slice(1);
  const compatible = (dims: readonly number[]) =>
    dims.length === wanted.length &&
    dims.every((dim, axis) => typeof wanted[axis] !== "number" || wanted[axis] === dim);
  if (compatible(column.dims)) return as(column.dims);
  const [channels, ...plane] = column.dims;
  if (column.isImage && compatible([...plane, channels as number])) return as([...plane, channels as number], true);
  const refuse = () =>
    new FishyError(
      `${what} has examples of shape [${column.dims.join(", ")}]; the model takes [${wanted.map((dim) => dim ?? "?").join(", ")}] for each example. ${column.isImage ? "Resize the images (--image-size)" : "Reshape the column"}, or map another one (--input ${input.name}=COLUMN).`,
    );
  if (!wanted.every((dim) => typeof dim === "number")) {
    if (wanted.length === 1) return as([exampleSize(column)]);
    throw refuse();
  }
  const dims = wanted as readonly number[];
  const squeezed = (shape: readonly number[]) => shape.filter((dim) => dim !== 1).join();
  const flat = dims.length <= 1 || column.dims.length <= 1;
  if (exampleSize({ dims }) !== exampleSize(column)) throw refuse();
  if (!flat && squeezed(dims) !== squeezed(column.dims)) throw refuse();
  return as(dims);
}
