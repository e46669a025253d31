/** Runs a training program once: node run_program.mjs PROGRAM.onnx BATCH.safetensors SEED OUT.safetensors (needs `npm run build`). */
import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-node";
import { decodeSafetensors, encodeSafetensors } from "../../dist/data/safetensors.js";

const [, , program, batch, seed, out] = process.argv;
const TYPES = { 1: "float32", 7: "int64", 6: "int32" };
const session = await ort.InferenceSession.create(program, { logSeverityLevel: 3 });
const feeds = { seed: new ort.Tensor("int64", BigInt64Array.of(BigInt(seed)), []) };
for (const [name, { type, dims, data }] of decodeSafetensors(readFileSync(batch), batch).tensors) {
  feeds[name] = new ort.Tensor(TYPES[type], data, dims);
}
const result = await session.run(feeds);
const floats = Object.entries(result).filter(([, tensor]) => tensor.type === "float32");
writeFileSync(out, encodeSafetensors(new Map(floats.map(([name, { dims, data }]) => [name, { type: 1, dims, data }]))));
