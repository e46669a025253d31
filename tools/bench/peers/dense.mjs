/** The layers of a work that is a stack of Linear layers: what contestants without ONNX rebuild by hand. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../../dist/index.js";
import { dataOf, dimsOf } from "../../../dist/onnx/tensor.js";

/** @returns layers, each `weight` [out, in] and `bias` [out]; the activation between them; the data. */
export async function denseWork(folder) {
  const work = JSON.parse(readFileSync(join(folder, "work.json"), "utf8"));
  const { proto } = await loadModel(join(folder, "model.onnx"));
  const other = proto.graph.node.find(({ opType }) => !["Gemm", "Tanh", "Relu", "Constant"].includes(opType));
  if (other) throw new Error(`its script has no ${other.opType}`);
  const tensors = new Map(proto.graph.initializer.map((one) => [one.name, { dims: dimsOf(one), data: dataOf(one) }]));
  const layers = proto.graph.node
    .filter(({ opType }) => opType === "Gemm")
    .map(({ input }) => ({ weight: tensors.get(input[1]), bias: tensors.get(input[2]) }));
  const bytes = (name) => new Uint8Array(readFileSync(join(folder, name))).buffer;
  return {
    work,
    layers,
    activation: proto.graph.node.some(({ opType }) => opType === "Tanh") ? "tanh" : "relu",
    x: new Float32Array(bytes("x.bin")),
    labels: work.classes ? Int32Array.from(new BigInt64Array(bytes("labels.bin")), Number) : undefined,
  };
}
