/** Reading datasets from files. */
import { readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { FishyError, messageOf } from "../errors.js";
import { readBytes } from "./bytes.js";
import { type Column, columnOf, type Dataset, makeDataset } from "./dataset.js";
import { DATASET_FORMATS, type DatasetFormat } from "./formats.js";

/**
 * Reads a dataset.
 * @param sources files, or folders of files, each `PATH` or `NAME=PATH`: the name replaces the column's own.
 *   All columns together make the dataset.
 * @throws FishyError when a file is missing, damaged, or of no known format.
 */
export function loadDataset(sources: string | readonly string[]): Dataset {
  const list = typeof sources === "string" ? [sources] : sources;
  const columns = list.flatMap((source) => {
    const named = /^([\w.-]+)=(.+)$/.exec(source);
    return named ? readNamed(named[1] as string, named[2] as string) : readPath(source);
  });
  return makeDataset(list.map((source) => source.replace(/^[\w.-]+=/, "")).join(" + "), columns);
}

function readNamed(name: string, path: string): Column[] {
  const columns = readPath(path);
  const [column] = columns;
  if (columns.length !== 1 || !column) {
    throw new FishyError(
      `${path} holds ${columns.length} columns (${columns.map((c) => c.name).join(", ")}), so that '${name}=' names none of them. Leave '${name}=' out.`,
    );
  }
  return [{ ...column, name }];
}

function readPath(path: string): Column[] {
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch {
    throw new FishyError(`There is no file or folder ${path}.`);
  }
  return isFolder ? readFolder(path) : readFile(path, formatOf(path));
}

function formatOf(path: string): DatasetFormat {
  const format = DATASET_FORMATS.find((candidate) => candidate.matches(path));
  if (!format) {
    const known = DATASET_FORMATS.map(({ name, pattern }) => `${name} (${pattern})`).join(", ");
    throw new FishyError(`${path} is in no dataset format that fishy reads: ${known}.`);
  }
  return format;
}

/** The data files of a folder; of several splits (train-…, t10k-…, test-…), the one to train on. */
function readFolder(path: string): Column[] {
  const names = readdirSync(path).sort();
  const files = names.filter((name) => DATASET_FORMATS.some((format) => format.matches(name)));
  if (files.length === 0) {
    throw new FishyError(
      `The folder ${path} holds no file in a dataset format that fishy reads (${DATASET_FORMATS.map((f) => f.pattern).join(", ")}).`,
    );
  }
  const training = files.filter((name) => basename(name).startsWith("train"));
  return (training.length > 0 ? training : files).flatMap((name) => readFile(join(path, name), formatOf(name)));
}

function readFile(path: string, format: DatasetFormat): Column[] {
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
  return [...format.decode(bytes, path)].map(([name, array]) => columnOf(name, array.type, array.dims, array.data));
}
