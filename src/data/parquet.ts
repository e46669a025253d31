/**
 * Parquet, as Hugging Face's hub keeps datasets: row groups of numbers, lists, texts, and images as the bytes of PNG or
 * JPEG files (a struct with a field `bytes`, or plain binary).
 */
import { statSync } from "node:fs";
import { type FileMetaData, parquetMetadataAsync, parquetScan, parquetSchema, type SchemaTree } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { FishyError, messageOf } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { readRange } from "./bytes.js";
import type { ChunkedDataset } from "./chunked.js";
import { type Column, type Dataset, makeDataset } from "./dataset.js";
import { columnOfImages, columnOfValues, type ImageOptions } from "./values.js";

interface ParquetFile {
  readonly path: string;
  readonly metadata: FileMetaData;
  readonly columns: readonly SchemaTree[];
}

/** Elements that hyparquet gives as numbers of a type that the file names. */
const TYPES: Readonly<Record<string, DataType>> = {
  BOOLEAN: DataType.BOOL,
  INT32: DataType.INT32,
  INT64: DataType.INT64,
  FLOAT: DataType.FLOAT,
  DOUBLE: DataType.DOUBLE,
};

/**
 * Opens Parquet files, the row groups of all of them the chunks of one dataset.
 * @param paths in order.
 * @throws FishyError when a file is damaged or the files' columns differ.
 */
export async function openParquet(
  paths: readonly string[],
  name: string,
  images: ImageOptions = {},
): Promise<ChunkedDataset> {
  const files: ParquetFile[] = [];
  for (const path of paths) files.push(await openFile(path));
  const [first, ...others] = files;
  if (!first) throw new FishyError(`${name} has no Parquet files.`);
  const signature = ({ columns }: ParquetFile) => columns.map(({ element }) => element.name).join(", ");
  const odd = others.find((file) => signature(file) !== signature(first));
  if (odd) {
    throw new FishyError(
      `${odd.path} has the columns ${signature(odd)}, but ${first.path} ${signature(first)}: they are no parts of one dataset.`,
    );
  }
  const groups = files.flatMap((file) => {
    let start = 0;
    return file.metadata.row_groups.map(({ num_rows }) => {
      const rows = Number(num_rows);
      start += rows;
      return { file, start: start - rows, rows };
    });
  });
  const chunks = groups.map(({ rows }) => rows);
  const length = chunks.reduce((sum, rows) => sum + rows, 0);
  if (length === 0) throw new FishyError(`The dataset ${name} has no examples.`);
  let channels: ReadonlyMap<string, number> | undefined;
  return {
    name,
    length,
    chunks,
    read: async (chunk) => {
      const { file, start, rows } = groups[chunk] as (typeof groups)[number];
      channels ??= await firstChannels(first, images);
      return readRows(file, start, start + rows, { images, channels });
    },
  };
}

/** The channels of the first image in each column, which are those of all, whichever chunk is read first. */
async function firstChannels(file: ParquetFile, images: ImageOptions): Promise<Map<string, number>> {
  const { columns } = await readRows(file, 0, 1, { images, channels: new Map() });
  return new Map([...columns].flatMap(([name, { isImage, dims }]) => (isImage ? [[name, dims[0] as number]] : [])));
}

interface ImageContext {
  readonly images: ImageOptions;
  readonly channels: ReadonlyMap<string, number>;
}

async function openFile(path: string): Promise<ParquetFile> {
  try {
    const metadata = await parquetMetadataAsync(asyncBuffer(path));
    return { path, metadata, columns: parquetSchema(metadata).children };
  } catch (error) {
    throw new FishyError(`${path} is not a whole Parquet file: ${messageOf(error)}.`);
  }
}

