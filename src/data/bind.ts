/** A dataset tied to a program's inputs: how its rows become the inputs' elements. */
import { FishyError, UsageError } from "../errors.js";
import { dataTypeName, newData, type TensorData } from "../onnx/tensor.js";
import { type Augment, type AugmentKey, type AugmentOptions, augmentationOf } from "./augment.js";
import { checkFinite, checkLabels } from "./check.js";
import { chooseColumn, fitOf, type WantedInput } from "./choose.js";
import { type CopyRows, conversion, isFloat, isInteger, type Scale } from "./convert.js";
import { type Column, type Dataset, exampleSize } from "./dataset.js";
import { type Normalize, type NormalizeOptions, normalizationOf } from "./normalize.js";
import type { Batch, BatchInput } from "./source.js";

export type { WantedInput } from "./choose.js";

export interface BindOptions {
  /** Column by input, where names alone do not tell. */
  readonly mapping?: Readonly<Record<string, string>> | undefined;
  readonly scale?: Scale | undefined;
  /** Of float inputs that are not the loss's target. */
  readonly normalize?: NormalizeOptions | undefined;
  /** Of images in batches that are drawn with a key. */
  readonly augment?: AugmentOptions | undefined;
}

interface Binding {
  readonly input: BatchInput;
  readonly column: Column;
  readonly size: number;
  readonly copy: CopyRows;
  readonly augment: Augment | undefined;
  /** Channels, when they go from first to last. */
  readonly interleave: number | undefined;
  readonly normalize: Normalize | undefined;
  /** Room for an augmented and for an interleaved example. */
  readonly scratch: readonly [TensorData, TensorData];
}

/** Rows of a dataset, and the numbers that they have in a larger one. */
export interface Rows {
  readonly rows: Uint32Array;
  /** Number of row 0. */
  readonly offset?: number;
  /** What they are augmented by; left as they are without. */
  readonly key?: AugmentKey | undefined;
}

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
      return bindColumn(input, column, dataset, options);
    });
    if (augments(options) && !bindings.some(({ augment }) => augment)) {
      throw new FishyError(
        `No input is filled with images of ${dataset.name}, such as [height, width], that could be cropped or flipped. Bring flat ones into that shape, or leave the augmentation out.`,
      );
    }
    if (options.normalize && !bindings.some(({ normalize }) => normalize)) {
      throw new FishyError(
        `No input that ${dataset.name} fills takes floats, which alone are normalised. Leave the mean and the deviation out.`,
      );
    }
    return new BoundDataset(dataset, bindings);
  }

  get inputs(): readonly BatchInput[] {
    return this.bindings.map((binding) => binding.input);
  }

  /** Column name by input. */
  get columns(): ReadonlyMap<string, string> {
    return new Map(this.bindings.map(({ input, column }) => [input.name, column.name]));
  }

  /**
   * Checks that texts have the same indices as in another dataset.
   * @throws FishyError when they have not.
   */
  requireSameTexts(other: BoundDataset): void {
    for (const [i, { column, input }] of this.bindings.entries()) {
      const theirs = other.bindings[i]?.column.categories;
      if (column.categories?.join("\0") === theirs?.join("\0")) continue;
      const list = (texts: readonly string[] = []) => texts.slice(0, 8).join(", ") || "no texts";
      throw new FishyError(
        `Column '${column.name}', which fills '${input.name}', holds ${list(column.categories)} in ${this.dataset.name} and ${list(theirs)} in ${other.dataset.name}, so that equal indices would mean different texts. Put numbers in the column.`,
      );
    }
  }

  /** What is known of the columns, without holding on to their rows. */
  withoutRows(): BoundDataset {
    const none = (column: Column): Column => ({ ...column, data: newData(column.type, 0) });
    const columns = new Map([...this.dataset.columns].map(([name, column]) => [name, none(column)]));
    const bindings = this.bindings.map((binding) => ({ ...binding, column: none(binding.column) }));
    return new BoundDataset({ ...this.dataset, columns, length: 0 }, bindings);
  }

  /** The examples of these rows. */
  batch(rows: Uint32Array, key?: AugmentKey): Batch {
    return { size: rows.length, fill: (into) => this.fill({ rows, key }, into, 0) };
  }

  /** Writes the examples of these rows, the first as the `at`-th of the arrays. */
  fill({ rows, offset = 0, key }: Rows, into: ReadonlyMap<string, TensorData>, at: number): void {
    for (const binding of this.bindings) {
      const { input, column, size, copy, augment, interleave, normalize, scratch } = binding;
      const target = into.get(input.name);
      // A program that does not read an input has no buffer for it.
      if (!target) continue;
      for (let i = 0; i < rows.length; i++) {
        const row = rows[i] as number;
        let [from, start] = [column.data, row * size];
        if (augment && key) {
          augment(from, start, scratch[0], key, offset + row);
          [from, start] = [scratch[0], 0];
        }
        if (interleave !== undefined) {
          interleaveChannels(from, start, interleave, size, scratch[1]);
          [from, start] = [scratch[1], 0];
        }
        copy(from, start, size, target, (at + i) * size);
        normalize?.(target, (at + i) * size);
      }
    }
  }
}

function augments({ augment }: BindOptions): boolean {
  return augment !== undefined && ((augment.crop ?? 0) > 0 || augment.flip === true);
}

function bindColumn(input: WantedInput, column: Column, dataset: Dataset, options: BindOptions): Binding {
  const what = `Column '${column.name}' of ${dataset.name}, which fills the input '${input.name}',`;
  if (input.classes !== undefined) {
    if (!isInteger(column.type)) {
      throw new FishyError(`${what} holds ${dataTypeName(column.type)}; labels are integers, the indices of classes.`);
    }
    checkLabels(column, input.classes, dataset.name);
  }
  const { dims, channelsLast } = fitOf(input, column, what);
  const size = exampleSize(column);
  const { augment, normalize, scale = "auto" } = options;
  const isImage = column.dims.length > 1 && !input.isTarget;
  const isAugmented = isImage && augments(options);
  const normalizes = normalize && isFloat(input.type) && !input.isTarget;
  return {
    input: { name: input.name, type: input.type, dims },
    column,
    size,
    copy: conversion(column.type, input.type, scale, what),
    augment: isAugmented && augment ? augmentationOf(column, augment) : undefined,
    interleave: channelsLast ? column.dims[0] : undefined,
    normalize: normalizes ? normalizationOf(normalize, dims, `The input '${input.name}'`) : undefined,
    scratch: [newData(column.type, isAugmented ? size : 0), newData(column.type, channelsLast ? size : 0)],
  };
}

function interleaveChannels(from: TensorData, start: number, channels: number, size: number, to: TensorData): void {
  const source = from as Float32Array;
  const target = to as Float32Array;
  const plane = size / channels;
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < plane; i++) target[i * channels + c] = source[start + c * plane + i] as number;
  }
}
