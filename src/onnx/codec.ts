/** Bytes ↔ messages. What this schema does not know survives a round trip. */
import { FishyError, messageOf } from "../errors.js";
import type { ModelProto, TensorProto } from "./proto.js";
import { ModelType, TensorType } from "./schema.js";

/** Protobuf's own limit on one message (`onnx.checker.MAXIMUM_PROTOBUF`). */
export const MAX_PROTOBUF_BYTES = 2 ** 31 - 1;

/**
 * Decodes a model. Tensor bytes are views into `bytes`, not copies.
 * @param source what to call the input in an error: a path.
 * @throws FishyError when the bytes are not an ONNX model, or are cut off.
 */
export function decodeModel(bytes: Uint8Array, source = "the given bytes"): ModelProto {
  if (bytes.length === 0) throw new FishyError(`${source} is empty: expected an ONNX model.`);
  let model: ModelProto;
  try {
    model = ModelType.decode(bytes) as unknown as ModelProto;
  } catch (error) {
    throw new FishyError(
      `${source} is not an ONNX model, or is cut off (${bytes.length} bytes): ${messageOf(error)}. Export or download the file again.`,
    );
  }
  if (!model.graph || model.irVersion === undefined || model.opsetImport.length === 0) {
    const lacks = [
      !model.graph && "a graph",
      model.irVersion === undefined && "an IR version",
      model.opsetImport.length === 0 && "an opset",
    ].filter(Boolean);
    throw new FishyError(
      `${source} is not an ONNX model, or is cut off: it lacks ${lacks.join(" and ")}. Expected a file written by torch.onnx.export or onnx.save.`,
    );
  }
  return model;
}

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

/** A deep copy that keeps unknown fields. */
export function cloneModel(model: ModelProto): ModelProto {
  return ModelType.decode(ModelType.encode(model as object).finish()) as unknown as ModelProto;
}
