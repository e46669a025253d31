/** Where batches come from: what the training loop knows of data. */
import type { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";

/** One input of the program as the data fills it. */
export interface BatchInput {
  readonly name: string;
  readonly type: DataType;
  /** Shape of one example, without the batch axis. */
  readonly dims: readonly number[];
}

/** Some examples, still to be written where they are wanted. */
export interface Batch {
  /** Number of examples. */
  readonly size: number;
  /** Writes the examples into arrays of exactly this batch's size, by input. */
  fill(into: ReadonlyMap<string, TensorData>): void;
}

/** Batches of equal size, in an order that the epoch alone decides. */
export interface BatchSource {
  readonly inputs: readonly BatchInput[];
  readonly batchSize: number;
  /** Batches in an epoch; undefined when only the end tells. */
  readonly batchesPerEpoch: number | undefined;
  /**
   * The batches of an epoch, the first `skip` left out.
   * @param epoch counts from 0.
   */
  batches(epoch: number, skip: number): AsyncIterable<Batch> | Iterable<Batch>;
  /** Ends what the source keeps running. */
  close?(): Promise<void>;
}
