/**
 * The checkpoint format of ONNX Runtime 1.16 and later: one FlatBuffers file with the identifier `ODTC`
 * (onnxruntime/core/flatbuffers/schema/ort_training_checkpoint.fbs and ort.fbs; versions in checkpoint_version.h).
 * Versions 1 and 2 differ in nothing but what they may leave out.
 */
import { readFile, stat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { FishyError, messageOf } from "../errors.js";
import { DataLocation, DataType, type TensorProto } from "../onnx/proto.js";
import { bytesPerElement, dataTypeName, elementCount } from "../onnx/tensor.js";
import type { OptimizerGroup, TrainingCheckpoint } from "./checkpoint.js";
import { checkMoments } from "./checkpoint-moments.js";
import { DamagedBuffer, FlatTable } from "./flat-table.js";

export const CHECKPOINT_IDENTIFIER = "ODTC";
/** The version that ONNX Runtime 1.17 to 1.19 write, and the only one they read. */
export const CHECKPOINT_VERSION = 2;

/** Field numbers, in the order of the schema's declarations. */
export const CHECKPOINT_FIELDS = {
  Checkpoint: { version: 0, moduleState: 1, optimizerGroups: 2, propertyBag: 3 },
  ModuleState: { requiresGradParams: 0, frozenParams: 1, isNominalState: 2, hasExternalData: 3 },
  OptimizerGroup: { groupName: 0, step: 1, initialLearningRate: 2, optimizerStates: 3 },
  ParameterOptimizerState: { paramName: 0, momentums: 1 },
  PropertyBag: { ints: 0, floats: 1, strings: 2 },
  Property: { name: 0, value: 1 },
  Tensor: { name: 0, docString: 1, dims: 2, dataType: 3, rawData: 4, stringData: 5, externalDataOffset: 6 },
} as const;

/** External data lies beside the checkpoint, in a file of its name with this ending. */
export const SIDECAR = ".data";

/** Reads `path`. @throws FishyError: see `readCheckpoint`. */
export async function readFlatCheckpoint(path: string): Promise<TrainingCheckpoint> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw new FishyError(`Cannot read the checkpoint ${path}: ${messageOf(error)}.`);
  }
  const sidecar = await stat(`${path}${SIDECAR}`).catch(() => undefined);
  return decodeFlatCheckpoint(bytes, path, sidecar?.size);
}

/**
 * Decodes a checkpoint from its bytes, of which the tensors are views.
 * @param path what to call it in errors, and where its external data lies.
 * @param sidecarBytes the size of its external data; undefined when there is none.
 */
export function decodeFlatCheckpoint(bytes: Uint8Array, path: string, sidecarBytes?: number): TrainingCheckpoint {
  try {
    return new Decoder(path, sidecarBytes).decode(bytes);
  } catch (error) {
    if (!(error instanceof DamagedBuffer)) throw error;
    throw new FishyError(
      `The checkpoint ${path} (${bytes.length} bytes) cannot be read: ${error.message}. ` +
        "It is damaged or no checkpoint of ONNX Runtime's training API; copy or make it again.",
    );
  }
}

class Decoder {
  private nominal = false;
  private external = false;

  constructor(
    private readonly path: string,
    private readonly sidecarBytes: number | undefined,
  ) {}

  decode(bytes: Uint8Array): TrainingCheckpoint {
    const { Checkpoint, ModuleState, PropertyBag, Property } = CHECKPOINT_FIELDS;
    const root = FlatTable.root(bytes, CHECKPOINT_IDENTIFIER, "the checkpoint");
    const version = root.int32(Checkpoint.version, 0);
    if (version < 1 || version > CHECKPOINT_VERSION) {
      throw new DamagedBuffer(`it has the version ${version}, and fishy reads versions 1 to ${CHECKPOINT_VERSION}`);
    }
    const state = root.table(Checkpoint.moduleState, "the module state");
    if (!state) throw new DamagedBuffer("it has no module state");
    this.nominal = state.boolean(ModuleState.isNominalState);
    this.external = state.boolean(ModuleState.hasExternalData);
    const trainable = this.tensors(state, ModuleState.requiresGradParams, "trainable parameter");
    const frozen = this.tensors(state, ModuleState.frozenParams, "frozen parameter");
    for (const name of trainable.keys()) {
      if (frozen.has(name)) throw new DamagedBuffer(`'${name}' is both trainable and frozen`);
    }
    const groups = root.tables(Checkpoint.optimizerGroups, "optimizer group").map((group) => this.group(group));
    const bag = root.table(Checkpoint.propertyBag, "the property bag");
    const properties = new Map<string, bigint | number | string>();
    const readers: [number, (property: FlatTable) => bigint | number | string][] = [
      [PropertyBag.ints, (property) => property.int64(Property.value, 0n)],
      [PropertyBag.floats, (property) => property.float32(Property.value, 0)],
      [PropertyBag.strings, (property) => property.string(Property.value) ?? ""],
    ];
    for (const [field, read] of readers) {
      for (const property of bag?.tables(field, "property") ?? []) {
        const name = requiredText(property, Property.name, "name");
        if (properties.has(name)) throw new DamagedBuffer(`the property '${name}' is there twice`);
        properties.set(name, read(property));
      }
    }
    const checkpoint: TrainingCheckpoint = {
      format: "flat",
      version,
      nominal: this.nominal,
      trainable,
      frozen,
      optimizerGroups: groups,
      properties,
      directory: dirname(resolve(this.path)),
    };
    const problem = checkMoments(checkpoint);
    if (problem) throw new DamagedBuffer(problem);
    return checkpoint;
  }

