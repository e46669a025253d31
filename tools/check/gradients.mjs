/**
 * Prints how far losses and gradients of rewritten models are from PyTorch's, computed in float64.
 *
 *     npm run build && node tools/check/gradients.mjs [FOLDER…]      (default: every model of graphs/pytorch)
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cpus } from "node:os";
import { basename, join } from "node:path";
import * as ort from "onnxruntime-node";
import { formatTable } from "../../dist/cli/table.js";
import { decodeSafetensors } from "../../dist/data/safetensors.js";
import { loadModel, rewrite } from "../../dist/index.js";
import { encodeModel } from "../../dist/onnx/codec.js";

const root = join(import.meta.dirname, "../../graphs/pytorch");
const folders = process.argv.length > 2 ? process.argv.slice(2) : readdirSync(root).map((name) => join(root, name));
const ORT_TYPES = { 7: "int64", 9: "bool" };

function toOrt({ type, dims, data }) {
  const name = ORT_TYPES[type] ?? "float32";
  return new ort.Tensor(name, name === "float32" ? Float32Array.from(data) : data, dims);
}

function relativeError(x, reference) {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < reference.length; i++) {
    difference += (x[i] - reference[i]) ** 2;
    norm += reference[i] ** 2;
  }
  return Math.sqrt(norm > 0 ? difference / norm : difference);
}

const rows = [];
for (const folder of folders.filter((path) => existsSync(join(path, "golden.safetensors")))) {
  const { tensors, metadata } = decodeSafetensors(readFileSync(join(folder, "golden.safetensors")));
  const source = await loadModel(join(folder, "model.onnx"));
  const loss = metadata.loss.replaceAll("_", "-");
  try {
    const { model, manifest } = await rewrite(source.proto, { loss, sections: { kind: "none" } });
    const feeds = { seed: new ort.Tensor("int64", BigInt64Array.of(0n), []) };
    for (const [name, tensor] of tensors) if (name.startsWith("input/")) feeds[name.slice(6)] = toOrt(tensor);
    if (manifest.loss.target && tensors.has("target")) feeds[manifest.loss.target] = toOrt(tensors.get("target"));
    const session = await ort.InferenceSession.create(encodeModel(model), { logSeverityLevel: 3 });
    const results = await session.run(feeds);
    await session.release();
    const reference = tensors.get("loss").data[0];
    const errors = manifest.parameters.map(({ name, gradient }) =>
      relativeError(results[gradient].data, tensors.get(`grad/${name}`).data),
    );
    rows.push([
      basename(folder),
      loss,
      manifest.parameters.length,
      (Math.abs(results.loss.data[0] - reference) / Math.max(1, Math.abs(reference))).toExponential(1),
      Math.max(...errors).toExponential(1),
    ]);
  } catch (error) {
    rows.push([basename(folder), loss, 0, "", error.message.split("\n")[0]]);
    process.exitCode = 1;
  }
}
console.log(`${cpus()[0]?.model}, Node ${process.version}, onnxruntime-node ${ort.env.versions.node}\n`);
console.log(
  formatTable(
    ["model", "loss", "parameters", "loss error (relative above 1)", "largest ‖g − PyTorch‖/‖PyTorch‖"],
    rows,
  ),
);
