/** NumPy's .npy format, versions 1 to 3 (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { bytesPerElement, dataFromBytes, elementCount, newData, type TensorData } from "../onnx/tensor.js";
import { swapBytes } from "./bytes.js";
import type { ArrayFile } from "./formats.js";

const TYPES: Record<string, DataType> = {
  f2: DataType.FLOAT16,
  f4: DataType.FLOAT,
  f8: DataType.DOUBLE,
  i1: DataType.INT8,
  i2: DataType.INT16,
  i4: DataType.INT32,
  i8: DataType.INT64,
  u1: DataType.UINT8,
  u2: DataType.UINT16,
  u4: DataType.UINT32,
  u8: DataType.UINT64,
  b1: DataType.BOOL,
};

const MAGIC = "\x93NUMPY";

/** What the header of a .npy file tells. */
export interface NpyHeader {
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly isBigEndian: boolean;
  readonly isColumnMajor: boolean;
  /** Where the data begins, in bytes. */
  readonly start: number;
}

/**
 * Reads the header from a file's first bytes.
 * @throws FishyError when the file is not .npy, or holds objects, strings or records.
 */
export function decodeNpyHeader(bytes: Uint8Array, source: string): NpyHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 12 || Buffer.from(bytes.subarray(0, 6)).toString("latin1") !== MAGIC) {
    throw new FishyError(`${source} is not a .npy file.`);
  }
  const version = bytes[6] as number;
  const [start, length] = version === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const header = new TextDecoder().decode(bytes.subarray(start, start + length));
  const descr = /'descr'\s*:\s*'([<>=|]?)([a-zA-Z]\d+)'/.exec(header);
  const fortran = /'fortran_order'\s*:\s*(True|False)/.exec(header);
  const shape = /'shape'\s*:\s*\(([^)]*)\)/.exec(header);
  const type = descr && TYPES[descr[2] as string];
  if (!descr || !fortran || !shape || type === undefined || type === null) {
    throw new FishyError(
      `${source} holds an array that is not of plain numbers: its header says ${header.trim() || "nothing"}. Save it as a numeric array.`,
    );
  }
  const dims = (shape[1] as string)
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean)
    .map(Number);
  return {
    type,
    dims,
    isBigEndian: descr[1] === ">",
    isColumnMajor: fortran[1] === "True",
    start: start + length,
  };
}

/**
 * Reads a .npy file from its bytes.
 * @throws FishyError when the file is not .npy, is cut off, or holds objects, strings or records.
 */
export function decodeNpy(bytes: Uint8Array, source: string): ArrayFile {
  const { type, dims, isBigEndian, isColumnMajor, start } = decodeNpyHeader(bytes, source);
  const size = bytesPerElement(type) as number;
  const body = bytes.subarray(start);
  const expected = elementCount(dims) * size;
  if (body.length < expected) {
    throw new FishyError(
      `${source} is cut off: the shape [${dims.join(", ")}] takes ${expected} bytes, the file holds ${body.length}.`,
    );
  }
  const ordered = isBigEndian ? swapBytes(body.subarray(0, expected), size) : body.subarray(0, expected);
  const data = dataFromBytes(type, ordered, source);
  return { type, dims, data: isColumnMajor ? fromColumnMajor(type, dims, data) : data };
}

/** Elements in row-major order, from column-major (`fortran_order`). */
function fromColumnMajor(type: DataType, dims: readonly number[], data: TensorData): TensorData {
  const out = newData(type, data.length) as Float64Array;
  const strides = dims.map((_, axis) => elementCount(dims.slice(0, axis)));
  const index = dims.map(() => 0);
  let from = 0;
  for (let to = 0; to < data.length; to++) {
    out[to] = data[from] as number;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      const stride = strides[axis] as number;
      index[axis] = (index[axis] as number) + 1;
      from += stride;
      if ((index[axis] as number) < (dims[axis] as number)) break;
      from -= stride * (dims[axis] as number);
      index[axis] = 0;
    }
  }
  return out;
}
