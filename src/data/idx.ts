/** IDX, the format of MNIST and its relatives (http://yann.lecun.com/exdb/mnist, "The IDX file format"). */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { bytesPerElement, dataFromBytes, elementCount } from "../onnx/tensor.js";
import { swapBytes } from "./bytes.js";
import type { ArrayFile } from "./formats.js";

const TYPES: Partial<Record<number, DataType>> = {
  8: DataType.UINT8,
  9: DataType.INT8,
  11: DataType.INT16,
  12: DataType.INT32,
  13: DataType.FLOAT,
  14: DataType.DOUBLE,
};

/**
 * Reads an IDX file (not compressed) from its bytes.
 * @throws FishyError when the header is not IDX's or the data is cut off.
 */
export function decodeIdx(bytes: Uint8Array, source: string): ArrayFile {
  const type = TYPES[bytes[2] ?? 0];
  const rank = bytes[3] ?? 0;
  if (bytes.length < 4 || bytes[0] !== 0 || bytes[1] !== 0 || type === undefined || bytes.length < 4 + 4 * rank) {
    throw new FishyError(`${source} is not an IDX file: its first bytes are not 0, 0, a type and a rank.`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const dims = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  const size = bytesPerElement(type) as number;
  const expected = elementCount(dims) * size;
  const body = bytes.subarray(4 + 4 * rank);
  if (body.length !== expected) {
    throw new FishyError(
      `${source} is cut off or damaged: the shape [${dims.join(", ")}] takes ${expected} bytes, the file holds ${body.length}.`,
    );
  }
  return { type, dims, data: dataFromBytes(type, swapBytes(body, size), source) };
}
