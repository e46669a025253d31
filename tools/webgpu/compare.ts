/** The comparison of compare.mjs. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { messageOf } from "../../src/errors.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import { dataOf, dimsOf, elementCount, newData, type TensorData } from "../../src/onnx/tensor.js";
import { inferTypes } from "../../src/onnx/types.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { tensorOver } from "../../src/runtime/ort.js";
import { buildBoundGraph } from "../../src/training/bound-graph.js";
import { fedTensors } from "../../src/training/inputs.js";
import { GRAPHS } from "../../test/support/shared.js";
import { goldenBatch } from "../../test/webgpu/golden-batch.js";
import { webGpuDriver } from "./driver.js";

/** Relative; SwiftShader's Sin and Cos are good to 2e-4. */
const TOLERANCE = 3e-4;
const SHOWN = 3;

Object.assign(process.env, webGpuDriver().environment);
const chosen = process.argv.slice(2);
for (const from of ["pytorch", "architectures"]) {
  const folder = join(GRAPHS, from);
  const names = readdirSync(folder).filter((name) => existsSync(join(folder, name, "golden.safetensors")));
  for (const name of names.filter((one) => chosen.length === 0 || chosen.includes(one))) {
    const told = await compare(name, from).catch((error) => [`not compared: ${messageOf(error)}`]);
    console.log([name, ...told].join("\n  "));
  }
}

async function compare(name: string, from: string): Promise<string[]> {
  const { program, batch, inputs, batchSize, shapes } = await goldenBatch(name, { sections: { kind: "none" } }, from);
  const optimizer = createOptimizer({ name: "adam" }, program.manifest.parameters);
  const parts = { statistics: false, roots: false };
  const { model, narrowed } = await buildBoundGraph(program, optimizer, { parts, shapes });
  const types = await inferTypes(model);
  const arrays = new Map<string, TensorData>(
    inputs.map(({ name: input, type, dims }) => [input, newData(type, batchSize * elementCount(dims))]),
  );
  batch.fill(arrays);
  const parameters = new Map(fedTensors(program).map((tensor) => [tensor.name ?? "", tensor]));
  const feeds = Object.fromEntries(
    model.graph.input.map(({ name: input = "" }) => {
      const dims = (types.get(input)?.shape ?? []) as number[];
      const data = arrays.get(input);
      if (data && narrowed.has(input)) {
        const values = Int32Array.from(data as BigInt64Array, Number);
        return [input, tensorOver(ort, DataType.INT32, dims, values, input)];
      }
      const parameter = parameters.get(input);
      const elemType = types.get(input)?.elemType ?? DataType.FLOAT;
      if (data) return [input, tensorOver(ort, elemType, dims, data, input)];
      if (parameter)
        return [input, tensorOver(ort, DataType.FLOAT, dimsOf(parameter), dataOf(parameter).slice(), input)];
      // State and hyperparameters: anything above zero.
      const values = newData(elemType, elementCount(dims));
      (values as Float32Array).fill(elemType === DataType.FLOAT ? 1e-3 : 12345);
      return [input, tensorOver(ort, elemType, dims, values, input)];
    }),
  );
  const nodes = model.graph.node.filter(({ opType }) => opType !== "Constant");
  const values = nodes.flatMap((node) => node.output).filter((value) => types.get(value)?.elemType === DataType.FLOAT);
  const bytes = encodeModel({ ...model, graph: { ...model.graph, output: values.map((value) => ({ name: value })) } });
  const run = async (provider: string) => {
    const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider], logSeverityLevel: 4 });
    const results = await session.run(feeds);
    await session.release();
    return results as Record<string, ort.Tensor>;
  };
  const [expected, actual] = [await run("cpu"), await run("webgpu")];
  const differing = nodes.flatMap((node) =>
    node.output.flatMap((value) => {
      const error = relativeError(actual[value], expected[value]);
      if (error < TOLERANCE) return [];
      const read = node.input.map((input) => `[${types.get(input)?.shape?.join(", ") ?? ""}]`).join(" ");
      return [`${node.opType} '${value}' of ${read}: ${error.toPrecision(2)}`];
    }),
  );
  return [`${values.length} values, ${differing.length} differ`, ...differing.slice(0, SHOWN)];
}

/** Infinities are alike where both have them. */
function relativeError(actual: ort.Tensor | undefined, expected: ort.Tensor | undefined): number {
  if (!actual || !expected) return 0;
  let [distance, norm] = [0, 0];
  const other = actual.data as Float32Array;
  for (const [i, value] of (expected.data as Float32Array).entries()) {
    if (value === other[i]) continue;
    distance += (value - (other[i] as number)) ** 2;
  }
  for (const value of expected.data as Float32Array) if (Number.isFinite(value)) norm += value ** 2;
  return Math.sqrt(distance / (norm + 1e-12));
}
