/** Bytes ↔ messages. What this schema does not know survives a round trip. */
import Long from "long";
import { FishyError, messageOf } from "../errors.js";
import { diagnose } from "./diagnose.js";
import type { ModelProto, TensorProto } from "./proto.js";
import { ModelType, TensorType } from "./schema.js";

/** Protobuf's own limit on one message (`onnx.checker.MAXIMUM_PROTOBUF`). */
export const MAX_PROTOBUF_BYTES = 2 ** 31 - 1;

/**
 * Decodes a model. Tensor bytes are views into `bytes`, not copies.
 * @param source what to call the input in an error: a path.
 * @throws FishyError when the bytes are empty, another format, cut off, or not an ONNX model.
 */
export function decodeModel(bytes: Uint8Array, source = "the given bytes"): ModelProto {
  if (bytes.length === 0) throw new FishyError(`${source} is empty: expected an ONNX model.`);
  let model: ModelProto;
  try {
    model = ModelType.decode(bytes) as unknown as ModelProto;
  } catch (error) {
    throw new FishyError(
      `${source} is ${diagnose(bytes).what} (${bytes.length} bytes: ${messageOf(error)}). ${REMEDY}`,
    );
  }
  const lacks = [
    !model.graph && "a graph",
    model.irVersion === undefined && "an IR version",
    model.opsetImport.length === 0 && "an opset",
  ].filter(Boolean);
  if (lacks.length > 0) {
    throw new FishyError(
      `${source} is ${diagnose(bytes).what} (${bytes.length} bytes): it lacks ${lacks.join(" and ")}. ${REMEDY}`,
    );
  }
  return model;
}

const REMEDY = "Expected a file written by torch.onnx.export or onnx.save; export or download it again.";

/**
 * Encodes a model.
 * @throws FishyError above protobuf's limit of 2 GB; `saveModel` moves weights to external data before that.
 */
export function encodeModel(model: ModelProto): Uint8Array {
  const bytes = ModelType.encode(model as object).finish();
  if (bytes.length > MAX_PROTOBUF_BYTES) {
    throw new FishyError(
      `The model encodes to ${bytes.length} bytes, over protobuf's limit of ${MAX_PROTOBUF_BYTES}. Save its weights as external data.`,
    );
  }
  return bytes;
}

/** Decodes one tensor, such as an `input_0.pb` of ONNX's backend tests. */
export function decodeTensor(bytes: Uint8Array): TensorProto {
  return TensorType.decode(bytes) as unknown as TensorProto;
}

/** A deep copy that keeps unknown fields. The bytes of tensors are shared, not copied. */
export function cloneModel(model: ModelProto): ModelProto {
  return cloneMessage(model);
}

/** A deep copy of any message; like {@link cloneModel}. */
export function cloneMessage<T extends object>(message: T): T {
  const copy = Object.create(Object.getPrototypeOf(message), Object.getOwnPropertyDescriptors(message));
  for (const [key, value] of Object.entries(message)) copy[key] = cloneValue(value);
  return copy;
}

function cloneValue(value: unknown): unknown {
  if (Array.isArray(value)) return typeof value[0] === "object" ? value.map(cloneValue) : [...value];
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || Long.isLong(value)) return value;
  return cloneMessage(value);
}

/** A shallow copy with some fields replaced. Unlike a spread (`{ ...message }`) it keeps the unknown fields. */
export function withFields<T extends object>(message: T, changes: Partial<T>): T {
  const copy = Object.create(Object.getPrototypeOf(message), Object.getOwnPropertyDescriptors(message)) as T;
  return Object.assign(copy, changes);
}
