/** Opening datasets from files: into memory when they fit, a part at a time otherwise. */
import { readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { FishyError, messageOf } from "../errors.js";
import { openArrays } from "./array-chunks.js";
import { readBytes } from "./bytes.js";
import { bytesOf, type ChunkedDataset, isChunked, joinRows, toMemory } from "./chunked.js";
import { type Column, type Dataset, makeDataset } from "./dataset.js";
import { DATASET_FORMATS, type DatasetFormat, type FormatOptions } from "./formats.js";
import { isImageFolder, openImageFolder } from "./image-folder.js";
import { openParquet } from "./parquet.js";

/** How a dataset is read. */
export interface OpenOptions extends FormatOptions {
  /** Height and width that images are resized and cropped to. */
  readonly imageSize?: readonly [number, number] | undefined;
  /** Read a part at a time (`true`), or everything into memory (`false`); by default what is larger than 512 MiB. */
  readonly stream?: boolean | undefined;
}

/** Decoded bytes above which a dataset is read a part at a time. */
const LARGEST_IN_MEMORY = 2 ** 29;

/**
 * Opens a dataset.
 * @param sources files, or folders of files, each `PATH` or `NAME=PATH`: the name replaces the column's own.
 *   All columns together make the dataset; files of whole examples (Parquet, CSV, JSON lines, CIFAR) follow one another.
 * @throws FishyError when a file is missing, damaged, or of no known format.
 */
export async function openDataset(
  sources: string | readonly string[],
  options: OpenOptions = {},
): Promise<Dataset | ChunkedDataset> {
  const list = typeof sources === "string" ? [sources] : sources;
  const chunked = await openChunked(list, options);
  if (!chunked) return readTogether(list, options);
  if (options.stream === true) return chunked;
  if (options.stream === undefined) {
    const first = await chunked.read(0);
    if ((bytesOf(first) / first.length) * chunked.length > LARGEST_IN_MEMORY) return chunked;
  }
  return toMemory(chunked);
}

/** The same, always into memory. */
export async function loadDataset(sources: string | readonly string[], options: OpenOptions = {}): Promise<Dataset> {
  const dataset = await openDataset(sources, { ...options, stream: false });
  return isChunked(dataset) ? toMemory(dataset) : dataset;
}

/** A dataset of Parquet files, of a folder of images, or of large arrays; undefined for others. */
async function openChunked(
  list: readonly string[],
  { imageSize, stream, sequenceLength }: OpenOptions,
): Promise<ChunkedDataset | undefined> {
  const images = { size: imageSize };
  const [only, ...others] = list;
  if (only !== undefined && others.length === 0 && isFolder(only) && isImageFolder(only)) {
    return openImageFolder(only, images);
  }
  const files = list.flatMap((path) => {
    if (!isFolder(path)) return [path];
    const shards = readdirSync(path).filter((name) => name.endsWith(".parquet"));
    return shards.length > 0 ? trainingFiles(shards.sort()).map((name) => join(path, name)) : [path];
  });
  const parquet = files.filter((file) => file.endsWith(".parquet"));
  // Arrays are read at a stroke when they fit; there is nothing to decode.
  if (parquet.length === 0) {
    const isTokens = sequenceLength !== undefined && files.length === 1;
    return stream === false || isTokens ? undefined : openArrays(files, stream ? 0 : LARGEST_IN_MEMORY);
  }
  if (parquet.length < files.length) {
    const other = files.find((file) => !file.endsWith(".parquet"));
    throw new FishyError(
      `${other} cannot be joined to Parquet files, which hold whole examples. Put its columns into them.`,
    );
  }
  const named = parquet.find((file) => /^[\w.-]+=/.test(file));
  if (named !== undefined)
    throw new FishyError(`'${named}': Parquet files name their columns themselves. Leave the name out.`);
  return openParquet(parquet, list.join(" + "), images);
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function readTogether(list: readonly string[], options: OpenOptions): Dataset {
  const all = { ...options, isAlone: list.length === 1 };
  const parts = list.map((source) => {
    const named = /^([\w.-]+)=(.+)$/.exec(source);
    return named ? readNamed(named[1] as string, named[2] as string, options) : readPath(source, all);
  });
  const name = list.map((source) => source.replace(/^[\w.-]+=/, "")).join(" + ");
  const tables = parts.filter(({ isTable }) => isTable);
  // Tables follow one another; with files of columns beside it, a table's columns are columns like theirs.
  if (tables.length > 1 && tables.length === parts.length) {
    return joinRows(
      name,
      tables.map(({ columns, path }) => makeDataset(path, columns)),
    );
  }
  return makeDataset(
    name,
    parts.flatMap(({ columns }) => columns),
  );
}

interface ReadPart {
  readonly path: string;
  readonly columns: Column[];
  readonly isTable: boolean;
}

function readNamed(name: string, path: string, options: OpenOptions): ReadPart {
  const { columns } = readPath(path, options);
  const [column] = columns;
  if (columns.length !== 1 || !column) {
    throw new FishyError(
      `${path} holds ${columns.length} columns (${columns.map((c) => c.name).join(", ")}), so that '${name}=' names none of them. Leave '${name}=' out.`,
    );
  }
  return { path, columns: [{ ...column, name }], isTable: false };
}

function readPath(path: string, options: OpenOptions): ReadPart {
  let isDirectory: boolean;
  try {
    isDirectory = statSync(path).isDirectory();
  } catch {
    throw new FishyError(`There is no file or folder ${path}.`);
  }
  return isDirectory ? readFolder(path, options) : readFile(path, formatOf(path, options), options);
}

function formatOf(path: string, options: OpenOptions): DatasetFormat {
  const format = DATASET_FORMATS.find((candidate) => candidate.matches(path, options));
  if (!format) {
    const known = DATASET_FORMATS.map(({ name, pattern }) => `${name} (${pattern})`).join(", ");
    throw new FishyError(
      `${path} is in no dataset format that fishy reads: ${known}, Parquet (*.parquet), folders of images by class.`,
    );
  }
  return format;
}

/** The data files of a folder; of several splits (train-…, t10k-…, test-…), the one to train on. */
function readFolder(path: string, options: OpenOptions): ReadPart {
  const names = readdirSync(path).sort();
  const files = names.filter((name) => DATASET_FORMATS.some((format) => format.matches(name, options)));
  if (files.length === 0) {
    throw new FishyError(
      `The folder ${path} holds no file in a dataset format that fishy reads (${DATASET_FORMATS.map((f) => f.pattern).join(", ")}, *.parquet), and no folders of images.`,
    );
  }
  const chosen = trainingFiles(files);
  const parts = chosen.map((name) => {
    const file = join(path, name);
    return readFile(file, formatOf(file, options), { ...options, isAlone: chosen.length === 1 });
  });
  if (parts.every(({ isTable }) => isTable)) {
    const joined = joinRows(
      path,
      parts.map((part) => makeDataset(part.path, part.columns)),
    );
    return { path, columns: [...joined.columns.values()], isTable: true };
  }
  return { path, columns: parts.flatMap(({ columns }) => columns), isTable: false };
}

/** Of the files of several splits, those to train on; all when none is named so. */
function trainingFiles(names: readonly string[]): readonly string[] {
  const training = names.filter((name) => /^(train|data_batch)/.test(basename(name)));
  return training.length > 0 ? training : names;
}

function readFile(path: string, format: DatasetFormat, options: OpenOptions): ReadPart {
  let bytes: Uint8Array;
  try {
    bytes = readBytes(path);
  } catch (error) {
    throw new FishyError(`${path} cannot be read: ${messageOf(error)}.`);
  }
  if (path.endsWith(".gz")) {
    try {
      bytes = gunzipSync(bytes);
    } catch (error) {
      throw new FishyError(`${path} is not a whole gzip file: ${messageOf(error)}.`);
    }
  }
  return { path, columns: format.decode(bytes, path, options), isTable: format.isTable ?? false };
}