async function readRows(file: ParquetFile, rowStart: number, rowEnd: number, images: ImageContext): Promise<Dataset> {
  const { path, metadata, columns } = file;
  const read: Column[] = [];
  let scan: Awaited<ReturnType<typeof parquetScan>>;
  try {
    // Texts stay bytes until their column is known not to be one of images.
    scan = await parquetScan({ file: asyncBuffer(path), metadata, compressors, utf8: false, rowStart, rowEnd });
  } catch (error) {
    throw new FishyError(`${path} is not a whole Parquet file: ${messageOf(error)}.`);
  }
  for (const tree of columns) {
    const { name } = tree.element;
    let values: ArrayLike<unknown>;
    try {
      values = await scan.readColumn({ column: name, rowStart, rowEnd });
    } catch (error) {
      throw new FishyError(`Column '${name}' of ${path} cannot be read: ${messageOf(error)}.`);
    }
    read.push(await columnOf(tree, values, { path, firstRow: rowStart, ...images }));
  }
  return makeDataset(path, read);
}

interface Context extends ImageContext {
  readonly path: string;
  readonly firstRow: number;
}

async function columnOf(tree: SchemaTree, values: ArrayLike<unknown>, context: Context): Promise<Column> {
  const { name } = tree.element;
  const { path, firstRow, images, channels } = context;
  const bytes = Array.from(values, bytesOf);
  if (bytes[0] !== undefined && isImage(bytes[0])) {
    const encoded = bytes.map((own, i) => ({
      bytes: own ?? new Uint8Array(),
      source: `Column '${name}' of ${path}, row ${firstRow + i} (rows count from 0),`,
    }));
    return columnOfImages(name, encoded, { ...images, channels: images.channels ?? channels.get(name) });
  }
  if (bytes[0] !== undefined) {
    const utf8 = new TextDecoder("utf-8", { fatal: true });
    const texts = bytes.map((own, row) => {
      try {
        return own && utf8.decode(own);
      } catch {
        throw new FishyError(
          `Column '${name}' of ${path}, row ${firstRow + row} (rows count from 0), holds bytes that are neither text nor an image in PNG or JPEG.`,
        );
      }
    });
    return columnOfValues(name, texts, { source: path, firstRow });
  }
  return columnOfValues(name, values, { source: path, firstRow, type: elementType(tree) });
}

/** The bytes of a binary value, or of the `bytes` of an image's struct; undefined for other values. */
function bytesOf(value: unknown): Uint8Array | undefined {
  if (value instanceof Uint8Array) return value;
  if (typeof value !== "object" || value === null || !("bytes" in value)) return undefined;
  return value.bytes instanceof Uint8Array ? value.bytes : undefined;
}

function isImage(bytes: Uint8Array): boolean {
  return (bytes[0] === 0x89 && bytes[1] === 0x50) || (bytes[0] === 0xff && bytes[1] === 0xd8);
}

/** The type of a column's numbers, in lists too; undefined where the values have to tell. */
function elementType({ element, children }: SchemaTree): DataType | undefined {
  const [only, ...others] = children;
  if (only && others.length === 0) return elementType(only);
  if (element.logical_type?.type === "FLOAT16" || element.logical_type?.type === "DECIMAL") return DataType.FLOAT;
  const unsigned = /^UINT_(8|16|32|64)$/.exec(element.converted_type ?? "")?.[1];
  if (unsigned) {
    return { 8: DataType.UINT8, 16: DataType.UINT16, 32: DataType.UINT32, 64: DataType.UINT64 }[unsigned];
  }
  const signed = /^INT_(8|16)$/.exec(element.converted_type ?? "")?.[1];
  if (signed) return { 8: DataType.INT8, 16: DataType.INT16 }[signed];
  return TYPES[element.type ?? ""];
}

/** A file by parts: what is read is gone when it is used. */
function asyncBuffer(path: string) {
  const { size } = statSync(path);
  return {
    byteLength: size,
    slice: (start: number, end = size) => readRange(path, start, end).buffer as ArrayBuffer,
  };
}
