/**
 * Puts everything that the suite needs on a bare Linux machine (x86-64, glibc, no network) into one archive.
 *
 *     npm run build && node tools/gpu/bundle.mjs OUT.tar.gz [--provider FOLDER|WHEEL] [--libraries FOLDER…] [--split MIB]
 *
 * --provider: where libonnxruntime_providers_{shared,cuda}.so of ONNX Runtime's release for this onnxruntime-node lie, or a
 * package that holds them: the NuGet package Microsoft.ML.OnnxRuntime.Gpu.Linux (CUDA 12) or pip's onnxruntime-gpu (its
 * libraries are built for CUDA 13 from 1.30 on). Without it, those in node_modules are taken when they are there.
 * --libraries: folders of CUDA's own libraries (cudart, cublas, cublasLt, curand, cufft, cudnn), where the machine has none.
 * --split: cuts the archive into parts of so many MiB, OUT.000, OUT.001, …
 *
 * There: `cat OUT.* | tar xz` (xJ for .xz), then `fishy-gpu/run.sh --device cuda --out results`.
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";

const root = join(import.meta.dirname, "../..");
const NATIVE = "bin/napi-v6";
const PROVIDER_FILES = ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"];
const GRAPHS = ["autoencoder_tanh", "cnn", "resnet_small", "transformer_encoder"];

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    provider: { type: "string" },
    libraries: { type: "string", multiple: true, default: [] },
    split: { type: "string" },
  },
});
const [out] = positionals;
if (out === undefined) throw new Error("name the archive: node tools/gpu/bundle.mjs OUT.tar.gz");
if (process.platform !== "linux" || process.arch !== "x64")
  throw new Error("a bundle is made on linux-x64, with its Node");
if (!existsSync(join(root, "dist/index.js"))) throw new Error("dist/ is missing: npm run build");

const work = mkdtempSync(join(tmpdir(), "fishy-bundle-"));
const target = join(work, "fishy-gpu");
try {
  mkdirSync(join(target, "bin"), { recursive: true });
  cpSync(process.execPath, join(target, "bin/node"), { dereference: true });
  for (const part of ["dist", "package.json", "LICENSE", "tools/gpu", "tools/bench/workloads", "tools/bench/peers"]) {
    cpSync(join(root, part), join(target, part), { recursive: true });
  }
  for (const name of GRAPHS) {
    cpSync(join(root, "graphs/pytorch", name), join(target, "graphs/pytorch", name), { recursive: true });
  }
  cpSync(join(root, "tools/gpu/run.sh"), join(target, "run.sh"));
  for (const name of packages()) copyPackage(name);
  addProvider(join(target, "node_modules/onnxruntime-node", NATIVE, "linux/x64"));
  mkdirSync(join(target, "lib"));
  for (const folder of values.libraries) {
    for (const file of readdirSync(folder).filter((name) => /\.so(\.|$)/.test(name))) {
      cpSync(join(folder, file), join(target, "lib", file), { dereference: true });
    }
  }
  execute("tar", ["caf", resolve(out), "-C", work, "fishy-gpu"]);
  const size = statSync(out).size;
  console.log(`${out}: ${(size / 2 ** 20).toFixed(1)} MiB`);
  if (values.split) splitInto(Number(values.split) * 2 ** 20);
} finally {
  rmSync(work, { recursive: true, force: true });
}

/** The packages that fishy needs when it runs, and theirs. */
function packages() {
  const found = new Set();
  const visit = (names) => {
    for (const name of names) {
      if (found.has(name)) continue;
      found.add(name);
      const manifest = JSON.parse(readFileSync(join(root, "node_modules", name, "package.json"), "utf8"));
      visit(Object.keys(manifest.dependencies ?? {}));
    }
  };
  visit(Object.keys(JSON.parse(readFileSync(join(root, "package.json"), "utf8")).dependencies));
  return found;
}

/** Without the native files of other systems. */
function copyPackage(name) {
  const from = join(root, "node_modules", name);
  const native = join(from, NATIVE);
  cpSync(from, join(target, "node_modules", name), {
    recursive: true,
    filter: (path) =>
      name !== "onnxruntime-node" ||
      !path.startsWith(`${native}/`) ||
      /^linux(\/x64(\/|$)|$)/.test(path.slice(native.length + 1)),
  });
}

function addProvider(folder) {
  const given = values.provider;
  if (given === undefined) {
    const there = PROVIDER_FILES.filter((file) => existsSync(join(folder, file)));
    console.log(
      there.length === PROVIDER_FILES.length ? "CUDA's provider: from node_modules" : "CUDA's provider: none",
    );
    return;
  }
  if (statSync(given).isDirectory()) {
    for (const file of PROVIDER_FILES) cpSync(join(given, file), join(folder, file), { dereference: true });
  } else execute("unzip", ["-q", "-o", "-j", given, ...PROVIDER_FILES.map((file) => `*${file}`), "-d", folder]);
  console.log(`CUDA's provider: from ${basename(given)}`);
}

function splitInto(bytes) {
  const file = openSync(out, "r");
  try {
    const buffer = Buffer.alloc(bytes);
    for (let part = 0; ; part++) {
      const length = readSync(file, buffer, 0, bytes, part * bytes);
      if (length === 0) break;
      const name = `${out}.${String(part).padStart(3, "0")}`;
      writeFileSync(name, buffer.subarray(0, length));
      console.log(`  ${name}`);
    }
  } finally {
    closeSync(file);
  }
  rmSync(out);
}

function execute(command, args) {
  const { status, error, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? stderr}`);
}
