/**
 * Rewrites every model under graphs/ that has a golden file, in several ways, and checks the programs with
 * onnx.checker and onnxruntime's Python package (tools/check/onnx_check.py).
 *
 *     npm run build && node tools/check/programs.mjs [PYTHON]
 *
 * Needs a Python with onnx and onnxruntime; prints one line per program.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel, parseSections, rewrite, saveModel } from "../../dist/index.js";

const root = join(import.meta.dirname, "../..");
const python = process.argv[2] ?? "python3";
const LOSSES = {
  softmax_cross_entropy: "softmax-cross-entropy",
  sigmoid_cross_entropy: "sigmoid-cross-entropy",
  mean_squared_error: "mean-squared-error",
  "in-graph": "in-graph",
};

const VARIANTS = [
  { name: "per-layer", options: { sections: parseSections("per-layer") } },
  { name: "output", options: { sections: parseSections("output") } },
  { name: "expected", options: { sections: parseSections("per-layer"), draw: "expected" } },
  { name: "none", options: { sections: parseSections("none") } },
];

/** The metadata of a safetensors file. */
function metadataOf(path) {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  return JSON.parse(bytes.subarray(8, 8 + length).toString()).__metadata__ ?? {};
}

const folders = ["pytorch", "architectures"]
  .map((group) => join(root, "graphs", group))
  .filter(existsSync)
  .flatMap((group) => readdirSync(group).map((name) => join(group, name)))
  .filter((folder) => existsSync(join(folder, "golden.safetensors")));
const out = mkdtempSync(join(tmpdir(), "fishy-programs-"));
let status = 0;
try {
  const files = [];
  for (const folder of folders) {
    const loss = LOSSES[metadataOf(join(folder, "golden.safetensors")).loss];
    for (const file of ["model.onnx", "dynamo.onnx"].filter((name) => existsSync(join(folder, name)))) {
      const source = await loadModel(join(folder, file));
      for (const variant of VARIANTS) {
        const name = `${folder.split("/").pop()}-${file.replace(".onnx", "")}-${variant.name}.onnx`;
        try {
          const program = await rewrite(source.proto, { loss, ...variant.options });
          await saveModel({ proto: program.model, directory: source.directory }, join(out, name));
          files.push(name);
        } catch (error) {
          const refused = /is of no form that fishy recognises/.test(error.message);
          if (!refused) status = 1;
          console.log(`${refused ? "none  " : "FAIL  "}${name}: ${error.message.split("\n")[0]}`);
        }
      }
    }
  }
  const check = spawnSync(python, [join(root, "tools/check/onnx_check.py"), ...files], { cwd: out, stdio: "inherit" });
  if (check.error) console.error(`${python}: ${check.error.message}`);
  status ||= check.status ?? 1;
} finally {
  rmSync(out, { recursive: true, force: true });
}
process.exitCode = status;
