/**
 * A refresh of all inverse roots of the paper's deep autoencoder (Σd² = 13.5 million) beside LAPACK's dsyevd on the same
 * matrices, in turns, with the same number of threads.
 *
 *     npm run build && node tools/bench/roots.mjs [--python PYTHON] [--threads 1,2] [--rounds N] [--steps N]
 *                          [--options JSON] [--out FILE.json]
 *
 * The statistics are those of a Fishy run on Fashion-MNIST after --steps steps (its 10,000 test images, which come with
 * the project), and random ones whose eigenvalues fall evenly over six decades. PYTHON has NumPy; without it fishy runs
 * alone. Wall and processor time of each contestant, and the medians of the rounds' ratios.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { formatTable } from "../../dist/cli/table.js";
import { rewrite } from "../../dist/index.js";
import { emptyGraph, GraphBuilder } from "../../dist/onnx/builder.js";
import { partProgram } from "../../dist/optimizers/program.js";
import { createOptimizer } from "../../dist/optimizers/registry.js";
import { createSession } from "../../dist/runtime/session.js";
import { Stepper } from "../../dist/training/stepper.js";
import { deepAutoencoder } from "./deep-autoencoder.mjs";
import { generator, images, modelOf } from "./support.mjs";

const { values: given } = parseArgs({
  options: {
    python: { type: "string", default: process.env.FISHY_BENCH_PYTHON ?? "python3" },
    threads: { type: "string", default: "1,2" },
    rounds: { type: "string", default: "5" },
    steps: { type: "string", default: "40" },
    options: { type: "string", default: "{}" },
    out: { type: "string" },
  },
});
const BATCH = 1000;

/** The optimizer of the network, and its statistics after some steps of training. */
async function trained(options, steps) {
  const program = await rewrite(deepAutoencoder(generator(1)).proto, {
    loss: "sigmoid-cross-entropy",
    targetInput: "image",
    sections: { kind: "per-layer" },
  });
  const parameters = program.manifest.parameters.map(({ name, dims }) => ({ name, dims }));
  const optimizer = createOptimizer(options, parameters);
  const inputs = [{ name: "image", type: 1, dims: [784] }];
  const stepper = await Stepper.create({ program, optimizer, inputs, batchSize: BATCH, seed: 1 });
  const pixels = images();
  for (let step = 1; step <= steps; step++) {
    const start = (((step - 1) * BATCH) % 10000) * 784;
    const fill = (into) => into.get("image").set(pixels.subarray(start, start + BATCH * 784));
    const { loss } = await stepper.step(step, { size: BATCH, fill });
    if (step % 10 === 0) console.error(`step ${step}: loss ${loss.toFixed(1)}`);
  }
  const state = new Map(
    optimizer.state.map(({ name, dims }) => [
      name,
      { dims, data: stepper.state.optimizer.get(name).current.data.slice() },
    ]),
  );
  await stepper.release();
  return { optimizer, state };
}

/** Σ_k 10^(−6k/d) a_k a_kᵀ for each matrix of a stack: eigenvalues over six decades. */
async function decaying(dims) {
  const size = dims.at(-1);
  const count = dims.length === 3 ? dims[0] : 1;
  const b = new GraphBuilder(emptyGraph("decaying"));
  b.input("a", { elemType: 1, shape: [count, size, size] });
  b.output(b.matMul("a", b.transpose("a", [0, 2, 1])), { elemType: 1, shape: undefined });
  const session = await createSession(modelOf(b.graph));
  const next = generator(size);
  const a = Float32Array.from(
    { length: count * size * size },
    (_, i) => (2 * next() - 1) * 10 ** ((-3 * (i % size)) / size),
  );
  const out = await session.fetch({ a: new ort.Tensor("float32", a, [count, size, size]) }, session.outputNames);
  await session.release();
  return out[session.outputNames[0]].data;
}

/** Milliseconds of wall and processor time. */
async function timed(run) {
  const [wall, cpu] = [performance.now(), process.cpuUsage()];
  const result = await run();
  const used = process.cpuUsage(cpu);
  return { wall: performance.now() - wall, cpu: (used.user + used.system) / 1000, result };
}

