/** Which column fills which input of the program, and how. */
import { FishyError, UsageError } from "../errors.js";
import type { Dim } from "../onnx/builder.js";
import type { DataType } from "../onnx/proto.js";
import { dataTypeName, type TensorData } from "../onnx/tensor.js";
import { checkFinite, checkLabels } from "./check.js";
import { type CopyRows, conversion, isInteger, type Scale } from "./convert.js";
import { type Column, type Dataset, exampleSize } from "./dataset.js";
import type { Batch, BatchInput } from "./source.js";

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

export interface BindOptions {
  /** Column by input, where names alone do not tell. */
  readonly mapping?: Readonly<Record<string, string>>;
  readonly scale?: Scale;
}

interface Binding {
  readonly input: BatchInput;
  readonly column: Column;
  readonly size: number;
  readonly copy: CopyRows;
}

const TARGET_COLUMNS = ["labels", "label", "target", "targets", "y"];

/** A dataset tied to a program's inputs. */
export class BoundDataset {
  private constructor(
    readonly dataset: Dataset,
    private readonly bindings: readonly Binding[],
  ) {}

  /**
   * Ties columns to inputs: by the mapping, by equal names, or because only one is left. Checks types, shapes,
   * finiteness, and labels.
   * @throws FishyError or UsageError that names the input and the columns there are.
   */
  static bind(dataset: Dataset, wanted: readonly WantedInput[], options: BindOptions = {}): BoundDataset {
    const mapping = options.mapping ?? {};
    for (const name of Object.keys(mapping)) {
      if (!wanted.some((input) => input.name === name)) {
        throw new UsageError(
          `The program has no input '${name}' to map a column to. Its inputs: ${wanted.map((input) => input.name).join(", ")}.`,
        );
      }
    }
    const checked = new Set<Column>();
    const bindings = wanted.map((input) => {
      const column = chooseColumn(dataset, wanted, input, mapping);
      if (!checked.has(column)) checkFinite(column, dataset.name);
      checked.add(column);
      const what = `Column '${column.name}' of ${dataset.name}, which fills the input '${input.name}',`;
      if (input.classes !== undefined) {
        if (!isInteger(column.type)) {
          throw new FishyError(
            `${what} holds ${dataTypeName(column.type)}; labels are integers, the indices of classes.`,
          );
        }
        checkLabels(column, input.classes, dataset.name);
      }
      return {
        input: { name: input.name, type: input.type, dims: exampleDims(input, column, what) },
        column,
        size: exampleSize(column),
        copy: conversion(column.type, input.type, options.scale ?? "auto", what),
      };
    });
    return new BoundDataset(dataset, bindings);
  }

  get inputs(): readonly BatchInput[] {
    return this.bindings.map((binding) => binding.input);
  }

  /** Column name by input. */
  get columns(): ReadonlyMap<string, string> {
    return new Map(this.bindings.map(({ input, column }) => [input.name, column.name]));
  }

  /** The examples of these rows. */
  batch(rows: Uint32Array): Batch {
    return { size: rows.length, fill: (into) => this.fill(rows, into) };
  }

  private fill(rows: Uint32Array, into: ReadonlyMap<string, TensorData>): void {
    for (const { input, column, size, copy } of this.bindings) {
      const target = into.get(input.name);
      // A program that does not read an input has no buffer for it.
      if (!target) continue;
      for (let i = 0; i < rows.length; i++) copy(column.data, (rows[i] as number) * size, size, target, i * size);
    }
  }
}

function chooseColumn(
  dataset: Dataset,
  wanted: readonly WantedInput[],
  input: WantedInput,
  mapping: Readonly<Record<string, string>>,
): Column {
  const names = [...dataset.columns.keys()];
  const mapped = mapping[input.name];
  if (mapped !== undefined) {
    const column = dataset.columns.get(mapped);
    if (!column) {
      throw new UsageError(
        `Input '${input.name}' is mapped to the column '${mapped}', which ${dataset.name} does not have. Its columns: ${names.join(", ")}.`,
      );
    }
    return column;
  }
  const same = dataset.columns.get(input.name);
  if (same) return same;
  const candidates = input.isTarget
    ? TARGET_COLUMNS.filter((name) => names.includes(name)).slice(0, 1)
    : freeColumns(names, wanted, input, mapping);
  const column = candidates.length === 1 ? dataset.columns.get(candidates[0] as string) : undefined;
  if (!column) {
    throw new UsageError(
      `Which column fills the input '${input.name}'? The dataset ${dataset.name} has ${names.join(", ")}. Say it with --input ${input.name}=COLUMN.`,
    );
  }
  return column;
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
  return names.filter((name) => !TARGET_COLUMNS.includes(name) && !taken.has(name));
}

/**
 * The example shape of the input, filled by the column: equal, equal up to axes of length 1, or flat on one side.
 * Other shapes of as many elements (channels first and last) are refused: their order differs.
 */
function exampleDims(input: WantedInput, column: Column, what: string): readonly number[] {
  if (input.shape === undefined) return column.dims;
  if (input.shape.length === 0) {
    throw new FishyError(`The input '${input.name}' is a single number, without a batch axis; data cannot fill it.`);
  }
  const wanted = input.shape.slice(1);
  const compatible = (dims: readonly number[]) =>
    dims.length === wanted.length &&
    dims.every((dim, axis) => typeof wanted[axis] !== "number" || wanted[axis] === dim);
  if (compatible(column.dims)) return column.dims;
  const refuse = () =>
    new FishyError(
      `${what} has examples of shape [${column.dims.join(", ")}]; the model takes [${wanted.map((dim) => dim ?? "?").join(", ")}] for each example. Reshape the column, or map another one (--input ${input.name}=COLUMN).`,
    );
  if (!wanted.every((dim) => typeof dim === "number")) {
    if (wanted.length === 1) return [exampleSize(column)];
    throw refuse();
  }
  const dims = wanted as readonly number[];
  const squeezed = (shape: readonly number[]) => shape.filter((dim) => dim !== 1).join();
  const flat = dims.length <= 1 || column.dims.length <= 1;
  if (exampleSize({ dims }) !== exampleSize(column)) throw refuse();
  if (!flat && squeezed(dims) !== squeezed(column.dims)) throw refuse();
  return dims;
}
