/** Writing checkpoints in the format that ONNX Runtime 1.17 to 1.19 read: FlatBuffers, `ODTC`, version 2. */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { Builder, type Offset } from "flatbuffers";
import { FishyError, messageOf } from "../errors.js";
import { type ExternalSource, readTensor } from "../onnx/external.js";
import { DataType, type TensorProto } from "../onnx/proto.js";
import { dimsOf, type TensorData } from "../onnx/tensor.js";
import type { TrainingCheckpoint } from "./checkpoint.js";
import { CHECKPOINT_FIELDS, CHECKPOINT_IDENTIFIER, CHECKPOINT_VERSION, SIDECAR } from "./checkpoint-flat.js";
import { checkMoments } from "./checkpoint-moments.js";

/** What a checkpoint is written from; external tensors are read from `directory`. */
export type CheckpointContents = Pick<TrainingCheckpoint, "trainable" | "frozen" | "optimizerGroups" | "properties"> &
  ExternalSource;

export interface CheckpointWriteOptions {
  /** Above this, values go into the sidecar. Default ONNX Runtime's own, 1.8 GB. */
  readonly maxBytes?: number;
}

const DEFAULT_MAX_BYTES = 1.8e9;
/** Smaller tensors stay in the file, as ONNX Runtime writes them. */
const MIN_EXTERNAL_BYTES = 64;

/**
 * Writes a checkpoint to `path`, and beside it `<path>.data` when the values are too many for one file. Both appear
 * whole or not at all.
 * @throws FishyError when the optimizer state does not belong to the parameters, or a file cannot be read or written.
 */
