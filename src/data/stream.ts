/** Batches from code: any iterable, synchronous or not. */
import { FishyError } from "../errors.js";
import { elementCount, type TensorData } from "../onnx/tensor.js";
import type { WantedInput } from "./bind.js";
import { conversion, isFloat, type Scale } from "./convert.js";
import type { ArrayFile } from "./formats.js";
import type { Batch, BatchInput, BatchSource } from "./source.js";

/** One batch by input name; the first axis of each array counts the examples. */
export type StreamBatch = Readonly<Record<string, ArrayFile>>;

/** Opens the batches of an epoch (counting from 0). The same epoch must give the same batches for a run to be repeatable. */
export type OpenStream = (epoch: number) => AsyncIterable<StreamBatch> | Iterable<StreamBatch>;

/**
 * A source around code. The first batch of epoch 0 is read once to learn shapes and the batch size; later batches must
 * have the same shapes, but for a shorter last one, which is dropped.
 * @throws FishyError when the stream is empty, lacks an input, or changes its shapes.
 */
export async function streamBatches(
  open: OpenStream,
  wanted: readonly WantedInput[],
  scale: Scale = "auto",
): Promise<BatchSource> {
  const first = await firstOf(open(0));
  if (!first) throw new FishyError("The data stream ended before its first batch.");
  const bound = wanted.map((input) => {
    const array = first[input.name];
    if (!array) {
      throw new FishyError(
        `The data stream's batches have no '${input.name}', which the program takes; they have ${Object.keys(first).join(", ")}.`,
      );
    }
    const { shape } = input;
    if (
      shape &&
      (shape.length !== array.dims.length ||
        shape.some((d, i) => i > 0 && typeof d === "number" && d !== array.dims[i]))
    ) {
      throw new FishyError(
        `The data stream's '${input.name}' has the shape [${array.dims.join(", ")}]; the model takes [${shape.map((d) => d ?? "?").join(", ")}].`,
      );
    }
    const copy = conversion(array.type, input.type, scale, `The data stream's '${input.name}'`);
    return { input, dims: array.dims, type: array.type, copy };
  });
  const batchSize = bound[0]?.dims[0] ?? 0;
  if (batchSize === 0) throw new FishyError("The data stream's first batch is empty.");

  const check = (batch: StreamBatch, epoch: number, index: number): number => {
    let size = batchSize;
    for (const { input, dims, type } of bound) {
      const array = batch[input.name];
      const where = `batch ${index} of epoch ${epoch}`;
      const same =
        array?.type === type &&
        array.dims.length === dims.length &&
        array.dims.every((d, i) => i === 0 || d === dims[i]);
      if (!array || !same || (array.dims[0] ?? 0) > batchSize || array.data.length !== elementCount(array.dims)) {
        throw new FishyError(
          `The data stream's '${input.name}' in ${where} has the shape [${array?.dims.join(", ") ?? "nothing"}]; the first batch had [${dims.join(", ")}].`,
        );
      }
      if (isFloat(type) && !(array.data as Float32Array).every(Number.isFinite)) {
        throw new FishyError(`The data stream's '${input.name}' holds NaN or an infinity in ${where}.`);
      }
      if (input.classes !== undefined) checkClasses(array.data, input.classes, `'${input.name}' in ${where}`);
      size = Math.min(size, array.dims[0] ?? 0);
    }
    return size;
  };

  return {
    inputs: bound.map(({ input, dims }): BatchInput => ({ name: input.name, type: input.type, dims: dims.slice(1) })),
    batchSize,
    batchesPerEpoch: undefined,
    async *batches(epoch, skip) {
      let index = 0;
      for await (const batch of open(epoch)) {
        if (index++ < skip) continue;
        if (check(batch, epoch, index - 1) < batchSize) continue;
        yield toBatch(batch);
      }
    },
  };

  function toBatch(batch: StreamBatch): Batch {
    return {
      size: batchSize,
      fill(into) {
        for (const { input, copy } of bound) {
          const { data } = batch[input.name] as ArrayFile;
          const target = into.get(input.name);
          if (target) copy(data, 0, data.length, target, 0);
        }
      },
    };
  }
}

function checkClasses(labels: TensorData, classes: number, what: string): void {
  for (const value of labels) {
    const label = Number(value);
    if (!Number.isInteger(label) || label < 0 || label >= classes) {
      throw new FishyError(`The data stream's ${what} holds the label ${label}; the model has ${classes} classes.`);
    }
  }
}

async function firstOf<T>(values: AsyncIterable<T> | Iterable<T>): Promise<T | undefined> {
  for await (const value of values) return value;
  return undefined;
}
