/** Columns from values row by row, as CSV, JSON lines and Parquet hold them. */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { elementCount, newData } from "../onnx/tensor.js";
import type { Column } from "./dataset.js";
import { decodeImage, type Image, withChannels } from "./images.js";
import { resizeAndCrop } from "./resize.js";

export interface ValueOptions {
  /** The element type; default int32 or int64 for whole numbers, float32 for others. */
  readonly type?: DataType | undefined;
  /** What to call the file in errors. */
  readonly source: string;
  /** Number of the first row, for errors. */
  readonly firstRow?: number;
}

/** Numbers, truth values, texts (which become indices of their sorted set), or equally long lists of them. */
export function columnOfValues(name: string, values: ArrayLike<unknown>, options: ValueOptions): Column {
  const { source, firstRow = 0 } = options;
  const where = (row: number) => `Column '${name}' of ${source}, row ${firstRow + row} (rows count from 0),`;
  for (let row = 0; row < values.length; row++) {
    if (values[row] === null || values[row] === undefined)
      throw new FishyError(`${where(row)} is empty. Fill it in or leave the row out.`);
  }
  if (typeof values[0] === "string") return categorical(name, values, where);
  const dims = shapeOf(values[0]);
  const size = elementCount(dims);
  const flat: unknown[] = new Array(values.length * size);
  for (let row = 0; row < values.length; row++) {
    if (!flatten(values[row], dims, flat, row * size)) {
      throw new FishyError(
        `${where(row)} has the shape ${shapeText(values[row])}, the first row ${shapeText(values[0])}. Bring all rows to one shape; lists of tokens of any length need --sequence-length.`,
      );
    }
  }
  const type = options.type ?? typeOf(flat, (i) => where(Math.floor(i / size)));
  const data = newData(type, flat.length) as { [i: number]: number | bigint };
  const isWide = type === DataType.INT64 || type === DataType.UINT64;
  for (let i = 0; i < flat.length; i++) {
    const value = flat[i] as number | bigint | boolean;
    if (typeof value !== "number" && typeof value !== "bigint" && typeof value !== "boolean") {
      throw new FishyError(`${where(Math.floor(i / size))} holds ${JSON.stringify(value)}, which is no number.`);
    }
    data[i] = isWide ? BigInt(value) : Number(value);
  }
  return { name, type, dims, data: data as unknown as Column["data"] };
}

function shapeOf(value: unknown): number[] {
  const dims: number[] = [];
  for (let inner = value; isList(inner); inner = inner[0]) dims.push(inner.length);
  return dims;
}

function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}

/** Writes the values of lists of the shape `dims` from `at` on; false for lists of another shape. */
function flatten(value: unknown, dims: readonly number[], into: unknown[], at: number): boolean {
  const [length, ...inner] = dims;
  if (length === undefined) {
    into[at] = value;
    return !isList(value);
  }
  if (!isList(value) || value.length !== length) return false;
  const size = elementCount(inner);
  for (let i = 0; i < length; i++) if (!flatten(value[i], inner, into, at + i * size)) return false;
  return true;
}

/** `[2, 3]`, or that lists inside of one another differ in length. */
function shapeText(value: unknown): string {
  const dims = shapeOf(value);
  return flatten(value, dims, [], 0) ? `[${dims.join(", ")}]` : "of lists of unequal lengths";
}

function typeOf(values: readonly unknown[], where: (i: number) => string): DataType {
  let type: DataType = DataType.INT32;
  for (const [i, value] of values.entries()) {
    if (typeof value === "boolean") continue;
    if (typeof value === "bigint") type = type === DataType.INT32 ? DataType.INT64 : type;
    else if (typeof value !== "number")
      throw new FishyError(`${where(i)} holds ${JSON.stringify(value)}, which is no number.`);
    // Also whole numbers beyond those that a double holds exactly, such as 1e300.
    else if (!Number.isSafeInteger(value)) return DataType.FLOAT;
    else if (Math.abs(value) >= 2 ** 31) type = DataType.INT64;
  }
  return type;
}

/** Texts as int64 indices of their sorted set, which is how torchvision's ImageFolder numbers classes. */
function categorical(name: string, values: ArrayLike<unknown>, where: (row: number) => string): Column {
  const texts = Array.from(values, (value, row) => {
    if (typeof value !== "string")
      throw new FishyError(`${where(row)} holds ${JSON.stringify(value)}, and others hold texts.`);
    return value;
  });
  const categories = [...new Set(texts)].sort();
  const index = new Map(categories.map((text, i) => [text, BigInt(i)]));
  const data = BigInt64Array.from(texts, (text) => index.get(text) as bigint);
  return { name, type: DataType.INT64, dims: [], data, categories };
}

export interface ImageOptions {
  /** Height and width that every image gets; default that of the first, which all must have. */
  readonly size?: readonly [number, number] | undefined;
  /** Channels that every image gets; default those of the first. */
  readonly channels?: number | undefined;
}

/**
 * A column [channels, height, width] of encoded images.
 * @param images bytes and what to call each in errors.
 */
export async function columnOfImages(
  name: string,
  images: readonly { readonly bytes: Uint8Array; readonly source: string }[],
  options: ImageOptions,
): Promise<Column> {
  let first: Image | undefined;
  let data: Uint8Array | Uint16Array = new Uint8Array(0);
  let size = 0;
  for (const [row, { bytes, source }] of images.entries()) {
    const decoded = await decodeImage(bytes, source);
    const sized = options.size ? resizeAndCrop(decoded, options.size) : decoded;
    const image = withChannels(sized, options.channels ?? first?.channels ?? sized.channels);
    if (!first) {
      first = image;
      size = image.data.length;
      const length = size * images.length;
      data = image.data instanceof Uint16Array ? new Uint16Array(length) : new Uint8Array(length);
    }
    if (image.data.constructor !== data.constructor) {
      throw new FishyError(
        `${source} is an image of ${8 * image.data.BYTES_PER_ELEMENT} bits a channel, the first one of ${8 * data.BYTES_PER_ELEMENT}. Bring them to one depth.`,
      );
    }
    if (image.height !== first.height || image.width !== first.width) {
      throw new FishyError(
        `${source} is an image of ${image.height} × ${image.width} pixels, the first one of ${first.height} × ${first.width}. Bring them to one size with --image-size.`,
      );
    }
    data.set(image.data, row * size);
  }
  if (!first) throw new FishyError(`The column '${name}' has no images.`);
  const type = data instanceof Uint16Array ? DataType.UINT16 : DataType.UINT8;
  return { name, type, dims: [first.channels, first.height, first.width], data, isImage: true };
}