export async function writeCheckpoint(
  path: string,
  contents: CheckpointContents,
  options: CheckpointWriteOptions = {},
): Promise<void> {
  const problem = checkMoments({ ...contents, nominal: false });
  if (problem) throw new FishyError(`The checkpoint ${path} is not written: ${problem}.`);
  const folder = dirname(resolve(path));
  const temporary = (name: string) => join(folder, `.${name}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`);
  const file = temporary(basename(path));
  const sidecar = temporary(`${basename(path)}${SIDECAR}`);
  try {
    const isLarge = totalBytes(contents) > (options.maxBytes ?? DEFAULT_MAX_BYTES);
    const data = isLarge ? await open(sidecar, "wx") : undefined;
    let bytes: Uint8Array;
    try {
      bytes = await new Encoder(contents, data).encode();
      await data?.sync();
    } finally {
      await data?.close();
    }
    const handle = await open(file, "wx");
    try {
      await writeAll(handle, bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    // Data first: a checkpoint is never there without its values.
    if (isLarge) await rename(sidecar, `${path}${SIDECAR}`);
    await rename(file, path);
    if (!isLarge) await rm(`${path}${SIDECAR}`, { force: true });
  } catch (error) {
    await Promise.all([rm(file, { force: true }), rm(sidecar, { force: true })]);
    if (error instanceof FishyError) throw error;
    throw new FishyError(`The checkpoint ${path} cannot be written: ${messageOf(error)}.`);
  }
}

function totalBytes({ trainable, frozen, optimizerGroups }: CheckpointContents): number {
  const elements = (tensors: Iterable<TensorProto>) =>
    [...tensors].reduce((sum, tensor) => sum + dimsOf(tensor).reduce((product, dim) => product * dim, 1), 0);
  const moments = optimizerGroups.flatMap((group) => [...group.moments.values()].flatMap((each) => [...each.values()]));
  // Eight bytes at most; float32 is what trains.
  return 4 * (elements(trainable.values()) + elements(frozen.values()) + elements(moments));
}

class Encoder {
  private readonly builder = new Builder(1024);
  private position = 0;

  constructor(
    private readonly contents: CheckpointContents,
    /** Takes what is large enough; everything stays in the file without it. */
    private readonly data: FileHandle | undefined,
  ) {}

  async encode(): Promise<Uint8Array> {
    const { builder, contents } = this;
    const { Checkpoint, ModuleState } = CHECKPOINT_FIELDS;
    const trainable = await this.tensors(contents.trainable);
    const frozen = await this.tensors(contents.frozen);
    builder.startObject(4);
    builder.addFieldOffset(ModuleState.requiresGradParams, trainable, 0);
    builder.addFieldOffset(ModuleState.frozenParams, frozen, 0);
    builder.addFieldInt8(ModuleState.hasExternalData, this.data ? 1 : 0, 0);
    const state = builder.endObject();
    const groups = await this.groups();
    const bag = this.properties();
    builder.startObject(4);
    builder.addFieldInt32(Checkpoint.version, CHECKPOINT_VERSION, 0);
    builder.addFieldOffset(Checkpoint.moduleState, state, 0);
    if (contents.optimizerGroups.length > 0) builder.addFieldOffset(Checkpoint.optimizerGroups, groups, 0);
    if (contents.properties.size > 0) builder.addFieldOffset(Checkpoint.propertyBag, bag, 0);
    builder.finish(builder.endObject(), CHECKPOINT_IDENTIFIER);
    return builder.asUint8Array();
  }

  /** In the order of their names, as ONNX Runtime writes them. */
  private async tensors(tensors: ReadonlyMap<string, TensorProto>): Promise<Offset> {
    const offsets: Offset[] = [];
    for (const [name, tensor] of [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
      offsets.push(await this.tensor(name, tensor));
    }
    return this.vector(offsets);
  }

  private async tensor(name: string, tensor: TensorProto): Promise<Offset> {
    const { builder } = this;
    const { Tensor } = CHECKPOINT_FIELDS;
    const values = await readTensor(this.contents, tensor);
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const dims = dimsOf(tensor);
    const isExternal = this.data !== undefined && bytes.length >= MIN_EXTERNAL_BYTES;
    const offset = isExternal ? await this.store(bytes, values) : undefined;
    const raw = isExternal ? 0 : builder.createByteVector(bytes);
    builder.startVector(8, dims.length, 8);
    for (const dim of dims.toReversed()) builder.addInt64(BigInt(dim));
    const shape = builder.endVector();
    const text = builder.createString(name);
    builder.startObject(7);
    builder.addFieldOffset(Tensor.name, text, 0);
    builder.addFieldOffset(Tensor.dims, shape, 0);
    builder.addFieldInt32(Tensor.dataType, tensor.dataType ?? DataType.UNDEFINED, 0);
    if (offset === undefined) builder.addFieldOffset(Tensor.rawData, raw, 0);
    else builder.addFieldInt64(Tensor.externalDataOffset, BigInt(offset), -1n);
    return builder.endObject();
  }

  /** Appends to the sidecar, at a multiple of 4, of 8 for types of 8 bytes. */
  private async store(bytes: Uint8Array, { BYTES_PER_ELEMENT: size }: TensorData): Promise<number> {
    const data = this.data as FileHandle;
    const alignment = Math.max(4, size);
    const offset = Math.ceil(this.position / alignment) * alignment;
    if (offset > this.position) await writeAll(data, new Uint8Array(offset - this.position));
    await writeAll(data, bytes);
    this.position = offset + bytes.length;
    return offset;
  }

  private async groups(): Promise<Offset> {
    const { builder } = this;
    const { OptimizerGroup, ParameterOptimizerState } = CHECKPOINT_FIELDS;
    const groups: Offset[] = [];
    for (const group of this.contents.optimizerGroups) {
      const states: Offset[] = [];
      for (const [parameter, moments] of [...group.moments].sort(([a], [b]) => (a < b ? -1 : 1))) {
        const tensors = await this.tensors(moments);
        const name = builder.createString(parameter);
        builder.startObject(2);
        builder.addFieldOffset(ParameterOptimizerState.paramName, name, 0);
        builder.addFieldOffset(ParameterOptimizerState.momentums, tensors, 0);
        states.push(builder.endObject());
      }
      const list = this.vector(states);
      const name = builder.createString(group.name);
      builder.startObject(4);
      builder.addFieldOffset(OptimizerGroup.groupName, name, 0);
      builder.addFieldInt64(OptimizerGroup.step, BigInt(group.step), 0n);
      builder.addFieldFloat32(OptimizerGroup.initialLearningRate, group.learningRate, 0);
      builder.addFieldOffset(OptimizerGroup.optimizerStates, list, 0);
      groups.push(builder.endObject());
    }
    return this.vector(groups);
  }

  private properties(): Offset {
    const { builder } = this;
    const { PropertyBag, Property } = CHECKPOINT_FIELDS;
    const lists = { bigint: [] as Offset[], number: [] as Offset[], string: [] as Offset[] };
    for (const [name, value] of this.contents.properties) {
      const text = builder.createString(name);
      const content = typeof value === "string" ? builder.createString(value) : 0;
      builder.startObject(2);
      builder.addFieldOffset(Property.name, text, 0);
      if (typeof value === "bigint") builder.addFieldInt64(Property.value, value, 0n);
      else if (typeof value === "number") builder.addFieldFloat32(Property.value, value, 0);
      else builder.addFieldOffset(Property.value, content, 0);
      lists[typeof value as keyof typeof lists].push(builder.endObject());
    }
    const [ints, floats, strings] = [lists.bigint, lists.number, lists.string].map((list) => this.vector(list));
    builder.startObject(3);
    builder.addFieldOffset(PropertyBag.ints, ints as Offset, 0);
    builder.addFieldOffset(PropertyBag.floats, floats as Offset, 0);
    builder.addFieldOffset(PropertyBag.strings, strings as Offset, 0);
    return builder.endObject();
  }

  private vector(offsets: readonly Offset[]): Offset {
    this.builder.startVector(4, offsets.length, 4);
    for (const offset of offsets.toReversed()) this.builder.addOffset(offset);
    return this.builder.endVector();
  }
}

const WRITE_BYTES = 2 ** 26;

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(WRITE_BYTES, bytes.length - done));
    done += bytesWritten;
  }
}
