/**
 * Where a step's time goes, by ONNX Runtime's profiler.
 *
 *     npm run build && node tools/bench/profile.mjs WORK MODE [--threads N] [--steps N] [--top N] [--draw DRAW] [--kind step|statistics|roots]
 *
 * WORK as in workloads/works.mjs (its name or its letter), MODE as in workloads/set-up.mjs. Prints the time by operator, and the
 * nodes that take most, with the shapes that they compute; each node's fastest run counts.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { formatTable } from "../../dist/cli/table.js";
import { encodeModel } from "../../dist/onnx/codec.js";
import { StateBuffers } from "../../dist/training/state.js";
import { buildStepGraph } from "../../dist/training/step-graph.js";
import { setUp } from "./workloads/set-up.mjs";
import { WORKS, writeWork } from "./workloads/works.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: "string", default: "1" },
    steps: { type: "string", default: "4" },
    top: { type: "string", default: "25" },
    draw: { type: "string" },
    kind: { type: "string", default: "step" },
    model: { type: "string" },
  },
});
const [work = "autoencoder", mode = "gradients"] = positionals;
const name = Object.keys(WORKS).find((key) => key === work || WORKS[key].letter === work);
const folder = mkdtempSync(join(tmpdir(), "fishy-profile-"));
try {
  await writeWork(name, folder);
  const { program, optimizer, inputs, batch, batchSize } = await setUp(
    folder,
    mode,
    options.draw ? { draw: options.draw } : {},
  );
  const graph = buildStepGraph(program, optimizer, {
    parts: { statistics: options.kind !== "step", roots: options.kind === "roots" },
    shapes: new Map(inputs.map(({ name, dims }) => [name, [batchSize, ...dims]])),
  });
  const bytes = encodeModel(graph.model);
  if (options.model) writeFileSync(options.model, bytes);
  const session = await ort.InferenceSession.create(bytes, {
    executionProviders: ["cpu"],
    intraOpNumThreads: Number(options.threads),
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    enableProfiling: true,
    profileFilePrefix: join(folder, "profile"),
  });
  const state = await StateBuffers.initial(ort, program, optimizer, { directory: folder });
  const feeds = { seed: new ort.Tensor("int64", [1n], []) };
  const data = new Map(
    inputs.map(({ name, type, dims }) => {
      const count = [batchSize, ...dims].reduce((a, b) => a * b, 1);
      const array = type === 7 ? new BigInt64Array(count) : new Float32Array(count);
      feeds[name] = new ort.Tensor(type === 7 ? "int64" : "float32", array, [batchSize, ...dims]);
      return [name, array];
    }),
  );
  batch.fill(data);
  for (const [key, buffer] of state.model) feeds[key] = buffer.current.tensor;
  for (const [key, input] of graph.stateInputs) feeds[input] = state.optimizer.get(key).current.tensor;
  for (const [key, input] of graph.hyperparameters) {
    feeds[input] = new ort.Tensor("float32", [optimizer.hyperparameters(20)[key]], []);
  }
  const wanted = Object.fromEntries(session.inputNames.map((key) => [key, feeds[key]]));
  const steps = Number(options.steps);
  for (let i = 0; i < steps; i++) await session.run(wanted, session.outputNames);
  await session.endProfiling();
  const file = join(
    folder,
    (await import("node:fs")).readdirSync(folder).find((one) => one.startsWith("profile")),
  );
  print(JSON.parse(readFileSync(file, "utf8")), steps);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

function print(events, steps) {
  const runs = events.filter(({ name }) => name === "model_run");
  const warm = runs[0].ts + runs[0].dur;
  const nodes = new Map();
  for (const { cat, name, ts, dur, args } of events) {
    if (cat !== "Node" || !name.endsWith("_kernel_time") || ts < warm) continue;
    const key = name.replace(/_kernel_time$/, "");
    const known = nodes.get(key) ?? { key, op: args.op_name, durations: [], shape: shapes(args) };
    known.durations.push(dur);
    nodes.set(key, known);
  }
  for (const node of nodes.values()) node.ms = Math.min(...node.durations) / 1000;
  const all = [...nodes.values()];
  const total = all.reduce((sum, { ms }) => sum + ms, 0);
  const times = runs
    .slice(1)
    .map(({ dur }) => dur / 1000)
    .sort((a, b) => a - b);
  console.log(
    `a run: ${times[0].toFixed(1)} ms (the fastest of ${steps - 1}); its ${all.length} nodes: ${total.toFixed(1)} ms`,
  );
  const ops = new Map();
  for (const { op, ms } of all) {
    const [sum, count] = ops.get(op) ?? [0, 0];
    ops.set(op, [sum + ms, count + 1]);
  }
  const share = (ms) => `${((100 * ms) / total).toFixed(1)} %`;
  const rows = [...ops].sort(([, [a]], [, [b]]) => b - a).slice(0, 20);
  console.log(
    formatTable(
      ["operator", "nodes", "ms", "share"],
      rows.map(([op, [ms, count]]) => [op, String(count), ms.toFixed(2), share(ms)]),
    ),
  );
  const top = all.sort((a, b) => b.ms - a.ms).slice(0, Number(options.top));
  console.log(
    formatTable(
      ["node", "operator", "ms", "shapes"],
      top.map(({ key, op, ms, shape }) => [key.slice(-70), op, ms.toFixed(2), shape]),
    ),
  );
}

function shapes({ input_type_shape: inputs = [], output_type_shape: outputs = [] }) {
  const text = (list) =>
    list
      .map((one) =>
        Object.values(one)
          .map((dims) => dims.join("×"))
          .join(),
      )
      .join(" ");
  return `${text(inputs)} → ${text(outputs)}`.slice(0, 90);
}
