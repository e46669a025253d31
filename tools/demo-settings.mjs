/** What the demo and its tuning train, in one place. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const root = join(import.meta.dirname, "..");

/** The autoencoder 784-1000-500-250-30-250-500-1000-784, exported by PyTorch (tools/export/autoencoder.py). */
export const model = join(root, "graphs", "autoencoder.onnx");

export const common = {
  model,
  rewrite: { loss: "sigmoid-cross-entropy", targetInput: "image" },
  data: join(root, "graphs", "data", "fashion-mnist"),
  heldOut: 2000,
  batchSize: 1000,
  steps: 160,
  seed: 0,
};

/** Both methods with everything but the learning rate, which the tuning finds for each on the same grid. */
export const methods = {
  Adam: { name: "adam" },
  Fishy: { name: "fishy", blockSize: 256, rootInterval: 20, epsilon: 1e-4 },
};
export const grid = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2];

/** Where tools/tune-demo.mjs writes all its results, and the demo reads the best learning rates. */
export const tuningFile = join(root, "tools", "demo-tuning.json");

export function readTuning() {
  return existsSync(tuningFile) ? JSON.parse(readFileSync(tuningFile, "utf8")) : undefined;
}