  private group(table: FlatTable): OptimizerGroup {
    const { OptimizerGroup, ParameterOptimizerState } = CHECKPOINT_FIELDS;
    const step = Number(table.int64(OptimizerGroup.step, 0n));
    const learningRate = table.float32(OptimizerGroup.initialLearningRate, 0);
    if (!Number.isSafeInteger(step) || step < 0) throw new DamagedBuffer(`${table.what} is at step ${step}`);
    if (!Number.isFinite(learningRate)) throw new DamagedBuffer(`${table.what} has the learning rate ${learningRate}`);
    const moments = new Map<string, Map<string, TensorProto>>();
    for (const state of table.tables(OptimizerGroup.optimizerStates, `optimizer state of ${table.what}`)) {
      const name = requiredText(state, ParameterOptimizerState.paramName, "parameter");
      if (moments.has(name)) throw new DamagedBuffer(`the optimizer state of '${name}' is there twice`);
      // Moments are never nominal and have no names of their parameters.
      moments.set(name, this.tensors(state, ParameterOptimizerState.momentums, `moment of '${name}'`, false));
    }
    return { name: table.string(OptimizerGroup.groupName) ?? "", step, learningRate, moments };
  }

  private tensors(owner: FlatTable, field: number, what: string, nominal = this.nominal): Map<string, TensorProto> {
    const tensors = new Map<string, TensorProto>();
    for (const table of owner.tables(field, what)) {
      const tensor = this.tensor(table, nominal);
      const name = tensor.name as string;
      if (tensors.has(name)) throw new DamagedBuffer(`the ${what} '${name}' is there twice`);
      tensors.set(name, tensor);
    }
    return tensors;
  }

  private tensor(table: FlatTable, nominal: boolean): TensorProto {
    const { Tensor } = CHECKPOINT_FIELDS;
    const name = requiredText(table, Tensor.name, "name");
    const what = `'${name}'`;
    const dims = table.int64s(Tensor.dims).map((dim) => {
      const size = Number(dim);
      if (!Number.isSafeInteger(size) || size < 0) throw new DamagedBuffer(`${what} has a dimension of ${dim}`);
      return size;
    });
    const type = table.int32(Tensor.dataType, DataType.UNDEFINED);
    const tensor: TensorProto = { name, dims, dataType: type };
    if (nominal) return tensor;
    const size = bytesPerElement(type);
    if (size === undefined) throw new DamagedBuffer(`${what} has elements of ${dataTypeName(type)}`);
    const expected = elementCount(dims) * size;
    const describe = `${what} of type ${dataTypeName(type)} and shape [${dims.join(", ")}] needs ${expected} bytes`;
    if (!Number.isSafeInteger(expected)) throw new DamagedBuffer(describe);
    const offset = Number(table.int64(Tensor.externalDataOffset, -1n));
    if (offset >= 0) {
      this.checkSidecar(what, offset, expected);
      const location = `${basename(this.path)}${SIDECAR}`;
      const entries = { location, offset: String(offset), length: String(expected) };
      tensor.dataLocation = DataLocation.EXTERNAL;
      tensor.externalData = Object.entries(entries).map(([key, value]) => ({ key, value }));
      return tensor;
    }
    if (offset !== -1) throw new DamagedBuffer(`${what} lies at byte ${offset} of the external data`);
    const raw = table.bytes(Tensor.rawData);
    if ((raw?.length ?? 0) !== expected) throw new DamagedBuffer(`${describe} and holds ${raw?.length ?? 0}`);
    tensor.rawData = raw ?? new Uint8Array();
    return tensor;
  }

  private checkSidecar(what: string, offset: number, length: number): void {
    if (!this.external) throw new DamagedBuffer(`${what} lies in external data, which the checkpoint says it has not`);
    const file = `${basename(this.path)}${SIDECAR}`;
    if (this.sidecarBytes === undefined) {
      throw new DamagedBuffer(`${what} lies in ${file}, which is not beside it: both files belong together`);
    }
    if (!Number.isSafeInteger(offset + length) || offset + length > this.sidecarBytes) {
      throw new DamagedBuffer(
        `${what} lies at bytes ${offset} to ${offset + length} of ${file}, which has ${this.sidecarBytes}`,
      );
    }
  }
}

function requiredText(table: FlatTable, field: number, what: string): string {
  const text = table.string(field);
  if (!text) throw new DamagedBuffer(`${table.what} has no ${what}`);
  return text;
}