/** A process that runs dsyevd on the matrices of a folder whenever it is asked; undefined without NumPy. */
async function lapack(folder, threads) {
  if (spawnSync(given.python, ["-c", "import numpy"]).status !== 0) return undefined;
  const environment = Object.fromEntries(
    ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"].map((name) => [name, String(threads)]),
  );
  const child = spawn(given.python, [join(import.meta.dirname, "dsyevd.py"), folder, "--serve"], {
    env: { ...process.env, ...environment },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async () => JSON.parse((await lines.next()).value);
  const { version } = await answer();
  return {
    version,
    async run() {
      child.stdin.write("run\n");
      return answer();
    },
    stop: () => child.stdin.end(),
  };
}

const median = (values) => values.toSorted((x, y) => x - y)[values.length >> 1];
const range = (values) => `${Math.min(...values).toFixed(2)}–${Math.max(...values).toFixed(2)}`;

const options = { name: "fishy", ...JSON.parse(given.options) };
const { optimizer, state } = await trained(options, Number(given.steps));
const program = partProgram(optimizer, "roots");
const isStatistics = (name) => name.includes("/statistics");
const random = new Map();
for (const { name, dims } of optimizer.state) if (isStatistics(name)) random.set(name, await decaying(dims));

const temporary = mkdtempSync(join(tmpdir(), "fishy-roots-"));
const report = {
  machine: `${cpus()[0]?.model}, ${availableParallelism()} cores`,
  versions: { node: process.version, "onnxruntime-node": ort.env.versions.node },
  options,
  squares: 0,
  results: [],
};
try {
  const rows = [];
  for (const kind of ["trained", "random"]) {
    const folder = join(temporary, kind);
    mkdirSync(folder);
    const feeds = {};
    let saved = 0;
    for (const [input, { role, name }] of program.inputs) {
      if (role === "hyperparameter") {
        feeds[input] = new ort.Tensor("float32", [optimizer.hyperparameters(Number(given.steps))[name]], []);
        continue;
      }
      const { dims, data: own } = state.get(name);
      const data = kind === "random" && isStatistics(name) ? random.get(name) : own;
      feeds[input] = new ort.Tensor("float32", data, dims);
      if (!isStatistics(name)) continue;
      writeFileSync(
        join(folder, `${saved++}_${dims.at(-1)}.f32`),
        new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
      );
      report.squares += kind === "trained" ? data.length : 0;
    }
    for (const threads of given.threads.split(",").map(Number)) {
      const session = await createSession(program.model, { threads });
      const peer = await lapack(folder, threads);
      if (peer) report.versions.numpy = peer.version;
      const outputs = [...program.outputs.keys()];
      const rounds = [];
      let metrics;
      // The first round warms up and does not count.
      for (let round = 0; round <= Number(given.rounds); round++) {
        const fishy = await timed(() => session.fetch(feeds, outputs));
        metrics = fishy.result;
        delete fishy.result;
        // ONNX Runtime's threads wait for more work, spinning, a little longer than the run.
        await new Promise((resolve) => setTimeout(resolve, 50));
        const dsyevd = await peer?.run();
        if (round > 0) rounds.push({ fishy, dsyevd });
      }
      await session.release();
      peer?.stop();
      const metric = (name) => metrics[[...program.outputs].find(([, one]) => one.name === `roots/${name}`)[0]].data[0];
      const ratios = (clock) => rounds.map(({ fishy, dsyevd }) => fishy[clock] / (dsyevd?.[clock] ?? Number.NaN));
      const times = (who, clock) => median(rounds.map((round) => round[who]?.[clock] ?? Number.NaN)) / 1000;
      const result = {
        statistics: kind,
        threads,
        rounds,
        wall: median(ratios("wall")),
        cpu: median(ratios("cpu")),
        residual: metric("residual"),
        failed: metric("failed"),
        iterations: metric("iterations"),
      };
      report.results.push(result);
      rows.push([
        kind,
        String(threads),
        `${times("fishy", "wall").toFixed(2)} s / ${times("fishy", "cpu").toFixed(2)} s`,
        `${times("dsyevd", "wall").toFixed(2)} s / ${times("dsyevd", "cpu").toFixed(2)} s`,
        `${result.wall.toFixed(2)} (${range(ratios("wall"))})`,
        `${result.cpu.toFixed(2)} (${range(ratios("cpu"))})`,
        `${result.residual.toExponential(0)}, ${result.iterations} rounds${result.failed ? `, ${result.failed} failed` : ""}`,
      ]);
    }
  }
  console.log(
    `${report.machine}; ${Object.entries(report.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", ")}`,
  );
  console.log(`Σd² = ${(report.squares / 1e6).toFixed(1)} million; ${JSON.stringify(options)}\n`);
  const header = [
    "statistics",
    "threads",
    "fishy, wall / CPU",
    "dsyevd, wall / CPU",
    "ratio, wall",
    "ratio, CPU",
    "largest residual",
  ];
  console.log(formatTable(header, rows));
  if (given.out) writeFileSync(given.out, `${JSON.stringify(report, undefined, 1)}\n`);
} finally {
  rmSync(temporary, { recursive: true, force: true });
}
