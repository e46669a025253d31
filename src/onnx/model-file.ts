/** Model files: loading with clear errors, saving atomically with external data where a file would grow too large. */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { FishyError, messageOf } from "../errors.js";
import { checkModel } from "./check.js";
import { decodeModel, encodeModel, MAX_PROTOBUF_BYTES } from "./codec.js";
import { type ExternalSource, externalLocation } from "./external.js";
import { ExternalDataWriter } from "./external-writer.js";
import { mapTensors, type TensorRole, tensorsOf } from "./map-tensors.js";
import type { ModelProto, TensorProto } from "./proto.js";
import { bytesPerElement, dimsOf, elementCount, isExternal, toNumber } from "./tensor.js";
import { defaultOpset, NEWEST_IR, NEWEST_OPSET } from "./versions.js";

/** A model and where it came from: its external data is relative to `directory`. */
export interface OnnxModel {
  readonly proto: ModelProto;
  /** The file as it was given. */
  readonly path: string;
  /** The folder of the file, absolute. */
  readonly directory: string;
}

/**
 * Loads an ONNX model. External data is not read: see `readTensor`.
 * @throws FishyError when the path is missing, a folder, empty, not an ONNX model, cut off, or of a version that fishy
 * does not know.
 */
export async function loadModel(path: string): Promise<OnnxModel> {
  let size: number;
  try {
    const info = await stat(path);
    if (info.isDirectory()) throw new FishyError(`${path} is a folder: expected an ONNX model file.`);
    size = info.size;
  } catch (error) {
    throw fileError("read", path, error);
  }
  if (size > MAX_PROTOBUF_BYTES) {
    throw new FishyError(
      `${path} has ${size} bytes, over protobuf's limit of ${MAX_PROTOBUF_BYTES} for one file. ` +
        "Export it with its weights as external data (torch.onnx.export(…, external_data=True), onnx.save(…, save_as_external_data=True)).",
    );
  }
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw fileError("read", path, error);
  }
  const proto = decodeModel(bytes, path);
  checkVersions(proto, path);
  return { proto, path, directory: dirname(resolve(path)) };
}

/** @throws FishyError when the IR or the default opset is newer than fishy knows, or no default opset is imported. */
function checkVersions(proto: ModelProto, source: string): void {
  const ir = toNumber(proto.irVersion);
  if (ir > NEWEST_IR) {
    throw new FishyError(
      `${source} has the IR version ${ir}; fishy and its ONNX Runtime know versions up to ${NEWEST_IR}. Export it with an older opset, or update fishy.`,
    );
  }
  const opset = defaultOpset(proto.opsetImport);
  if (opset === undefined) {
    const domains = proto.opsetImport.map(({ domain }) => `'${domain}'`).join(", ");
    throw new FishyError(
      `${source} imports no opset of the default domain (ai.onnx), only ${domains}. A model of custom operators alone cannot be trained.`,
    );
  }
  if (opset > NEWEST_OPSET) {
    throw new FishyError(
      `${source} uses opset ${opset}; fishy and its ONNX Runtime know opsets up to ${NEWEST_OPSET}. ` +
        "Export it with an older one (torch.onnx.export(…, opset_version=18)), or update fishy.",
    );
  }
}

/** How a model is written. */
export interface SaveOptions {
  /**
   * true: the weights go to external data, beside the model; false: they never do. By default they do when the file
   * would pass `maxBytes`.
   */
  readonly externalData?: boolean;
  /** Tensors of fewer bytes stay in the model file. Default 1024, as in `onnx.save`. */
  readonly externalThreshold?: number;
  /** The largest model file to write. Default protobuf's limit, 2^31 − 1 bytes. */
  readonly maxBytes?: number;
}

/** Where a model was written. */
export interface SavedModel {
  readonly path: string;
  /** The external data that was written, `<path>.data`; absent when none was. */
  readonly dataPath?: string;
}

/**
 * Saves a model. The file appears whole or not at all: it is written beside its place and then renamed.
 *
 * Weights that lie in external files are not loaded. Saved to the folder they lie in, the model keeps pointing to
 * them; saved elsewhere, they are copied, piece by piece, into `<path>.data`.
 *
 * @param model `directory` is where the external data of `proto` lies; not needed when it has none.
 * @throws FishyError when the model is not valid, its external data cannot be read, or the file cannot be written.
 */
