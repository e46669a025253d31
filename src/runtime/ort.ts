/** The one door to onnxruntime-node: loaded late, with telemetry off, and ONNX element types in its spelling. */
import type * as Ort from "onnxruntime-node";
import { FishyError, messageOf } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { dataTypeName, elementCount, type TensorData } from "../onnx/tensor.js";

export type Runtime = typeof Ort;
export type Tensor = Ort.Tensor;

let loading: Promise<Runtime> | undefined;

/**
 * Loads ONNX Runtime. Its official builds upload telemetry unless the variable is set before the library loads.
 * @throws FishyError when the native library cannot be loaded on this machine.
 */
export function loadRuntime(): Promise<Runtime> {
  loading ??= (async () => {
    process.env.ORT_DISABLE_TELEMETRY ??= "1";
    try {
      return await import("onnxruntime-node");
    } catch (error) {
      throw new FishyError(
        `onnxruntime-node cannot be loaded on ${process.platform}-${process.arch} with Node ${process.versions.node}: ${messageOf(error)}. ` +
          "Install the dependencies again (npm ci).",
      );
    }
  })();
  return loading;
}

const RUNTIME_TYPES: Partial<Record<number, Ort.Tensor.Type>> = {
  [DataType.FLOAT]: "float32",
  [DataType.DOUBLE]: "float64",
  [DataType.FLOAT16]: "float16",
  [DataType.INT8]: "int8",
  [DataType.INT16]: "int16",
  [DataType.INT32]: "int32",
  [DataType.INT64]: "int64",
  [DataType.UINT8]: "uint8",
  [DataType.UINT16]: "uint16",
  [DataType.UINT32]: "uint32",
  [DataType.UINT64]: "uint64",
  [DataType.BOOL]: "bool",
};

/** The runtime's name of an ONNX element type. @throws FishyError for types that Node cannot hold. */
function runtimeType(type: DataType, what: string): Ort.Tensor.Type {
  const name = RUNTIME_TYPES[type];
  if (!name) throw new FishyError(`${what} is of ${dataTypeName(type)}, which onnxruntime-node cannot feed or fetch.`);
  return name;
}

/** A runtime tensor around `data`, which is shared and not copied. */
export function tensorOver(
  ort: Runtime,
  type: DataType,
  dims: readonly number[],
  data: TensorData,
  what: string,
): Tensor {
  if (elementCount(dims) !== data.length) {
    throw new FishyError(
      `${what}: ${data.length} elements do not fill the shape [${dims.join(", ")}] (${elementCount(dims)} elements).`,
    );
  }
  return new ort.Tensor(runtimeType(type, what), data as Float32Array, [...dims]);
}
