/**
 * Memory of a run over a Parquet set that is read a row group at a time: one epoch.
 *
 *   python tools/bench/write_parquet.py /some/where/noise.parquet 2
 *   npm run build && node tools/bench/stream.mjs /some/where/noise.parquet
 *
 * Prints the largest resident set of the process that trains (with the thread that reads), and fails above 1 GB.
 */
import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { join } from "node:path";
import { ALLOCATOR } from "../../dist/runtime/allocator.js";

const LIMIT = 1e9;
const root = join(import.meta.dirname, "..", "..");
const [path] = process.argv.slice(2);
if (path === undefined) {
  console.error("Which Parquet file? node tools/bench/stream.mjs FILE");
  process.exit(2);
}

if (process.env.FISHY_STREAM_CHILD === undefined) {
  const child = spawnSync(process.execPath, process.argv.slice(1), {
    stdio: "inherit",
    env: { ...process.env, ...ALLOCATOR, FISHY_STREAM_CHILD: "1" },
  });
  process.exit(child.status ?? 1);
}

const { train } = await import(join(root, "dist", "index.js"));
const { emptyGraph, GraphBuilder } = await import(join(root, "dist", "onnx", "builder.js"));
const start = performance.now();
const result = await train({
  model: { proto: classifier(512, 32, 10) },
  rewrite: { loss: "softmax-cross-entropy" },
  data: path,
  optimizer: { name: "adam", learningRate: 1e-3 },
  batchSize: 512,
  epochs: 1,
  isolate: false,
});
const peak = process.resourceUsage().maxRSS * 1024;
console.log(
  `${(statSync(path).size / 1e9).toFixed(2)} GB on disk, ${result.steps} steps in ${((performance.now() - start) / 1000).toFixed(0)} s`,
);
console.log(`largest resident set: ${(peak / 1e6).toFixed(0)} MB`);
if (peak > LIMIT) process.exitCode = 1;

function classifier(inputs, hidden, classes) {
  const b = new GraphBuilder(emptyGraph("classifier"));
  const weight = (name, rows, columns) => {
    const values = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 12.9898) / Math.sqrt(rows));
    return b.initializer(name, 1, [rows, columns], values);
  };
  b.input("x", { elemType: 1, shape: ["batch", inputs] });
  const h = b.op("Tanh", [b.matMul("x", weight("W", inputs, hidden))]);
  b.node("MatMul", [h, weight("V", hidden, classes)], { outputs: ["logits"] });
  b.output("logits", { elemType: 1, shape: ["batch", classes] });
  const opsetImport = [{ domain: "", version: 18 }];
  return { irVersion: 8, graph: b.graph, opsetImport, metadataProps: [], trainingInfo: [], functions: [] };
}
