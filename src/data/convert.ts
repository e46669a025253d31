/** Column elements as the model wants them: bytes as fractions, labels as int64, floats as float32. */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { dataTypeName, type TensorData } from "../onnx/tensor.js";

/** Copies `count` elements of `from`, starting at `start`, to `to`, starting at `at`. */
export type CopyRows = (from: TensorData, start: number, count: number, to: TensorData, at: number) => void;

/** How integers become floats: `auto` divides bytes (uint8) by 255 and leaves other integers alone. */
export type Scale = "auto" | "none" | number;

type Numbers = { [index: number]: number; readonly length: number };
type Bigs = { [index: number]: bigint; readonly length: number };

const FLOATS: readonly DataType[] = [DataType.FLOAT, DataType.DOUBLE];
const WIDE: readonly DataType[] = [DataType.INT64, DataType.UINT64];
const NUMBERS: readonly DataType[] = [
  ...FLOATS,
  ...WIDE,
  DataType.INT8,
  DataType.INT16,
  DataType.INT32,
  DataType.UINT8,
  DataType.UINT16,
  DataType.UINT32,
  DataType.BOOL,
];

export function isFloat(type: DataType): boolean {
  return FLOATS.includes(type);
}

export function isInteger(type: DataType): boolean {
  return NUMBERS.includes(type) && !isFloat(type) && type !== DataType.BOOL;
}

/**
 * How a column of type `from` fills an input of type `to`.
 * @throws FishyError when numbers would be lost: floats into integers, half precision into anything else.
 */
export function conversion(from: DataType, to: DataType, scale: Scale, what: string): CopyRows {
  const factor = scale === "auto" ? (from === DataType.UINT8 ? 1 / 255 : 1) : scale === "none" ? 1 : scale;
  const scaled = isFloat(to) && factor !== 1;
  if (from === to && !scaled) return copySame;
  if (!NUMBERS.includes(from) || !NUMBERS.includes(to) || (isFloat(from) && !isFloat(to))) {
    throw new FishyError(
      `${what} holds ${dataTypeName(from)} and the model takes ${dataTypeName(to)}. Convert the column, or map another one (--input NAME=COLUMN).`,
    );
  }
  const fromWide = WIDE.includes(from);
  const toWide = WIDE.includes(to);
  if (from === DataType.UINT8 && isFloat(to))
    return copyTable(Float64Array.from({ length: 256 }, (_, byte) => byte * factor));
  if (fromWide && toWide) return copySame;
  if (toWide) return copyToWide;
  if (fromWide) return copyFromWide(isFloat(to) ? factor : 1);
  return copyNumbers(isFloat(to) ? factor : 1);
}

const copySame: CopyRows = (from, start, count, to, at) => {
  (to as Float32Array).set((from as Float32Array).subarray(start, start + count), at);
};

function copyTable(table: Float64Array): CopyRows {
  return (from, start, count, to, at) => {
    const source = from as unknown as Numbers;
    const target = to as unknown as Numbers;
    for (let i = 0; i < count; i++) target[at + i] = table[source[start + i] as number] as number;
  };
}

const copyToWide: CopyRows = (from, start, count, to, at) => {
  const source = from as unknown as Numbers;
  const target = to as unknown as Bigs;
  for (let i = 0; i < count; i++) target[at + i] = BigInt(source[start + i] as number);
};

function copyFromWide(factor: number): CopyRows {
  return (from, start, count, to, at) => {
    const source = from as unknown as Bigs;
    const target = to as unknown as Numbers;
    for (let i = 0; i < count; i++) target[at + i] = Number(source[start + i]) * factor;
  };
}

function copyNumbers(factor: number): CopyRows {
  return (from, start, count, to, at) => {
    const source = from as unknown as Numbers;
    const target = to as unknown as Numbers;
    for (let i = 0; i < count; i++) target[at + i] = (source[start + i] as number) * factor;
  };
}
