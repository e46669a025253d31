/** The file formats of datasets. A new format is one file and one entry here. */
import { basename } from "node:path";
import type { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import { decodeIdx } from "./idx.js";
import { decodeNpy } from "./npy.js";
import { decodeNpz } from "./npz.js";
import { decodeSafetensors } from "./safetensors.js";

/** One array as a file holds it. */
export interface ArrayFile {
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly data: TensorData;
}

export interface DatasetFormat {
  readonly name: string;
  /** For messages: `*.npy`. */
  readonly pattern: string;
  matches(path: string): boolean;
  /** The arrays of one file (already decompressed) by their default column names. */
  decode(bytes: Uint8Array, path: string): ReadonlyMap<string, ArrayFile>;
}

/** The file name without `.gz` and its extension. */
function stem(path: string): string {
  return basename(path)
    .replace(/\.gz$/, "")
    .replace(/\.[^.]+$/, "");
}

/** MNIST's file names carry the kind and the rank: `t10k-images-idx3-ubyte`. */
const MNIST_NAME = /(?:^|-)(images|labels)[-.]idx\d/;

export const DATASET_FORMATS: readonly DatasetFormat[] = [
  {
    name: "IDX",
    pattern: "*-idx3-ubyte[.gz], *.idx[.gz]",
    matches: (path) => /(?:[-.]idx\d(?:-ubyte)?|\.idx)(?:\.gz)?$/.test(path),
    decode: (bytes, path) => new Map([[MNIST_NAME.exec(basename(path))?.[1] ?? stem(path), decodeIdx(bytes, path)]]),
  },
  {
    name: "NumPy",
    pattern: "*.npy",
    matches: (path) => path.endsWith(".npy"),
    decode: (bytes, path) => new Map([[stem(path), decodeNpy(bytes, path)]]),
  },
  {
    name: "NumPy archive",
    pattern: "*.npz",
    matches: (path) => path.endsWith(".npz"),
    decode: decodeNpz,
  },
  {
    name: "safetensors",
    pattern: "*.safetensors",
    matches: (path) => path.endsWith(".safetensors"),
    decode: (bytes, path) => decodeSafetensors(bytes, path).tensors,
  },
];
