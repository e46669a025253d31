/** The file formats of datasets that are read into memory. A new format is one file and one entry here. */
import { basename } from "node:path";
import type { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import { decodeCifar, isCifarName } from "./cifar.js";
import { decodeCsv } from "./csv.js";
import { type Column, columnOf } from "./dataset.js";
import { decodeIdx } from "./idx.js";
import { decodeJsonl } from "./jsonl.js";
import { decodeNpy } from "./npy.js";
import { decodeNpz } from "./npz.js";
import { decodeSafetensors } from "./safetensors.js";
import { decodeText, decodeTokenFile, windowsOf } from "./tokens.js";

/** One array as a file holds it. */
export interface ArrayFile {
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly data: TensorData;
}

export interface FormatOptions {
  /** Tokens in a sequence, for language models. */
  readonly sequenceLength?: number | undefined;
  /** Whether the file is the whole dataset; a flat array beside others is a column, not a stream of tokens. */
  readonly isAlone?: boolean | undefined;
}

export interface DatasetFormat {
  readonly name: string;
  /** For messages: `*.npy`. */
  readonly pattern: string;
  /** Whether a file holds whole examples, so that several files follow one another; otherwise they hold columns of the same. */
  readonly isTable?: boolean;
  matches(path: string, options: FormatOptions): boolean;
  /** The columns of one file (already decompressed) under their default names. */
  decode(bytes: Uint8Array, path: string, options: FormatOptions): Column[];
}

/** The file name without `.gz` and its extension. */
function stem(path: string): string {
  return basename(path)
    .replace(/\.gz$/, "")
    .replace(/\.[^.]+$/, "");
}

function columns(arrays: Iterable<readonly [string, ArrayFile]>): Column[] {
  return [...arrays].map(([name, { type, dims, data }]) => columnOf(name, type, dims, data));
}

/** MNIST's file names carry the kind and the rank: `t10k-images-idx3-ubyte`. */
const MNIST_NAME = /(?:^|-)(images|labels)[-.]idx\d/;

export const DATASET_FORMATS: readonly DatasetFormat[] = [
  {
    name: "IDX",
    pattern: "*-idx3-ubyte[.gz], *.idx[.gz]",
    matches: (path) => /(?:[-.]idx\d(?:-ubyte)?|\.idx)(?:\.gz)?$/.test(path),
    decode: (bytes, path) => columns([[MNIST_NAME.exec(basename(path))?.[1] ?? stem(path), decodeIdx(bytes, path)]]),
  },
  {
    name: "NumPy",
    pattern: "*.npy",
    matches: (path) => path.endsWith(".npy"),
    decode(bytes, path, { sequenceLength, isAlone }) {
      const array = decodeNpy(bytes, path);
      if (sequenceLength === undefined || !isAlone || array.dims.length !== 1) return columns([[stem(path), array]]);
      return [...windowsOf(array.data, array.type, sequenceLength, path).columns.values()];
    },
  },
  {
    name: "NumPy archive",
    pattern: "*.npz",
    matches: (path) => path.endsWith(".npz"),
    decode: (bytes, path) => columns(decodeNpz(bytes, path)),
  },
  {
    name: "safetensors",
    pattern: "*.safetensors",
    matches: (path) => path.endsWith(".safetensors"),
    decode: (bytes, path) => columns(decodeSafetensors(bytes, path).tensors),
  },
  {
    name: "token file",
    pattern: "*.bin with --sequence-length",
    isTable: true,
    matches: (path, { sequenceLength }) => path.endsWith(".bin") && sequenceLength !== undefined,
    decode: (bytes, path, { sequenceLength }) => [
      ...decodeTokenFile(bytes, sequenceLength as number, path).columns.values(),
    ],
  },
  {
    name: "CIFAR",
    pattern: "data_batch_*.bin, train.bin",
    isTable: true,
    matches: (path) => isCifarName(basename(path)),
    decode: (bytes, path) => [...decodeCifar(bytes, basename(path), path).columns.values()],
  },
  {
    name: "CSV",
    pattern: "*.csv[.gz], *.tsv[.gz]",
    isTable: true,
    matches: (path) => /\.[ct]sv(\.gz)?$/.test(path),
    decode: (bytes, path) => [...decodeCsv(bytes, path).columns.values()],
  },
  {
    name: "JSON lines",
    pattern: "*.jsonl[.gz]",
    isTable: true,
    matches: (path) => /\.(jsonl|ndjson)(\.gz)?$/.test(path),
    decode: (bytes, path, { sequenceLength }) => [...decodeJsonl(bytes, sequenceLength, path).columns.values()],
  },
  {
    name: "text",
    pattern: "*.txt[.gz] with --sequence-length",
    isTable: true,
    matches: (path, { sequenceLength }) => /\.txt(\.gz)?$/.test(path) && sequenceLength !== undefined,
    decode: (bytes, path, { sequenceLength }) => [
      ...decodeText(bytes, sequenceLength as number, path).columns.values(),
    ],
  },
];
