/** Every polyfilled operator against the kernel of onnxruntime-training 1.19.2 (graphs/artifacts/kernels). */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { BODIES } from "../../src/artifacts/polyfill/bodies.js";
import { polyfill } from "../../src/artifacts/polyfill/polyfill.js";
import { decodeSafetensors, type NamedTensor } from "../../src/data/safetensors.js";
import { loadModel } from "../../src/onnx/model-file.js";
import { DataType } from "../../src/onnx/proto.js";
import { type Feeds, relativeError, runModel } from "../support/run.js";
import { ARTIFACTS, group } from "./support.js";

const FOLDER = join(ARTIFACTS, "kernels");
const names = readdirSync(FOLDER).flatMap((file) => (file.endsWith(".onnx") ? [file.slice(0, -5)] : []));
const { tensors } = decodeSafetensors(readFileSync(join(FOLDER, "kernels.safetensors")), "kernels");

const TYPES: Partial<Record<number, ort.Tensor.Type>> = {
  [DataType.FLOAT]: "float32",
  [DataType.INT64]: "int64",
  [DataType.BOOL]: "bool",
};

function toTensor({ type, dims, data }: NamedTensor): ort.Tensor {
  return new ort.Tensor(TYPES[type] as ort.Tensor.Type, data as never, [...dims]);
}

const used = new Set<string>();

describe("kernels", () => {
  it.each(names)("%s", async (name) => {
    const { proto } = await loadModel(join(FOLDER, `${name}.onnx`));
    used.add(proto.graph.node.at(-1)?.opType ?? "");
    const model = await polyfill(proto);
    const feeds: Feeds = {};
    for (const [input, value] of group(tensors, `${name}/input`)) feeds[input] = toTensor(value);
    const result = await runModel(model, feeds);
    for (const [output, { dims, data }] of group(tensors, `${name}/output`)) {
      const found = result[output];
      expect(found?.dims, output).toEqual(dims);
      const numbers = (values: ArrayLike<unknown>) => {
        const list = Array.from(values, Number);
        // Axes to sum over, in any order.
        return name.startsWith("broadcast_args") ? list.sort() : list;
      };
      const error = relativeError(numbers(found?.data as Float32Array), numbers(data as Float32Array));
      expect(error, output).toBeLessThan(2e-6);
    }
  });

  it("cover every body but Div's, for which ONNX Runtime has no kernel", () => {
    expect(Object.keys(BODIES).filter((operator) => !used.has(operator))).toEqual(["DivGrad"]);
  });
});
