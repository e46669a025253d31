/** Making and reading `TensorProto`s. */
import Long from "long";
import { FishyError } from "../errors.js";
import { isHalf, narrow } from "./half.js";
import { DataLocation, DataType, type Int64, type TensorProto } from "./proto.js";

/** Tensor contents by type: int64 as bigint, bool as bytes, float16 and bfloat16 as their bits. */
export type TensorData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array;

type TensorDataConstructor = new (buffer: ArrayBuffer, byteOffset?: number, length?: number) => TensorData;

const CONSTRUCTORS: Partial<Record<number, TensorDataConstructor & { BYTES_PER_ELEMENT: number }>> = {
  [DataType.FLOAT]: Float32Array,
  [DataType.DOUBLE]: Float64Array,
  [DataType.INT8]: Int8Array,
  [DataType.INT16]: Int16Array,
  [DataType.INT32]: Int32Array,
  [DataType.INT64]: BigInt64Array,
  [DataType.UINT8]: Uint8Array,
  [DataType.BOOL]: Uint8Array,
  [DataType.UINT16]: Uint16Array,
  [DataType.FLOAT16]: Uint16Array,
  [DataType.BFLOAT16]: Uint16Array,
  [DataType.UINT32]: Uint32Array,
  [DataType.UINT64]: BigUint64Array,
};

/** The name of an element type as ONNX writes it, such as `float` or `int64`. */
export function dataTypeName(type: number): string {
  const found = Object.entries(DataType).find(([, value]) => value === type);
  return found ? found[0].toLowerCase() : `type ${type}`;
}

export function toNumber(value: Int64 | undefined, fallback = 0): number {
  if (value === undefined) return fallback;
  return typeof value === "number" ? value : value.toNumber();
}

export function dimsOf(tensor: TensorProto): number[] {
  return tensor.dims.map((dim) => toNumber(dim));
}

export function elementCount(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

export function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === DataLocation.EXTERNAL;
}

/** Bytes of one element, or undefined for types that are packed below a byte or are strings. */
export function bytesPerElement(type: number): number | undefined {
  return CONSTRUCTORS[type]?.BYTES_PER_ELEMENT;
}

/** Zeros. */
export function newData(type: number, length: number): TensorData {
  const ArrayType = CONSTRUCTORS[type];
  if (!ArrayType) throw new FishyError(`Elements of ${dataTypeName(type)} cannot be held in memory by fishy.`);
  return new ArrayType(new ArrayBuffer(length * ArrayType.BYTES_PER_ELEMENT));
}

/** A tensor with `data` as its raw bytes (not copied). */
export function tensorFromData(name: string, type: DataType, dims: readonly number[], data: TensorData): TensorProto {
  if (elementCount(dims) !== data.length) {
    throw new Error(`tensor '${name}': ${data.length} elements do not fill the shape [${dims.join(", ")}]`);
  }
  return {
    name,
    dataType: type,
    dims: [...dims],
    rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  };
}

/** A tensor of numbers; int64 values must be safe integers. */
export function tensorFromNumbers(
  name: string,
  type: DataType,
  dims: readonly number[],
  values: readonly number[],
): TensorProto {
  return tensorFromData(name, type, dims, dataFromNumbers(type, values));
}

export function dataFromNumbers(type: number, values: readonly number[]): TensorData {
  switch (type) {
    case DataType.INT64:
      return BigInt64Array.from(values, BigInt);
    case DataType.UINT64:
      return BigUint64Array.from(values, BigInt);
    default: {
      const ArrayType = CONSTRUCTORS[type];
      if (isHalf(type)) return narrow(type, Float32Array.from(values));
      if (!ArrayType) {
        throw new Error(`numbers cannot be written as ${dataTypeName(type)}`);
      }
      const data = new ArrayType(new ArrayBuffer(values.length * ArrayType.BYTES_PER_ELEMENT)) as Float64Array;
      data.set(values);
      return data;
    }
  }
}

/** Raw little-endian bytes as typed data; copies when `bytes` is not aligned. */
export function dataFromBytes(type: number, bytes: Uint8Array, what: string): TensorData {
  const ArrayType = CONSTRUCTORS[type];
  if (!ArrayType) throw new FishyError(`${what} has elements of ${dataTypeName(type)}, which fishy cannot read.`);
  const size = ArrayType.BYTES_PER_ELEMENT;
  // Not slice(): that of a Buffer does not copy.
  const aligned = bytes.byteOffset % size === 0 && bytes.buffer instanceof ArrayBuffer ? bytes : new Uint8Array(bytes);
  return new ArrayType(aligned.buffer as ArrayBuffer, aligned.byteOffset, Math.floor(bytes.length / size));
}

/**
 * The contents of a tensor that lies in the model file.
 * @throws FishyError when the tensor is external (see `external.ts`), of an unreadable type, or of the wrong length.
 */
export function dataOf(tensor: TensorProto): TensorData {
  const type = tensor.dataType ?? DataType.UNDEFINED;
  const what = `tensor '${tensor.name ?? ""}'`;
  if (isExternal(tensor)) throw new FishyError(`${what} lies in an external file, which was not read.`);
  const count = elementCount(dimsOf(tensor));
  const data = tensor.rawData?.length ? dataFromBytes(type, tensor.rawData, what) : dataFromFields(tensor, type, what);
  if (data.length !== count) {
    throw new FishyError(
      `${what} has the shape [${dimsOf(tensor).join(", ")}] (${count} elements) but holds ${data.length}. The file is damaged.`,
    );
  }
  return data;
}

function dataFromFields(tensor: TensorProto, type: number, what: string): TensorData {
  switch (type) {
    case DataType.FLOAT:
      return Float32Array.from(tensor.floatData ?? []);
    case DataType.DOUBLE:
      return Float64Array.from(tensor.doubleData ?? []);
    case DataType.INT64:
      return BigInt64Array.from(tensor.int64Data ?? [], toBigInt);
    case DataType.UINT64:
      return BigUint64Array.from(tensor.uint64Data ?? [], toBigInt);
    case DataType.UINT32:
      return Uint32Array.from(tensor.uint64Data ?? [], (value) => toNumber(value));
    default: {
      const ArrayType = CONSTRUCTORS[type];
      if (!ArrayType) throw new FishyError(`${what} has elements of ${dataTypeName(type)}, which fishy cannot read.`);
      const values = tensor.int32Data ?? [];
      const data = new ArrayType(new ArrayBuffer(values.length * ArrayType.BYTES_PER_ELEMENT)) as Int32Array;
      data.set(values);
      return data;
    }
  }
}

function toBigInt(value: Int64): bigint {
  return Long.isLong(value) ? value.toBigInt() : BigInt(value as number);
}

/** The contents of a small tensor as numbers. int64 beyond 2^53 (such as INT64_MAX) lose their last digits. */
export function numbersOf(tensor: TensorProto): number[] {
  return Array.from(dataOf(tensor) as ArrayLike<number | bigint>, Number);
}
