/**
 * Peak memory of training steps beside what their graph needs.
 *
 *     npm run build && node tools/bench/peak-memory.mjs [--work a,b,c,d] [--modes gradients,adam,fishy] [--steps 42]
 *                      [--threads N] [--out FILE.json]
 *
 * Each measurement is a process of its own, with the allocator's settings of `fishy train`: the largest resident set over
 * steps 1 to 42 (every kind of step, twice), less that of a process that loads the same modules and runs a graph of one
 * node. The need is computed from the step's graph (workloads/graph-memory.mjs), the largest of its kinds of steps. "sum" is
 * parameters, state, data, activations and gradients, all of them; "live together" counts of the last two what a step
 * holds at the same time. What roots hold inside their loops is not in the need.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { formatTable } from "../../dist/cli/table.js";
import { emptyGraph, GraphBuilder } from "../../dist/onnx/builder.js";
import { ALLOCATOR } from "../../dist/runtime/allocator.js";
import { createSession } from "../../dist/runtime/session.js";
import { buildStepGraph } from "../../dist/training/step-graph.js";
import { Stepper } from "../../dist/training/stepper.js";
import { peakBytes } from "./peers/protocol.mjs";
import { modelOf } from "./support.mjs";
import { memoryNeed } from "./workloads/graph-memory.mjs";
import { setUp } from "./workloads/set-up.mjs";
import { WORKS, writeWork } from "./workloads/works.mjs";

const { values: options } = parseArgs({
  options: {
    work: { type: "string", default: "a,b,c,d" },
    modes: { type: "string", default: "gradients,adam,fishy" },
    steps: { type: "string", default: "42" },
    threads: { type: "string", default: String(cpus().length) },
    out: { type: "string" },
    child: { type: "string" },
    folder: { type: "string" },
    mode: { type: "string" },
  },
});
const threads = Number(options.threads);
const steps = Number(options.steps);

const CHILDREN = {
  /** The footprint of Node, of the modules and of ONNX Runtime. */
  async nothing() {
    const b = new GraphBuilder(emptyGraph("nothing"));
    const type = { elemType: 1, shape: [1] };
    b.output(b.op("Neg", [b.input("x", type)], {}, "y"), type);
    const session = await createSession(modelOf(b.graph), { threads });
    const { Tensor } = await import("onnxruntime-node");
    await session.fetch({ x: new Tensor("float32", [1], [1]) }, session.outputNames);
    return { peak: peakBytes(), resident: process.memoryUsage().rss };
  },
  async peak() {
    const { batch, ...rest } = await setUp(options.folder, options.mode);
    const built = peakBytes();
    const stepper = await Stepper.create({ ...rest, threads });
    let beforeRoots;
    for (let step = 1; step <= steps; step++) {
      if (rest.optimizer.schedule(step).roots) beforeRoots ??= peakBytes();
      await stepper.step(step, batch);
    }
    const { rss, heapTotal, external } = process.memoryUsage();
    return { built, beforeRoots, peak: peakBytes(), resident: rss, heapTotal, external };
  },
  async need() {
    const { program, optimizer, inputs, batchSize } = await setUp(options.folder, options.mode);
    const kinds = new Map();
    for (let step = 1; step <= steps; step++) {
      const { statistics, roots } = optimizer.schedule(step);
      kinds.set(roots ? "roots" : statistics ? "statistics" : "step", { statistics, roots });
    }
    const shapes = new Map(inputs.map(({ name, dims }) => [name, [batchSize, ...dims]]));
    const needs = {};
    for (const [kind, parts] of kinds) {
      needs[kind] = await memoryNeed(program, buildStepGraph(program, optimizer, { parts, shapes }));
    }
    return needs;
  },
};

function inChild(child, folder = "", mode = "") {
  const args = [
    "--child",
    child,
    "--folder",
    folder,
    "--mode",
    mode,
    "--threads",
    String(threads),
    "--steps",
    String(steps),
  ];
  const { stdout, stderr, status } = spawnSync(process.execPath, [import.meta.filename, ...args], {
    encoding: "utf8",
    env: { ...process.env, ...ALLOCATOR },
  });
  if (status !== 0) throw new Error(stderr.trim());
  return JSON.parse(stdout);
}

if (options.child) {
  process.stdout.write(JSON.stringify(await CHILDREN[options.child]()));
  process.exit(0);
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
const nothing = inChild("nothing");
const results = [];
for (const letter of options.work.split(",")) {
  const name = Object.keys(WORKS).find((key) => key === letter || WORKS[key].letter === letter);
  const folder = mkdtempSync(join(tmpdir(), "fishy-memory-"));
  try {
    await writeWork(name, folder);
    for (const mode of options.modes.split(",")) {
      const measured = inChild("peak", folder, mode);
      results.push({ work: name, letter: WORKS[name].letter, mode, measured, needs: inChild("need", folder, mode) });
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
const rows = results.flatMap((result) => {
  const { letter, mode, measured, needs } = result;
  const { roots, ...others } = needs;
  result.rows = {};
  const rowOf = (what, kinds, peak) => {
    const largest = (pick) => Math.max(...Object.values(kinds).map(pick));
    const kept = largest(({ parameters, state, data }) => parameters + state + data);
    const live = kept + largest((need) => need.live);
    const plain = kept + largest((need) => need.activations + need.gradients);
    const above = peak - nothing.peak;
    result.rows[what] = { above, live, plain, ofLive: above / live, ofPlain: above / plain };
    const parts = [largest((n) => n.parameters), largest((n) => n.state), largest((n) => n.activations)];
    return [
      ...[`(${letter})`, what, ...parts.map(megabytes), megabytes(largest((n) => n.gradients))],
      ...[megabytes(plain), megabytes(live), megabytes(above), (above / plain).toFixed(2), (above / live).toFixed(2)],
    ];
  };
  if (!roots) return [rowOf(mode, needs, measured.peak)];
  return [rowOf(`${mode}, before roots`, others, measured.beforeRoots), rowOf(mode, needs, measured.peak)];
});
const { version } = JSON.parse(
  readFileSync(new URL("../../node_modules/onnxruntime-node/package.json", import.meta.url), "utf8"),
);
console.log(
  `${cpus()[0].model.trim()}, ${threads} threads, Node ${process.versions.node}, onnxruntime-node ${version}; a graph of one node: ${megabytes(nothing.peak)} MB\n`,
);
const head = [
  ...["work", "what", "parameters", "state", "activations", "gradients", "sum MB", "live together", "peak"],
  ...["of the sum", "of live"],
];
console.log(formatTable(head, rows));
for (const { letter, mode, needs } of results) {
  for (const [kind, { unknown }] of Object.entries(needs)) {
    if (unknown.length > 0)
      console.log(`(${letter}) ${mode}, ${kind}: ${unknown.length} values of unknown shape are not counted`);
  }
}
if (options.out) writeFileSync(options.out, `${JSON.stringify({ options, nothing, results }, null, 1)}\n`);
