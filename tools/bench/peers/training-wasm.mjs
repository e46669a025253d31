/**
 * The training build of onnxruntime-web 1.19.2 as a contestant: `training-wasm.mjs FOLDER PART THREADS PEERS`, PART gradients
 * or adam, on the artifacts that `training_artifacts.py` makes with onnxruntime-training.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { now, serve } from "./protocol.mjs";

const [folder, part, , peers] = process.argv.slice(2);
const python = join(peers, "ort-training", "bin", "python");
const made = spawnSync(python, [join(import.meta.dirname, "training_artifacts.py"), folder], { encoding: "utf8" });
if (made.status !== 0)
  throw new Error(`onnxruntime-training makes no artifacts: ${made.stderr.trim().split("\n").at(-1)}`);
const before = process.memoryUsage().rss;
const web = join(peers, "node_modules", "onnxruntime-web", "dist", "ort.training.wasm.min.mjs");
const ort = await import(pathToFileURL(web).href);
// Its threads are workers that fetch the module by URL, which Node does not do for files.
ort.env.wasm.numThreads = 1;
const work = JSON.parse(readFileSync(join(folder, "work.json"), "utf8"));
const bytes = (name) => new Uint8Array(readFileSync(join(folder, name)));
const session = await ort.TrainingSession.create({
  checkpointState: bytes("artifacts/checkpoint"),
  trainModel: bytes("artifacts/training_model.onnx"),
  evalModel: bytes("artifacts/eval_model.onnx"),
  optimizerModel: bytes("artifacts/optimizer_model.onnx"),
});
const dims = [work.batch, ...work.dims];
const x = work.tokens
  ? new ort.Tensor("int64", new BigInt64Array(bytes("x.bin").buffer), dims)
  : new ort.Tensor("float32", new Float32Array(bytes("x.bin").buffer), dims);
const target = work.classes ? new ort.Tensor("int64", new BigInt64Array(bytes("labels.bin").buffer), [work.batch]) : x;
const [first, second] = session.trainingInputNames;
const factor = work.loss === "sigmoid-cross-entropy" ? work.dims[0] : 1;

async function step() {
  const results = await session.runTrainStep({ [first]: x, [second]: target });
  if (part === "adam") await session.runOptimizerStep();
  await session.lazyResetGrad();
  return factor * Object.values(results)[0].data[0];
}

const loss = await step();
serve({ loss, version: "onnxruntime-web 1.19.2 (training)", kinds: ["step"], before }, async (repeat) => {
  const times = [];
  for (let i = 0; i < Math.min(repeat, 20); i++) {
    const start = now();
    await step();
    times.push(now() - start);
  }
  return { step: times };
});
