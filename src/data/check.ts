/** Refusing data that would train silently wrong: NaN, infinities, labels outside the classes. */
import { FishyError } from "../errors.js";
import { isFloat } from "./convert.js";
import type { Column } from "./dataset.js";
import { exampleSize } from "./dataset.js";

/** @throws FishyError naming the first row that holds NaN or an infinity. */
export function checkFinite(column: Column, dataset: string): void {
  if (!isFloat(column.type)) return;
  const data = column.data as Float64Array;
  for (let i = 0; i < data.length; i++) {
    const value = data[i] as number;
    if (!Number.isFinite(value)) {
      throw new FishyError(
        `Column '${column.name}' of ${dataset} holds ${value} in row ${Math.floor(i / exampleSize(column))} (rows count from 0). Remove or repair the row.`,
      );
    }
  }
}

/** @throws FishyError naming the first row with a label outside 0 … classes − 1. */
export function checkLabels(column: Column, classes: number, dataset: string): void {
  const data = column.data as Float64Array | BigInt64Array;
  for (let i = 0; i < data.length; i++) {
    const label = Number(data[i]);
    if (!Number.isInteger(label) || label < 0 || label >= classes) {
      throw new FishyError(
        `Column '${column.name}' of ${dataset} holds the label ${label} in row ${Math.floor(i / exampleSize(column))} (rows count from 0); the model has ${classes} classes, 0 to ${classes - 1}.`,
      );
    }
  }
}
