/**
 * The safetensors format: a length, a JSON header, raw little-endian data
 * (https://github.com/huggingface/safetensors, "Format"). No maintained writer exists on npm.
 */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { bytesPerElement, dataFromBytes, elementCount, type TensorData } from "../onnx/tensor.js";

export interface NamedTensor {
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly data: TensorData;
}

export interface SafetensorsFile {
  readonly tensors: ReadonlyMap<string, NamedTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

const TYPES: Record<string, DataType> = {
  F64: DataType.DOUBLE,
  F32: DataType.FLOAT,
  F16: DataType.FLOAT16,
  BF16: DataType.BFLOAT16,
  I64: DataType.INT64,
  I32: DataType.INT32,
  I16: DataType.INT16,
  I8: DataType.INT8,
  U64: DataType.UINT64,
  U32: DataType.UINT32,
  U16: DataType.UINT16,
  U8: DataType.UINT8,
  BOOL: DataType.BOOL,
};

/** The format's own limit on the header. */
const MAX_HEADER_BYTES = 100_000_000;

interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Where a tensor lies in a file. */
export interface TensorPlace {
  readonly type: DataType;
  readonly dims: readonly number[];
  /** Bytes of the file. */
  readonly start: number;
  readonly end: number;
}

/**
 * Reads the header from a file's first bytes.
 * @param fileLength bytes of the whole file.
 * @throws FishyError when the header is no header, or describes what the file does not hold.
 */
export function decodeSafetensorsHeader(
  bytes: Uint8Array,
  fileLength: number,
  source: string,
): { readonly places: ReadonlyMap<string, TensorPlace>; readonly metadata: Readonly<Record<string, string>> } {
  const damaged = (what: string) => new FishyError(`${source} is not a whole safetensors file: ${what}.`);
  if (bytes.length < 8) throw damaged(`${bytes.length} bytes are less than a header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerLength = Number(view.getBigUint64(0, true));
  if (headerLength > MAX_HEADER_BYTES || headerLength > fileLength - 8) {
    throw damaged(`its header claims ${headerLength} bytes, the file has ${fileLength}`);
  }
  let header: Record<string, unknown>;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + headerLength)));
  } catch {
    throw damaged("its header is not JSON");
  }
  const dataStart = 8 + headerLength;
  const dataLength = fileLength - dataStart;
  const places = new Map<string, TensorPlace>();
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") {
      metadata = value as Record<string, string>;
      continue;
    }
    const { dtype, shape, data_offsets } = value as HeaderEntry;
    const type = TYPES[dtype];
    if (type === undefined) throw damaged(`tensor '${name}' has the unknown type ${dtype}`);
    const [start, end] = data_offsets;
    if (!(start >= 0 && end >= start && end <= dataLength)) {
      throw damaged(`tensor '${name}' lies at bytes ${start}–${end} of ${dataLength}`);
    }
    const elements = (end - start) / (bytesPerElement(type) as number);
    if (elements !== elementCount(shape)) {
      throw damaged(`tensor '${name}' of shape [${shape.join(", ")}] holds ${elements} elements`);
    }
    places.set(name, { type, dims: shape, start: dataStart + start, end: dataStart + end });
  }
  return { places, metadata };
}

/**
 * Reads a safetensors file from its bytes.
 * @param source what to call the file in an error.
 * @throws FishyError when the file is cut off or its header does not describe its data.
 */
export function decodeSafetensors(bytes: Uint8Array, source = "the safetensors data"): SafetensorsFile {
  const { places, metadata } = decodeSafetensorsHeader(bytes, bytes.length, source);
  const tensors = new Map(
    [...places].map(([name, { type, dims, start, end }]): [string, NamedTensor] => [
      name,
      { type, dims, data: dataFromBytes(type, bytes.subarray(start, end), `tensor '${name}'`) },
    ]),
  );
  return { tensors, metadata };
}

/**
 * A file's bytes in pieces, the tensors in the order given and not copied: for files that are written piece by piece.
 * Data is aligned to 8 bytes by padding the header with spaces.
 */
export function safetensorsPieces(
  tensors: ReadonlyMap<string, NamedTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array[] {
  const header: Record<string, unknown> = {};
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata;
  const pieces: Uint8Array[] = [];
  let offset = 0;
  for (const [name, { type, dims, data }] of tensors) {
    const dtype = Object.keys(TYPES).find((key) => TYPES[key] === type);
    if (!dtype) throw new Error(`tensor '${name}': type ${type} has no name in safetensors`);
    header[name] = { dtype, shape: dims, data_offsets: [offset, offset + data.byteLength] };
    pieces.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    offset += data.byteLength;
  }
  let json = JSON.stringify(header);
  const length = new TextEncoder().encode(json).length;
  json += " ".repeat((8 - (length % 8)) % 8);
  const encoded = new TextEncoder().encode(json);
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(encoded.length), true);
  return [prefix, encoded, ...pieces];
}

/** A file's bytes. */
export function encodeSafetensors(
  tensors: ReadonlyMap<string, NamedTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  return Buffer.concat(safetensorsPieces(tensors, metadata));
}
