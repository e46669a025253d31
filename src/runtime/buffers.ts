/**
 * Preallocated tensors. The runtime writes a preallocated output in place, so a training step on the CPU allocates
 * nothing of ours: each tensor of the state has two buffers that change places.
 */
import type { DataType } from "../onnx/proto.js";
import { elementCount, newData, type TensorData } from "../onnx/tensor.js";
import { type Runtime, type Tensor, tensorOver } from "./ort.js";

/** A tensor whose contents are read and written through `data`. */
export interface Buffer {
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly data: TensorData;
  readonly tensor: Tensor;
}

/** A buffer of zeros, or around `data`. */
export function allocateBuffer(
  ort: Runtime,
  type: DataType,
  dims: readonly number[],
  what: string,
  data: TensorData = newData(type, elementCount(dims)),
): Buffer {
  return { type, dims, data, tensor: tensorOver(ort, type, dims, data, what) };
}

/** A value that steps read and rewrite. The second buffer is made when a step first rewrites the value. */
export class DoubleBuffer {
  private back: Buffer | undefined;

  constructor(
    private readonly ort: Runtime,
    readonly name: string,
    private front: Buffer,
  ) {}

  /** The value now. */
  get current(): Buffer {
    return this.front;
  }

  /** Where the next value goes. */
  get next(): Buffer {
    this.back ??= allocateBuffer(this.ort, this.front.type, this.front.dims, this.name);
    return this.back;
  }

  /** Makes what was written to `next` current. */
  swap(): void {
    const { next } = this;
    this.back = this.front;
    this.front = next;
  }
}
