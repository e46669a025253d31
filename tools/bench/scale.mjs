/**
 * How inspecting and rewriting grow with the model: GPT-2-like transformers of 12 layers (124 million parameters), and
 * of 2, 4 and 8 times as many. The weights lie in an external file that is never read (it is a sparse file of zeros).
 *
 *     npm run build && node tools/bench/scale.mjs [MULTIPLE…]
 *
 * Each measurement runs in a process of its own, so that its peak memory is its own.
 */
import { spawnSync } from "node:child_process";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { formatTable } from "../../dist/cli/table.js";
import { inspectModel, loadModel, parseSections, rewrite, saveModel } from "../../dist/index.js";
import { float } from "../../dist/onnx/attributes.js";
import { emptyGraph, GraphBuilder } from "../../dist/onnx/builder.js";
import { DataLocation, DataType } from "../../dist/onnx/proto.js";

const [D, HEADS, VOCAB, CONTEXT] = [768, 12, 50257, 1024];

/** Writes a GPT of `layers` layers as an exporter would; returns its number of parameters. */
async function writeModel(path, layers) {
  const graph = emptyGraph("gpt");
  const b = new GraphBuilder(graph);
  let offset = 0;
  const weight = (name, dims) => {
    const length = 4 * dims.reduce((product, dim) => product * dim, 1);
    const place = { location: "weights.bin", offset: String(offset), length: String(length) };
    graph.initializer.push({
      name: b.reserve(name),
      dataType: DataType.FLOAT,
      dims,
      dataLocation: DataLocation.EXTERNAL,
      externalData: Object.entries(place).map(([key, value]) => ({ key, value })),
    });
    offset += length;
    return name;
  };
  const dense = (x, name, inputs, outputs) =>
    b.add(b.matMul(x, weight(`${name}.weight`, [inputs, outputs])), weight(`${name}.bias`, [outputs]));
  const norm = (x, name) =>
    b.op("LayerNormalization", [x, weight(`${name}.weight`, [D]), weight(`${name}.bias`, [D])], {
      axis: -1,
      epsilon: float(1e-5),
    });
  const gelu = (x) => {
    const inner = b.mul(b.add(x, b.mul(b.pow(x, b.f32(3)), b.f32(0.044715))), b.f32(Math.sqrt(2 / Math.PI)));
    return b.mul(b.mul(x, b.f32(0.5)), b.add(b.op("Tanh", [inner]), b.f32(1)));
  };
  b.input("tokens", { elemType: DataType.INT64, shape: ["batch", CONTEXT] });
  const wte = weight("wte.weight", [VOCAB, D]);
  let x = b.add(b.gather(wte, "tokens"), weight("wpe.weight", [CONTEXT, D]));
  for (let layer = 0; layer < layers; layer++) {
    x = b.scope(`h.${layer}`, () => {
      const name = `h.${layer}`;
      const qkv = dense(norm(x, `${name}.ln_1`), `${name}.attn.c_attn`, D, 3 * D);
      const [q, k, v] = b
        .node("Split", [qkv], { outputs: 3, attributes: { axis: 2, num_outputs: 3 } })
        .map((part) => b.reshape(part, [0, 0, HEADS, D / HEADS]));
      const scores = b.div(b.matMul(b.transpose(q, [0, 2, 1, 3]), b.transpose(k, [0, 2, 3, 1])), b.f32(8));
      const attention = b.matMul(b.op("Softmax", [scores], { axis: -1 }), b.transpose(v, [0, 2, 1, 3]));
      const joined = b.reshape(b.transpose(attention, [0, 2, 1, 3]), [0, 0, D]);
      const middle = b.add(x, dense(joined, `${name}.attn.c_proj`, D, D));
      const hidden = gelu(dense(norm(middle, `${name}.ln_2`), `${name}.mlp.c_fc`, D, 4 * D));
      return b.add(middle, dense(hidden, `${name}.mlp.c_proj`, 4 * D, D));
    });
  }
  b.node("MatMul", [norm(x, "ln_f"), b.transpose(wte, [1, 0])], { outputs: [b.reserve("logits")] });
  b.output("logits", { elemType: DataType.FLOAT, shape: ["batch", CONTEXT, VOCAB] });
  const folder = join(path, "..");
  const data = openSync(join(folder, "weights.bin"), "w");
  ftruncateSync(data, offset);
  closeSync(data);
  const proto = {
    irVersion: 8,
    producerName: "fishy-bench",
    graph,
    opsetImport: [{ domain: "", version: 18 }],
    metadataProps: [],
    trainingInfo: [],
    functions: [],
  };
  await saveModel({ proto, directory: folder }, path);
  return offset / 4;
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
  console.log(JSON.stringify({ seconds, nodes, megabytes: process.resourceUsage().maxRSS / 1024 }));
}

if (process.argv[2] === "--measure") {
  await measure(process.argv[3], process.argv[4]);
} else {
  const multiples = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [1, 2, 4, 8];
  const rows = [];
  for (const multiple of multiples) {
    const folder = mkdtempSync(join(tmpdir(), "fishy-scale-"));
    try {
      const path = join(folder, "model.onnx");
      const parameters = await writeModel(path, 12 * multiple);
      const run = (what, file = path) => {
        const child = spawnSync(process.execPath, [fileURLToPath(import.meta.url), "--measure", what, file], {
          encoding: "utf8",
        });
        if (child.status !== 0) throw new Error(child.stderr.trim());
        return JSON.parse(child.stdout);
      };
      const inspected = run("inspect");
      const rewritten = run("rewrite");
      // Sessions read the weights: only the smallest model's.
      const sessions = multiple === 1 ? [run("session"), run("program session", join(folder, "program.onnx"))] : [];
      const seconds = (result) => (result ? `${result.seconds.toFixed(2)} s` : "");
      rows.push([
        12 * multiple,
        `${(parameters / 1e6).toFixed(0)} M`,
        inspected.nodes,
        rewritten.nodes,
        seconds(inspected),
        `${inspected.megabytes.toFixed(0)} MB`,
        seconds(rewritten),
        `${rewritten.megabytes.toFixed(0)} MB`,
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
    "session",
    "program session",
  ];
  console.log(formatTable(header, rows));
}
