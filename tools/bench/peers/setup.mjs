/**
 * Makes the environments of the benchmark's peers: `node tools/bench/peers/setup.mjs FOLDER [PYTHON]`.
 *
 * FOLDER/torch: PyTorch with torch.compile (which needs a C++ compiler), pytorch-optimizer, onnx, onnxruntime, onnxsim.
 * FOLDER/ort-training: onnxruntime-training 1.19.2, which needs Python 3.11 or older, and PyTorch for its exporter.
 * FOLDER/node_modules: onnxruntime-web 1.19.2 (the last with training), TensorFlow.js, jax-js.
 * All come from PyPI and npm; 13 GB, in two minutes on a fast line. Meta's Shampoo is in neither: the package distributed_shampoo of
 * facebookresearch/optimizers (commit bc6405b) takes part where it lies in FOLDER/meta-shampoo. PYTHON is the interpreter to start from, python3.11 by default.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const [given, python = "python3.11"] = process.argv.slice(2);
if (!given) {
  console.error("usage: node tools/bench/peers/setup.mjs FOLDER [PYTHON]");
  process.exit(1);
}
const folder = resolve(given);

const ENVIRONMENTS = {
  torch: ["torch", "numpy", "onnx", "onnxscript", "onnxruntime", "onnxsim", "rich", "pytorch-optimizer"],
  "ort-training": ["onnxruntime-training==1.19.2", "onnx==1.16.2", "numpy", "torch", "cerberus", "h5py"],
};
const PACKAGES = {
  "onnxruntime-web": "1.19.2",
  "@tensorflow/tfjs": "4.22.0",
  "@tensorflow/tfjs-backend-wasm": "4.22.0",
  "@jax-js/jax": "0.1.25",
};

function run(command, args) {
  console.log([command, ...args].join(" "));
  const { status, error } = spawnSync(command, args, { stdio: "inherit", cwd: folder });
  if (status !== 0) throw new Error(`${command} failed${error ? `: ${error.message}` : ""}`);
}

mkdirSync(folder, { recursive: true });
for (const [name, packages] of Object.entries(ENVIRONMENTS)) {
  const path = join(folder, name);
  if (!existsSync(path)) run(python, ["-m", "venv", path]);
  run(join(path, "bin", "python"), ["-m", "pip", "install", ...packages]);
}
writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, dependencies: PACKAGES }, null, 2));
run("npm", ["install", "--no-audit", "--no-fund"]);
