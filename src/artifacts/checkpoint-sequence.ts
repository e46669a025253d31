/**
 * The checkpoint format of ONNX Runtime 1.15 and earlier: a folder of `.pbseq` files, each a varint count and then, per
 * message, a varint length and an ONNX TensorProto (orttraining/core/framework/protobuf_message_sequence.h).
 */
import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { FishyError, messageOf } from "../errors.js";
import { decodeTensor } from "../onnx/codec.js";
import { DataType, type TensorProto } from "../onnx/proto.js";
import { dataOf, dataTypeName, isExternal } from "../onnx/tensor.js";
import type { OptimizerGroup, TrainingCheckpoint } from "./checkpoint.js";
import { checkMoments } from "./checkpoint-moments.js";

const FILES = {
  trainable: "paramtrain_tensors.pbseq",
  frozen: "paramfrozen_tensors.pbseq",
  custom: "custom_properties.pbseq",
};
const MOMENTS = /^optim_(.+)_([^_]+)_tensors\.pbseq$/;
const PROPERTIES = /^optim_(.+)_properties\.pbseq$/;
const STEP = "builtin.step";
const LEARNING_RATE = "builtin.initial_learning_rate";

/** Reads a folder. @throws FishyError: see `readCheckpoint`. */
export async function readSequenceCheckpoint(path: string): Promise<TrainingCheckpoint> {
  const names = (await readdir(path)).sort();
  const trainable = names.includes(FILES.trainable) ? await readSequence(join(path, FILES.trainable)) : undefined;
  const frozen = names.includes(FILES.frozen) ? await readSequence(join(path, FILES.frozen)) : undefined;
  if (!trainable && !frozen) {
    throw new FishyError(
      `${path} is a folder without ${FILES.trainable}: no checkpoint of ONNX Runtime 1.15 or earlier. Newer checkpoints are single files.`,
    );
  }
  for (const name of trainable?.keys() ?? []) {
    if (frozen?.has(name))
      throw new FishyError(`The checkpoint ${path} is damaged: '${name}' is both trainable and frozen.`);
  }
  const groups = new Map<string, GroupFiles>();
  const groupOf = (name: string): GroupFiles => {
    const group: GroupFiles = groups.get(name) ?? { moments: new Map(), properties: undefined };
    groups.set(name, group);
    return group;
  };
  for (const file of names) {
    const [, momentGroup, kind] = MOMENTS.exec(file) ?? [];
    if (momentGroup !== undefined && kind !== undefined) {
      const { moments } = groupOf(momentGroup);
      for (const [name, tensor] of await readSequence(join(path, file))) {
        const known = moments.get(name);
        if (known) known.set(kind, tensor);
        else moments.set(name, new Map([[kind, tensor]]));
      }
      continue;
    }
    const group = PROPERTIES.exec(file)?.[1];
    if (group !== undefined) groupOf(group).properties = await readProperties(join(path, file));
  }
  const checkpoint: TrainingCheckpoint = {
    format: "sequence",
    nominal: false,
    trainable: trainable ?? new Map(),
    frozen: frozen ?? new Map(),
    optimizerGroups: [...groups].map(([name, { moments, properties }]): OptimizerGroup => {
      const step = Number(properties?.get(STEP) ?? 0);
      const learningRate = Number(properties?.get(LEARNING_RATE) ?? 0);
      if (!Number.isSafeInteger(step) || step < 0 || !Number.isFinite(learningRate)) {
        throw new FishyError(
          `The checkpoint ${path} is damaged: the optimizer group '${name}' is at step ${step} with the learning rate ${learningRate}.`,
        );
      }
      return { name, step, learningRate, moments };
    }),
    properties: names.includes(FILES.custom) ? await readProperties(join(path, FILES.custom)) : new Map(),
    directory: resolve(path),
  };
  const problem = checkMoments(checkpoint);
  if (problem) throw new FishyError(`The checkpoint ${path} is damaged: ${problem}. Copy or make it again.`);
  return checkpoint;
}

interface GroupFiles {
  readonly moments: Map<string, Map<string, TensorProto>>;
  properties: Properties | undefined;
}

/** The tensors of one file by name, each checked to be whole. */
async function readSequence(file: string): Promise<Map<string, TensorProto>> {
  return decodeTensorSequence(await readFile(file), file);
}

/**
 * Decodes a `.pbseq` file.
 * @throws FishyError when it is cut off, has bytes to spare, or a tensor is not whole, has no name, or is there twice.
 */
export function decodeTensorSequence(bytes: Uint8Array, file: string, check = checkTensor): Map<string, TensorProto> {
  const damaged = (what: string) =>
    new FishyError(`${file} (${bytes.length} bytes) is damaged: ${what}. Copy the checkpoint again.`);
  let position = 0;
  const varint = (what: string): number => {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = bytes[position++];
      if (byte === undefined) throw damaged(`it ends inside ${what}`);
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw damaged(`${what} is no number of 32 bits`);
  };
  const count = varint("the number of its tensors");
  const tensors = new Map<string, TensorProto>();
  for (let i = 0; i < count; i++) {
    const length = varint(`the length of tensor ${i} of ${count}`);
    if (position + length > bytes.length) throw damaged(`tensor ${i} of ${count} is cut off`);
    let tensor: TensorProto;
    try {
      tensor = decodeTensor(bytes.subarray(position, position + length));
      check(tensor);
    } catch (error) {
      throw damaged(`tensor ${i} of ${count} cannot be read (${messageOf(error)})`);
    }
    position += length;
    const name = tensor.name ?? "";
    if (!name) throw damaged(`tensor ${i} of ${count} has no name`);
    if (tensors.has(name)) throw damaged(`the tensor '${name}' is there twice`);
    tensors.set(name, tensor);
  }
  if (position !== bytes.length) throw damaged(`${bytes.length - position} bytes follow its ${count} tensors`);
  return tensors;
}

function checkTensor(tensor: TensorProto): void {
  if (isExternal(tensor)) throw new Error("its data is said to lie in another file");
  dataOf(tensor);
}

type Properties = Map<string, bigint | number | string>;

/** Properties are tensors of one element: int64, float or string. */
async function readProperties(file: string): Promise<Properties> {
  const properties: Properties = new Map();
  for (const [name, tensor] of decodeTensorSequence(await readFile(file), file, () => undefined)) {
    properties.set(name, propertyOf(tensor, `${file}: the property '${name}'`));
  }
  return properties;
}

function propertyOf(tensor: TensorProto, what: string): bigint | number | string {
  if (tensor.dataType === DataType.STRING) return new TextDecoder().decode(tensor.stringData?.[0] ?? new Uint8Array());
  if (tensor.dataType !== DataType.INT64 && tensor.dataType !== DataType.FLOAT) {
    throw new FishyError(`${what} has the type ${dataTypeName(tensor.dataType ?? 0)}. The checkpoint is damaged.`);
  }
  const [value] = dataOf(tensor);
  if (value === undefined) throw new FishyError(`${what} is empty. The checkpoint is damaged.`);
  return value;
}
