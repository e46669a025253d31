/**
 * What each part of a step of the paper's deep autoencoder costs, batch 1000, and what longer intervals change.
 *
 *     npm run build && node tools/bench/step-parts.mjs [--threads N] [--rounds N] [--options JSON] [--adam JSON] [--out FILE.json]
 *
 * One run under ONNX Runtime's profiler: Adam's step and Fishy's three kinds of step (plain, with statistics, with
 * statistics and roots) take turns. The names of the nodes tell the part that they belong to. Medians over the rounds.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { formatTable } from "../../dist/cli/table.js";
import { rewrite } from "../../dist/index.js";
import { encodeModel } from "../../dist/onnx/codec.js";
import { createOptimizer } from "../../dist/optimizers/registry.js";
import { StateBuffers } from "../../dist/training/state.js";
import { buildStepGraph } from "../../dist/training/step-graph.js";
import { deepAutoencoder } from "./deep-autoencoder.mjs";
import { generator, images } from "./support.mjs";

const { values: given } = parseArgs({
  options: {
    threads: { type: "string", default: String(availableParallelism()) },
    rounds: { type: "string", default: "9" },
    options: { type: "string", default: "{}" },
    adam: { type: "string", default: "{}" },
    out: { type: "string" },
  },
});
const BATCH = 1000;

/** The parts, and the names of their nodes (ONNX Runtime appends to those that it fuses). The first that matches counts. */
const PARTS = [
  ["roots", /(^|\/)roots\//],
  ["statistics", /\/statistics\//],
  ["graft", /\/graft\//],
  ["momentum", /\/momentum\//],
  ["preconditioning", /\/precondition\//],
  ["update", /\/update\/|^(adam|fishy|shampoo|fim-shampoo)\//],
  ["sampled backward", /^sampled\//],
  ["sampling", /\/sample\//],
  ["backward", /\/backward\//],
  ["forward", /./],
];
const ORDER = [
  "forward",
  "backward",
  "sampling",
  "sampled backward",
  "statistics",
  "roots",
  "preconditioning",
  "graft",
  "momentum",
  "update",
];
const partOf = (name) => PARTS.find(([, pattern]) => pattern.test(name))[0];

/** A step of one kind, in a session of its own that is profiled; state goes to buffers that change places, as in training. */
class Kind {
  times = [];

  static async create(name, program, optimizer, parts, state, folder) {
    const shapes = new Map([["image", [BATCH, 784]]]);
    const graph = buildStepGraph(program, optimizer, { parts, shapes });
    const session = await ort.InferenceSession.create(encodeModel(graph.model), {
      intraOpNumThreads: Number(given.threads),
      logSeverityLevel: 3,
      enableProfiling: true,
      profileFilePrefix: join(folder, name.replaceAll(" ", "_")),
    });
    return Object.assign(new Kind(), { name, graph, session, optimizer, state, folder });
  }

  async run(step, image) {
    const { graph, session, optimizer, state } = this;
    const feeds = {
      image: new ort.Tensor("float32", image, [BATCH, 784]),
      seed: new ort.Tensor("int64", [BigInt(step)], []),
    };
    const fetches = {};
    const written = [];
    for (const [name, buffer] of state.model) feeds[name] = buffer.current.tensor;
    for (const [name, input] of graph.stateInputs) feeds[input] = state.optimizer.get(name).current.tensor;
    for (const [name, input] of graph.hyperparameters) {
      feeds[input] = new ort.Tensor("float32", [optimizer.hyperparameters(step)[name]], []);
    }
    for (const [names, buffers] of [
      [graph.carried, state.model],
      [graph.state, state.optimizer],
    ]) {
      for (const [name, output] of names) {
        written.push(buffers.get(name));
        fetches[output] = buffers.get(name).next.tensor;
      }
    }
    for (const name of session.outputNames) fetches[name] ??= null;
    const wanted = Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]]));
    const start = performance.now();
    await session.run(wanted, fetches);
    this.times.push(performance.now() - start);
    for (const buffer of written) buffer.swap();
  }

  /** Milliseconds by part, for each run. */
  async finish() {
    await this.session.endProfiling();
    const prefix = this.name.replaceAll(" ", "_");
    const file = readdirSync(this.folder).find((one) => one.startsWith(`${prefix}_`) && one.endsWith(".json"));
    const events = JSON.parse(readFileSync(join(this.folder, file), "utf8"));
    const runs = events
      .filter(({ name }) => name === "model_run")
      .map(({ ts, dur }) => ({ ts, end: ts + dur, parts: {} }));
    for (const { cat, name, ts, dur, args } of events) {
      // What If, Loop and Scan take is that of the nodes inside.
      if (cat !== "Node" || !name.endsWith("_kernel_time") || /^(If|Loop|Scan)$/.test(args.op_name)) continue;
      const run = runs.find((one) => ts >= one.ts && ts < one.end);
      if (!run) continue;
      const part = partOf(name.replace(/_kernel_time$/, ""));
      run.parts[part] = (run.parts[part] ?? 0) + dur / 1000;
    }
    await this.session.release();
    return runs.map(({ parts }) => parts);
  }
}

const median = (values) => values.toSorted((x, y) => x - y)[values.length >> 1];

const folder = mkdtempSync(join(tmpdir(), "fishy-parts-"));
try {
  const source = deepAutoencoder(generator(1)).proto;
  const rewritten = (kind) =>
    rewrite(source, { loss: "sigmoid-cross-entropy", targetInput: "image", sections: { kind } });
  const [plain, sampled] = [await rewritten("none"), await rewritten("per-layer")];
  const parameters = sampled.manifest.parameters.map(({ name, dims }) => ({ name, dims }));
  const adam = createOptimizer({ name: "adam", ...JSON.parse(given.adam) }, parameters);
  const fishyOptions = { name: "fishy", ...JSON.parse(given.options) };
  const fishy = createOptimizer(fishyOptions, parameters);
  const initial = (program, optimizer) => StateBuffers.initial(ort, program, optimizer, { directory: "." });
  const states = [await initial(plain, adam), await initial(sampled, fishy)];
  const kinds = [
    await Kind.create("adam", plain, adam, { statistics: false, roots: false }, states[0], folder),
    await Kind.create("with roots", sampled, fishy, { statistics: true, roots: true }, states[1], folder),
    await Kind.create("with statistics", sampled, fishy, { statistics: true, roots: false }, states[1], folder),
    await Kind.create("plain", sampled, fishy, { statistics: false, roots: false }, states[1], folder),
  ];
  const image = images().subarray(0, BATCH * 784);
  const rounds = Number(given.rounds);
  // Step 20, so that every step preconditions. The first round warms up. Roots take so long that they run in every third.
  for (let round = 0; round <= rounds; round++) {
    for (const kind of kinds) if (kind.name !== "with roots" || round % 3 === 0) await kind.run(20 + round, image);
  }
  const measured = {};
  for (const kind of kinds) {
    const runs = (await kind.finish()).slice(1);
    const names = new Set(runs.flatMap((run) => Object.keys(run)));
    measured[kind.name] = {
      step: median(kind.times.slice(1)),
      parts: Object.fromEntries([...names].map((name) => [name, median(runs.map((run) => run[name] ?? 0))])),
    };
  }
  const report = {
    machine: `${cpus()[0]?.model}, ${availableParallelism()} cores`,
    versions: { node: process.version, "onnxruntime-node": ort.env.versions.node },
    threads: Number(given.threads),
    options: fishyOptions,
    measured,
    ...tables(measured),
  };
  if (given.out) writeFileSync(given.out, `${JSON.stringify(report, undefined, 1)}\n`);
  console.log(
    `${report.machine}, ${report.threads} threads; node ${process.version}, onnxruntime-node ${ort.env.versions.node}; ${JSON.stringify(fishyOptions)}\n`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** Prints the tables; the amortised costs, for the report. */
function tables({ adam, plain, ...rest }) {
  const [statistics, roots] = [rest["with statistics"], rest["with roots"]];
  const format = (value) => (value === undefined ? "" : value.toFixed(value < 10 ? 1 : 0));
  console.log(
    formatTable(
      ["ms", "adam", "plain", "with statistics", "with statistics and roots"],
      [
        ...ORDER.map((part) => [part, ...[adam, plain, statistics, roots].map(({ parts }) => format(parts[part]))]),
        ["whole step", ...[adam, plain, statistics, roots].map(({ step }) => format(step))],
      ],
    ),
  );
  const amortised = [
    [1, 1],
    [1, 10],
    [1, 20],
    [10, 20],
    [10, 100],
    [10, Number.POSITIVE_INFINITY],
  ].map(([every, root]) => {
    const step = plain.step + (statistics.step - plain.step) / every + Math.max(0, roots.step - statistics.step) / root;
    return { statisticsInterval: every, rootInterval: root, step, ratio: step / adam.step };
  });
  console.log(
    formatTable(
      ["statistics every", "roots every", "ms per step", "of Adam's"],
      [
        ["", "Adam", format(adam.step), "1"],
        ...amortised.map(({ statisticsInterval, rootInterval, step, ratio }) => [
          String(statisticsInterval),
          rootInterval === Number.POSITIVE_INFINITY ? "never" : String(rootInterval),
          format(step),
          ratio.toFixed(2),
        ]),
      ],
    ),
  );
  return { amortised };
}
