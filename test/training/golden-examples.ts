/** Data for a golden model. */
import { columnOf, type Dataset, makeDataset } from "../../src/data/dataset.js";
import type { NamedTensor } from "../../src/data/safetensors.js";
import { DataType } from "../../src/onnx/proto.js";
import type { TensorData } from "../../src/onnx/tensor.js";
import { gaussians } from "./support.js";

/** The examples of a golden file, again and again with other noise. */
export function examplesLike(tensors: ReadonlyMap<string, NamedTensor>, count: number, target: string): Dataset {
  const columns = [...tensors]
    .filter(([name]) => name === "target" || name.startsWith("input/"))
    .map(([name, { type, dims, data }], column) => {
      const size = data.length / (dims[0] as number);
      const noise = gaussians(count * size, 0.3, BigInt(column));
      const isFloat = type === DataType.FLOAT || type === DataType.DOUBLE;
      const values = isFloat
        ? noise.map((value, i) => value + Number(data[i % data.length]))
        : BigInt64Array.from({ length: count * size }, (_, i) => BigInt(data[i % data.length] as bigint | number));
      const elements = isFloat ? DataType.FLOAT : DataType.INT64;
      const shape = [count, ...dims.slice(1)];
      return columnOf(name === "target" ? target : name.slice(6), elements, shape, values as TensorData);
    });
  return makeDataset("like the golden file's", columns);
}
