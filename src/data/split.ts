/** Parting a dataset into examples to train on and examples that are held out. */
import { UsageError } from "../errors.js";
import { permutation } from "./random.js";

export interface Split {
  /** Row numbers, ascending. */
  readonly train: Uint32Array;
  readonly heldOut: Uint32Array;
}

/** Mark these permutations off from those of the epochs. */
const SPLIT_STREAM = 0x5917;
const SAMPLE_STREAM = 0x5a3c;

/**
 * Holds out some of `length` examples, chosen by `seed`.
 * @param heldOut a fraction below 1, or a number of examples; 0 holds out nothing.
 * @throws UsageError when nothing would be left to train on.
 */
export function splitRows(length: number, heldOut: number, seed = 0): Split {
  if (!(heldOut >= 0) || (heldOut >= 1 && !Number.isInteger(heldOut))) {
    throw new UsageError(`The held-out part is ${heldOut}; expected a fraction from 0 to 1 or a number of examples.`);
  }
  const count = heldOut < 1 ? Math.round(heldOut * length) : heldOut;
  if (count >= length) {
    throw new UsageError(
      `Holding out ${count} of ${length} examples leaves none to train on. Give a fraction or a smaller number.`,
    );
  }
  const order = permutation(length, SPLIT_STREAM, seed);
  return { train: order.slice(count).sort(), heldOut: order.slice(0, count).sort() };
}

/** At most `count` of the rows, chosen at random but always the same; in their order. */
export function someRows(rows: Uint32Array, count: number): Uint32Array {
  if (rows.length <= count) return rows;
  const chosen = permutation(rows.length, SAMPLE_STREAM).subarray(0, count).sort();
  return chosen.map((i) => rows[i] as number);
}
