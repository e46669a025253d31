/**
 * External data: tensors whose bytes lie in a file beside the model (https://onnx.ai/onnx/repo-docs/ExternalData.html).
 * They are read one by one, on demand, and never from outside the model's folder: a model from the internet must not
 * be able to name `../../.ssh/id_rsa` as a weight (https://onnx.ai/onnx/repo-docs/ExternalDataSecurity.html).
 */
import { type FileHandle, open, realpath } from "node:fs/promises";
import { join, sep } from "node:path";
import { FishyError, messageOf } from "../errors.js";
import type { TensorProto } from "./proto.js";
import {
  bytesPerElement,
  dataFromBytes,
  dataOf,
  dataTypeName,
  dimsOf,
  elementCount,
  isExternal,
  type TensorData,
} from "./tensor.js";

/** Where an external tensor lies. */
export interface ExternalRange {
  /** Absolute path, symbolic links resolved. */
  readonly file: string;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** The folder that a model's external data is relative to; undefined for a model that came from memory. */
export interface ExternalSource {
  readonly directory?: string | undefined;
}

/** The entries of `external_data`: location, offset, length, checksum. */
export function externalEntries(tensor: TensorProto): ReadonlyMap<string, string> {
  return new Map((tensor.externalData ?? []).map(({ key, value }) => [key ?? "", value ?? ""]));
}

/** The location as the file says it, forward slashes; undefined when the tensor lies in the model itself. */
export function externalLocation(tensor: TensorProto): string | undefined {
  return isExternal(tensor) ? (externalEntries(tensor).get("location") ?? "") : undefined;
}

/** Bytes that the shape and type of a tensor ask for; undefined for strings. Types below a byte are packed. */
function expectedBytes(tensor: TensorProto): number | undefined {
  const type = tensor.dataType ?? 0;
  const count = elementCount(dimsOf(tensor));
  const size = bytesPerElement(type);
  if (size !== undefined) return count * size;
  const name = dataTypeName(type);
  if (name === "string" || name.startsWith("type ")) return undefined;
  if (name.startsWith("float8")) return count;
  if (name === "complex64") return count * 8;
  if (name === "complex128") return count * 16;
  const bits = Number(/^u?int(\d)$/.exec(name)?.[1] ?? /^float(4)/.exec(name)?.[1]);
  return Number.isNaN(bits) ? undefined : Math.ceil((count * bits) / 8);
}

/**
 * Finds the bytes of an external tensor without reading them.
 * @throws FishyError when the location is missing, absolute, or outside the model's folder (also by a symbolic link),
 * when the file is missing or too short, or when offset and length do not fit the tensor.
 */
export async function locateExternal(source: ExternalSource, tensor: TensorProto): Promise<ExternalRange> {
  const { range, handle } = await openExternal(source, tensor);
  await handle.close();
  return range;
}

async function openExternal(
  source: ExternalSource,
  tensor: TensorProto,
): Promise<{ range: ExternalRange; handle: FileHandle }> {
  const what = `Tensor '${tensor.name ?? ""}'`;
  const entries = externalEntries(tensor);
  const location = entries.get("location");
  if (source.directory === undefined) {
    throw new FishyError(
      `${what} lies in the external file '${location ?? ""}', but the model was given as bytes. Load it by its path.`,
    );
  }
  if (!location) throw new FishyError(`${what} is external but names no file. The model is damaged; export it again.`);
  const file = await resolveInside(source.directory, location, what);
  const handle = await open(file, "r");
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new FishyError(`${what}: its external data '${location}' is not a regular file.`);
    const offset = byteCount(entries.get("offset") ?? "0", "offset", what);
    const expected = expectedBytes(tensor);
    const rest = Math.max(stat.size - offset, 0);
    const length = entries.has("length")
      ? byteCount(entries.get("length") as string, "length", what)
      : Math.min(expected ?? rest, rest);
    if (expected !== undefined && length !== expected) {
      throw new FishyError(
        `${what} of type ${dataTypeName(tensor.dataType ?? 0)} and shape [${dimsOf(tensor).join(", ")}] needs ${expected} bytes, ` +
          `but '${location}' ${entries.has("length") ? "is said to hold" : "holds"} ${length}. The file is cut off or belongs to another model.`,
      );
    }
    if (offset + length > stat.size) {
      throw new FishyError(
        `${what} lies at bytes ${offset} to ${offset + length} of '${location}', which has only ${stat.size}. ` +
          "The file is cut off; download or export it again.",
      );
    }
    return { range: { file, offset, length }, handle };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function resolveInside(directory: string, location: string, what: string): Promise<string> {
  const outside = (why: string) =>
    new FishyError(
      `${what} names the external file '${location}', ${why}. External data is read only from the model's own folder; ` +
        "if you trust the model, copy the file there.",
    );
  if (/^([/\\]|[a-zA-Z]:)/.test(location)) throw outside("an absolute path");
  if (location.split(/[/\\]/).includes("..")) throw outside("which leaves the model's folder");
  if (location.includes("\0")) throw outside("whose name is not valid");
  const folder = await realpath(directory);
  let file: string;
  try {
    file = await realpath(join(folder, location));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw outside(messageOf(error));
    throw new FishyError(
      `${what} lies in the external file '${location}', which is not in ${directory}. Put it beside the model: both files belong together.`,
    );
  }
  if (!file.startsWith(folder.endsWith(sep) ? folder : folder + sep)) {
    throw outside("a symbolic link that leaves the model's folder");
  }
  return file;
}

function byteCount(text: string, what: string, tensor: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
    throw new FishyError(`${tensor}: the ${what} of its external data is '${text}', not a number of bytes.`);
  }
  return value;
}

/** Reads pieces of this size when copying. */
const CHUNK_BYTES = 4 * 2 ** 20;

/** The raw little-endian bytes of an external tensor, in pieces of a few MiB, so that nothing large is in memory. */
export async function* externalChunks(source: ExternalSource, tensor: TensorProto): AsyncGenerator<Uint8Array> {
  const { range, handle } = await openExternal(source, tensor);
  try {
    for (let done = 0; done < range.length; ) {
      const size = Math.min(CHUNK_BYTES, range.length - done);
      yield await readExactly(handle, range.offset + done, new Uint8Array(size), range.file);
      done += size;
    }
  } finally {
    await handle.close();
  }
}

async function readExactly(handle: FileHandle, start: number, bytes: Uint8Array, file: string): Promise<Uint8Array> {
  for (let filled = 0; filled < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, start + filled);
    if (bytesRead === 0) throw new FishyError(`${file} became shorter while it was read.`);
    filled += bytesRead;
  }
  return bytes;
}

/** The raw little-endian bytes of an external tensor. */
async function readExternalBytes(source: ExternalSource, tensor: TensorProto): Promise<Uint8Array> {
  const { range, handle } = await openExternal(source, tensor);
  try {
    return await readExactly(handle, range.offset, new Uint8Array(range.length), range.file);
  } finally {
    await handle.close();
  }
}

/**
 * The contents of a tensor, wherever they lie.
 * @throws FishyError when they cannot be read: see {@link locateExternal} and {@link dataOf}.
 */
export async function readTensor(source: ExternalSource, tensor: TensorProto): Promise<TensorData> {
  if (!isExternal(tensor)) return dataOf(tensor);
  const bytes = await readExternalBytes(source, tensor);
  return dataFromBytes(tensor.dataType ?? 0, bytes, `tensor '${tensor.name ?? ""}'`);
}
