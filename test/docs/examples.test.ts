/** The examples of the documentation run. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it, vi } from "vitest";
import { trainClassifier } from "../../docs/examples/train-classifier.js";
import "../support/cli.js";
import { pseudoRandom } from "../support/mlp.js";
import { npyBytes } from "../support/npy.js";
import { GRAPHS } from "../support/shared.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-example-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("docs/examples/train-classifier.ts trains a PyTorch export", async () => {
  vi.spyOn(console, "log").mockImplementation(() => {});
  // 20 features, 5 classes: the class is the largest of the first five features.
  const [examples, features, classes] = [512, 20, 5];
  const x = Float32Array.from(pseudoRandom(5, examples * features));
  const labels = BigInt64Array.from({ length: examples }, (_, i) => {
    const row = [...x.subarray(i * features, i * features + classes)];
    return BigInt(row.indexOf(Math.max(...row)));
  });
  writeFileSync(join(folder, "x.npy"), npyBytes("<f4", [examples, features], x));
  writeFileSync(join(folder, "labels.npy"), npyBytes("<i8", [examples], labels));
  const data = [`x=${join(folder, "x.npy")}`, `labels=${join(folder, "labels.npy")}`];
  const model = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
  const { first, last } = await trainClassifier(model, data, join(folder, "run"));
  expect(last).toBeLessThan(0.8 * first);
});
