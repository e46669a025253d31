/** Normalisation of inputs: (x − mean) / deviation, for all numbers or for each channel. */
import { FishyError } from "../errors.js";
import { elementCount, type TensorData } from "../onnx/tensor.js";

/** Mean and standard deviation that inputs are normalised by. */
export interface NormalizeOptions {
  /** One for all numbers, or one for each channel; of the values that the model would get without. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

/** Normalises the example that begins at `at`, in place. */
export type Normalize = (data: TensorData, at: number) => void;

/**
 * How examples of shape `dims` are normalised.
 * @throws FishyError when there is a mean for each of some channels, and no axis has as many.
 */
export function normalizationOf({ mean, std }: NormalizeOptions, dims: readonly number[], what: string): Normalize {
  const size = elementCount(dims);
  const channels = mean.length;
  const scale = std.map((value) => 1 / value);
  const isFirst = channels === 1 || dims[0] === channels;
  if (!isFirst && dims.at(-1) !== channels) {
    throw new FishyError(
      `${what} has the shape [${dims.join(", ")}], and ${channels} means are given: one is for all numbers, otherwise the first or the last axis has as many.`,
    );
  }
  const run = isFirst ? size / channels : 1;
  return (data, at) => {
    const values = data as Float32Array;
    for (let i = 0; i < size; i++) {
      const channel = Math.floor(i / run) % channels;
      values[at + i] = ((values[at + i] as number) - (mean[channel] as number)) * (scale[channel] as number);
    }
  };
}
