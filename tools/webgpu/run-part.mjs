/**
 * Runs one graph on WebGPU, in a process of its own: a driver may take the process down with it. Started by measure.mjs.
 *
 *     node tools/webgpu/run-part.mjs FOLDER strict|fallback
 *
 * FOLDER holds model.onnx and feeds.json; the results go to outputs.json. `strict` refuses a session with nodes on the
 * CPU; `fallback` allows them, and the log on stderr tells which they are.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

process.env.ORT_DISABLE_TELEMETRY ??= "1";
const ort = await import("onnxruntime-node");
const [folder, mode] = process.argv.slice(2);

const ARRAYS = {
  float32: Float32Array,
  int64: BigInt64Array,
  int32: Int32Array,
  uint32: Uint32Array,
  bool: Uint8Array,
};

const feeds = Object.fromEntries(
  Object.entries(JSON.parse(readFileSync(join(folder, "feeds.json"), "utf8"))).map(([name, { type, dims, base64 }]) => {
    const bytes = new Uint8Array(Buffer.from(base64, "base64"));
    return [name, new ort.Tensor(type, new ARRAYS[type](bytes.buffer), dims)];
  }),
);
const session = await ort.InferenceSession.create(join(folder, "model.onnx"), {
  executionProviders: ["webgpu"],
  logSeverityLevel: mode === "strict" ? 3 : 0,
  // Values of session options are strings here; anything else is ignored.
  ...(mode === "strict" && { extra: { session: { disable_cpu_ep_fallback: "1" } } }),
});
const outputs = await session.run(feeds);
const values = Object.entries(outputs).map(([name, { type, dims, data }]) => [
  name,
  { type, dims, values: Array.from(data, Number) },
]);
writeFileSync(join(folder, "outputs.json"), JSON.stringify(Object.fromEntries(values)));
await session.release();
