/**
 * What the Node binding's copies of outputs cost: a step of Adam, or forward and backward, with them and without
 * (src/runtime/uncopied.ts).
 *
 *     npm run build && node tools/bench/copies.mjs [--work a,b,d] [--mode adam|gradients] [--threads N] [--runs N]
 *
 * Two processes for each work, which take turns of five runs; medians of milliseconds, and of the ratios of the turns.
 */
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { formatTable } from "../../dist/cli/table.js";
import { encodeModel } from "../../dist/onnx/codec.js";
import { ALLOCATOR } from "../../dist/runtime/allocator.js";
import { createSession } from "../../dist/runtime/session.js";
import { StateBuffers } from "../../dist/training/state.js";
import { buildStepGraph } from "../../dist/training/step-graph.js";
import { setUp } from "./workloads/set-up.mjs";
import { WORKS, writeWork } from "./workloads/works.mjs";

const TURN = 5;
const { values: options } = parseArgs({
  options: {
    work: { type: "string", default: "a,b,d" },
    mode: { type: "string", default: "adam" },
    threads: { type: "string", default: String(cpus().length) },
    runs: { type: "string", default: "6" },
    child: { type: "string" },
  },
});
const median = (values) => [...values].sort((x, y) => x - y)[values.length >> 1];

if (options.child) await serve(...options.child.split(","));
else await compare();

/** A model given as bytes keeps the binding's copies; one given as a message does not. */
async function serve(folder, how) {
  const { program, optimizer, inputs, batch, batchSize } = await setUp(folder, options.mode);
  const shapes = new Map(inputs.map(({ name, dims }) => [name, [batchSize, ...dims]]));
  const graph = buildStepGraph(program, optimizer, { parts: { statistics: false, roots: false }, shapes });
  const model = how === "copied" ? encodeModel(graph.model) : graph.model;
  const session = await createSession(model, { threads: Number(options.threads) });
  const state = await StateBuffers.initial(ort, program, optimizer, { directory: folder });
  const scalar = (value) => new ort.Tensor("float32", Float32Array.of(value), []);
  const feeds = {};
  const data = new Map();
  for (const { name, type, dims } of inputs) {
    const count = [batchSize, ...dims].reduce((product, dim) => product * dim, 1);
    data.set(name, type === 7 ? new BigInt64Array(count) : new Float32Array(count));
    feeds[name] = new ort.Tensor(type === 7 ? "int64" : "float32", data.get(name), [batchSize, ...dims]);
  }
  batch.fill(data);
  const fetches = { [program.manifest.lossOutput]: scalar(0) };
  for (const [name, { current }] of state.model) feeds[name] = current.tensor;
  for (const [name, input] of graph.stateInputs) feeds[input] = state.optimizer.get(name).current.tensor;
  const hyperparameters = optimizer.hyperparameters(20);
  for (const [name, input] of graph.hyperparameters) feeds[input] = scalar(hyperparameters[name]);
  for (const [name, output] of graph.carried) fetches[output] = state.model.get(name).next.tensor;
  for (const [name, output] of graph.state) fetches[output] = state.optimizer.get(name).next.tensor;
  for (const output of graph.metrics.values()) fetches[output] = scalar(0);
  const wanted = Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]]));
  const turn = async () => {
    const times = [];
    for (let run = 0; run < TURN; run++) {
      const start = performance.now();
      await session.run(wanted, fetches);
      times.push(performance.now() - start);
    }
    return median(times);
  };
  for (let warm = 0; warm < 2; warm++) await turn();
  process.on("message", async () => process.send(await turn()));
  process.on("disconnect", () => process.exit());
  process.send("ready");
}

async function compare() {
  const rows = [];
  for (const letter of options.work.split(",")) {
    const name = Object.keys(WORKS).find((key) => WORKS[key].letter === letter || key === letter);
    const folder = mkdtempSync(join(tmpdir(), "fishy-copies-"));
    try {
      await writeWork(name, folder);
      const children = [];
      for (const how of ["copied", "uncopied"]) {
        const args = ["--mode", options.mode, "--threads", options.threads, "--child", `${folder},${how}`];
        const child = fork(import.meta.filename, args, { env: { ...process.env, ...ALLOCATOR } });
        await answer(child);
        children.push(child);
      }
      const times = [[], []];
      for (let run = 0; run < Number(options.runs); run++) {
        for (const i of run % 2 ? [1, 0] : [0, 1]) {
          const reply = answer(children[i]);
          children[i].send("turn");
          times[i].push(await reply);
        }
      }
      for (const child of children) child.disconnect();
      const [copied, uncopied] = times.map(median);
      const ratio = median(times[1].map((time, i) => time / times[0][i]));
      rows.push([letter, copied.toFixed(3), uncopied.toFixed(3), ratio.toFixed(2)]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
  console.log(`${options.mode}, ${options.threads} threads; ${cpus()[0].model}, Node ${process.versions.node}`);
  console.log(formatTable(["work", "copied ms", "uncopied ms", "ratio"], rows));
}

function answer(child) {
  return new Promise((resolve, reject) => {
    child.once("message", resolve);
    child.once("exit", (code) => reject(new Error(`the process ended with ${code}`)));
  });
}