export async function saveModel(
  model: { readonly proto: ModelProto } & ExternalSource,
  path: string,
  options: SaveOptions = {},
): Promise<SavedModel> {
  const { proto, directory } = model;
  const { externalThreshold = 1024, maxBytes = MAX_PROTOBUF_BYTES } = options;
  checkModel(proto);
  const target = await targetFolder(path);
  const sameFolder = directory !== undefined && (await realpath(directory).catch(() => directory)) === target;
  const moveWeights = options.externalData ?? inlineBytes(proto) > maxBytes;

  const moves = (tensor: TensorProto, role: TensorRole): boolean => {
    if (isExternal(tensor)) return !sameFolder;
    return moveWeights && role === "initializer" && movableBytes(tensor) >= externalThreshold;
  };
  const tensors = tensorsOf(proto);
  const moved = tensors.filter(({ tensor, role }) => moves(tensor, role)).map(({ tensor }) => tensor);
  const temporary = (name: string) => join(target, `.${name}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`);
  const name = basename(path);
  const modelFile = temporary(name);
  const dataName = dataFileName(
    name,
    tensors.flatMap(({ tensor }) => (sameFolder ? (externalLocation(tensor) ?? []) : [])),
  );
  const dataFile = temporary(dataName);
  try {
    let written = proto;
    if (moved.length > 0) {
      const replaced = await writeData(dataFile, dataName, model, moved);
      written = mapTensors(proto, (tensor) => replaced.get(tensor) ?? tensor);
    }
    await writeFile(modelFile, async (handle) => writeAll(handle, encodeModel(written)));
    // Data first: a model is never there without its weights.
    if (moved.length > 0) await rename(dataFile, join(target, dataName));
    await rename(modelFile, join(target, name));
  } catch (error) {
    await Promise.all([rm(modelFile, { force: true }), rm(dataFile, { force: true })]);
    throw error instanceof FishyError ? error : fileError("write", path, error);
  }
  return moved.length > 0 ? { path, dataPath: join(dirname(path), dataName) } : { path };
}

async function targetFolder(path: string): Promise<string> {
  const existing = await stat(path).catch(() => undefined);
  if (existing?.isDirectory()) throw new FishyError(`${path} is a folder: give the name of a file in it.`);
  const folder = dirname(resolve(path));
  try {
    return await realpath(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw fileError("write", path, error);
    throw new FishyError(`Cannot write ${path}: the folder ${dirname(path)} does not exist. Create it first.`);
  }
}

/** `<name>.data`, unless the model that is saved points to a file of that name itself. */
function dataFileName(name: string, taken: readonly string[]): string {
  let candidate = `${name}.data`;
  for (let count = 1; taken.includes(candidate); count++) candidate = `${name}.${count}.data`;
  return candidate;
}

/** Bytes that a tensor in the model file would have as external data; 0 when it cannot be external. */
function movableBytes(tensor: TensorProto): number {
  if (tensor.rawData?.length) return tensor.rawData.length;
  return (bytesPerElement(tensor.dataType ?? 0) ?? 0) * elementCount(dimsOf(tensor));
}

/** About the size of the model file: its weights, without the graph around them. */
function inlineBytes(proto: ModelProto): number {
  return tensorsOf(proto).reduce((sum, { tensor }) => sum + (isExternal(tensor) ? 0 : movableBytes(tensor)), 0);
}

async function writeData(
  file: string,
  location: string,
  source: ExternalSource,
  tensors: readonly TensorProto[],
): Promise<Map<TensorProto, TensorProto>> {
  const replaced = new Map<TensorProto, TensorProto>();
  await writeFile(file, async (handle) => {
    const writer = new ExternalDataWriter((bytes) => writeAll(handle, bytes), location, source);
    for (const tensor of tensors) replaced.set(tensor, await writer.add(tensor));
  });
  return replaced;
}

async function writeFile(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const handle = await open(path, "wx");
  try {
    await write(handle);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** One write call takes at most 2 GiB. */
const WRITE_BYTES = 2 ** 26;

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(WRITE_BYTES, bytes.length - done));
    done += bytesWritten;
  }
}

const REASONS: Record<string, string> = {
  ENOENT: "there is no such file",
  ENOTDIR: "a part of the path is not a folder",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOSPC: "the disk is full",
  EROFS: "the disk is read-only",
};

function fileError(verb: "read" | "write", path: string, error: unknown): FishyError {
  if (error instanceof FishyError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? "";
  return new FishyError(`Cannot ${verb} ${path}: ${REASONS[code] ?? messageOf(error)}.`);
}
