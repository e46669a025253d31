/** Fixtures of graphs/artifacts: artifacts of onnxruntime-training 1.19.2 and its own losses and gradients. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { decodeSafetensors, type NamedTensor } from "../../src/data/safetensors.js";
import { GRAPHS } from "../support/shared.js";

export const ARTIFACTS = join(GRAPHS, "artifacts");
export const FIXTURES = [
  "mlp",
  "cnn",
  "transformer",
  "lora",
  "bce",
  "l1",
  "frozen_backbone",
  "mixed",
  "lstm",
  "gru",
] as const;

export function folderOf(name: string): string {
  return join(ARTIFACTS, name);
}

export function oracleOf(name: string): ReadonlyMap<string, NamedTensor> {
  return decodeSafetensors(readFileSync(join(folderOf(name), "oracle.safetensors")), name).tensors;
}

/** The oracle's tensors below `prefix/`, by the rest of their names. */
export function group(oracle: ReadonlyMap<string, NamedTensor>, prefix: string): Map<string, NamedTensor> {
  const start = `${prefix}/`;
  return new Map(
    [...oracle].filter(([key]) => key.startsWith(start)).map(([key, value]) => [key.slice(start.length), value]),
  );
}

export function int64Scalar(value: number): ort.Tensor {
  return new ort.Tensor("int64", BigInt64Array.of(BigInt(value)), []);
}

interface OracleEntry {
  readonly name: string;
  readonly dtype: "float32" | "int64" | "int32";
  readonly shape: number[];
  readonly off: number;
  readonly len: number;
}

/** The tensors of a folder of shared/artifacts/oracle. */
export function readOracle(folder: string, file: "feeds" | "expected"): Map<string, ort.Tensor> {
  const json = JSON.parse(readFileSync(join(folder, `${file}.json`), "utf8"));
  const bytes = readFileSync(join(folder, `${file}.bin`));
  return new Map(
    ((json.feeds ?? json.outputs) as OracleEntry[]).map(({ name, dtype, shape, off, len }) => {
      const buffer = bytes.buffer.slice(bytes.byteOffset + off, bytes.byteOffset + off + len);
      const ArrayType = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array }[dtype];
      return [name, new ort.Tensor(dtype, new ArrayType(buffer) as never, shape)];
    }),
  );
}
