/**
 * How inspecting and rewriting grow with the model: GPT-2-like transformers of 12 layers (124 million parameters), and
 * of 2, 4 and 8 times as many. The weights lie in an external file that is never read (it is a sparse file of zeros).
 *
 *     npm run build && node tools/bench/scale.mjs [MULTIPLE…]
 *
 * Each measurement runs in a process of its own, so that its peak memory is its own; the fastest of three counts. "read"
 * is what the process read from files, the program's own modules included (Linux only).
 */
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { formatTable } from "../../dist/cli/table.js";
import { inspectModel, loadModel, parseSections, rewrite, saveModel } from "../../dist/index.js";

const REPETITIONS = 3;

/** Writes a GPT of `layers` layers; returns its number of parameters. */
async function writeModel(path, layers) {
  const { gpt, WEIGHTS_FILE } = await import("./gpt.ts");
  const { model, bytes } = gpt(layers);
  const folder = dirname(path);
  const weights = openSync(join(folder, WEIGHTS_FILE), "w");
  ftruncateSync(weights, bytes);
  closeSync(weights);
  await saveModel({ proto: model, directory: folder }, path);
  return bytes / 4;
}

/** One measurement, in the child: prints JSON. */
async function measure(what, path) {
  const start = performance.now();
  const source = await loadModel(path);
  let nodes = source.proto.graph.node.length;
  if (what === "inspect") await inspectModel(source.proto, { loss: "softmax-cross-entropy" });
  if (what === "rewrite") {
    const program = await rewrite(source.proto, {
      loss: "softmax-cross-entropy",
      sections: parseSections("per-layer"),
    });
    await saveModel({ proto: program.model, directory: source.directory }, join(path, "..", "program.onnx"));
    nodes = program.model.graph.node.length;
  }
  if (what === "session" || what === "program session") {
    const ort = await import("onnxruntime-node");
    const session = await ort.InferenceSession.create(path, { logSeverityLevel: 3 });
    await session.release();
  }
  const seconds = (performance.now() - start) / 1000;
  console.log(
    JSON.stringify({ seconds, nodes, megabytes: process.resourceUsage().maxRSS / 1024, read: megabytesRead() }),
  );
}

function megabytesRead() {
  const counters = "/proc/self/io";
  if (!existsSync(counters)) return undefined;
  return Number(/rchar: (\d+)/.exec(readFileSync(counters, "utf8"))?.[1]) / 2 ** 20;
}

if (process.argv[2] === "--measure") {
  await measure(process.argv[3], process.argv[4]);
} else {
  // The model is made by a part of the tests; what is measured is the build.
  await import("../../test/support/register-typescript.mjs");
  const multiples = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [1, 2, 4, 8];
  const rows = [];
  for (const multiple of multiples) {
    const folder = mkdtempSync(join(tmpdir(), "fishy-scale-"));
    try {
      const path = join(folder, "model.onnx");
      const parameters = await writeModel(path, 12 * multiple);
      const runOnce = (what, file) => {
        const child = spawnSync(process.execPath, [fileURLToPath(import.meta.url), "--measure", what, file], {
          encoding: "utf8",
        });
        if (child.status !== 0) throw new Error(child.stderr.trim());
        return JSON.parse(child.stdout);
      };
      const run = (what, file = path) => {
        const results = Array.from({ length: REPETITIONS }, () => runOnce(what, file));
        return results.reduce((best, result) => (result.seconds < best.seconds ? result : best));
      };
      const inspected = run("inspect");
      const rewritten = run("rewrite");
      // Sessions read the weights: only the smallest model's.
      const sessions = multiple === 1 ? [run("session"), run("program session", join(folder, "program.onnx"))] : [];
      const seconds = (result) => (result ? `${result.seconds.toFixed(2)} s` : "");
      const megabytes = (amount) => (amount === undefined ? "" : `${amount.toFixed(0)} MB`);
      rows.push([
        12 * multiple,
        `${(parameters / 1e6).toFixed(0)} M`,
        inspected.nodes,
        rewritten.nodes,
        seconds(inspected),
        megabytes(inspected.megabytes),
        seconds(rewritten),
        megabytes(rewritten.megabytes),
        megabytes(rewritten.read),
        seconds(sessions[0]),
        seconds(sessions[1]),
      ]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  console.log(`${cpus()[0]?.model}, ${cpus().length} cores, Node ${process.version}\n`);
  const header = [
    "layers",
    "parameters",
    "nodes",
    "program nodes",
    "inspect",
    "peak",
    "rewrite",
    "peak",
    "read",
    "session",
    "program session",
  ];
  console.log(formatTable(header, rows));
}
