/**
 * What a step costs when K of them run at once, and how much of it is moving tensors to the device and back. One process
 * for one work and one optimizer:
 *
 *     node tools/gpu/steps.mjs FOLDER MODE [--device NAME] [--steps 1,4,16,64] [--rounds N] [--seconds S] [--threads N]
 *         [--clock wall|cpu] [--quick]
 *
 * FOLDER is what tools/bench/workloads/works.mjs writes, MODE as in tools/bench/workloads/set-up.mjs. Prints one line of JSON. The
 * contestants (single steps, and runs of K) take turns; times are medians over the rounds, in milliseconds a step:
 * of the wall, or of the processor (--clock cpu, for the CPU with one thread on a machine that others work on).
 * `moved`: the time of a graph with the same inputs and outputs that computes nothing, and its share of a step.
 * --quick is quick-steps.mjs: seconds instead of minutes.
 */
import { parseArgs } from "node:util";
import { parseDevice } from "../../dist/runtime/devices.js";
import { loadRuntime, tensorOver } from "../../dist/runtime/ort.js";
import { createSession } from "../../dist/runtime/session.js";
import { createEngine } from "../../dist/training/engines.js";
import { LoopedStepper } from "../../dist/training/looped-stepper.js";
import { setUp } from "../bench/workloads/set-up.mjs";
import { idleGraph } from "./idle-graph.mjs";
import { quickSteps } from "./quick-steps.mjs";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    device: { type: "string", default: "cpu" },
    steps: { type: "string", default: "1,4,16,64" },
    rounds: { type: "string", default: "7" },
    seconds: { type: "string", default: "40" },
    threads: { type: "string", default: "0" },
    clock: { type: "string", default: "wall" },
    quick: { type: "boolean", default: false },
  },
});
const [folder, mode] = positionals;
const device = parseDevice(values.device);
const threads = Number(values.threads);
const rounds = Number(values.rounds);
const counts = values.steps.split(",").filter(Boolean).map(Number);

const { batch, ...options } = await setUp(folder, mode);
const common = { ...options, device, threads };
const now = () =>
  values.clock === "cpu" ? process.cpuUsage().user / 1000 + process.cpuUsage().system / 1000 : performance.now();
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

/** Runs of the cycle of statistics and roots (20 steps), so that every contestant does the same work. */
const contestants = [];
const CYCLE = 20;
const TURN_MS = 200;
const IDLE_RUNS = 20;
const QUICK_IDLE_RUNS = 3;

if (values.quick) {
  process.stdout.write(`${JSON.stringify(await quickSteps({ ...common, batch, mode, counts, now }, idleRun))}\n`);
  process.exit(0);
}

const single = await createEngine({ ...common, stepsPerRun: 1, totalSteps: 1e6 });
contestants.push({
  name: "single",
  stepsPerRun: 1,
  times: [],
  losses: [],
  next: 1,
  async run(first) {
    single.fill(0, batch);
    return single.run(first);
  },
});
for (const stepsPerRun of counts) {
  const engine = await LoopedStepper.create({ ...common, stepsPerRun, totalSteps: 1e6 });
  contestants.push({
    name: `loop of ${stepsPerRun}`,
    stepsPerRun,
    times: [],
    losses: [],
    next: 1,
    idle: await idleRun(engine, stepsPerRun),
    idleTimes: [],
    async run(first, count) {
      for (let slot = 0; slot < count; slot++) engine.fill(slot, batch);
      return engine.run(first, count);
    },
  });
}

/** The time of a step, over whole cycles and runs that take `TURN_MS` together. */
async function turn(contestant, atLeast = 1) {
  const unit = Math.max(mode.includes("adam") || mode === "gradients" ? 1 : CYCLE, contestant.stepsPerRun);
  const steps = unit * Math.ceil(atLeast / unit);
  const start = now();
  let done = 0;
  while (done < steps) {
    const count = Math.min(contestant.stepsPerRun, steps - done);
    const outcomes = await contestant.run(contestant.next, count);
    contestant.losses.push(...outcomes.map(({ loss }) => loss));
    contestant.next += count;
    done += count;
  }
  return (now() - start) / steps;
}

for (const contestant of contestants) {
  await turn(contestant);
  contestant.atLeast = TURN_MS / (await turn(contestant));
}
const end = performance.now() + 1000 * Number(values.seconds);
for (let round = 0; round < rounds && performance.now() < end; round++) {
  for (const contestant of contestants) {
    contestant.times.push(await turn(contestant, contestant.atLeast));
    if (contestant.idle) contestant.idleTimes.push(await contestant.idle());
  }
}

const [base] = contestants;
/** Bit for bit, as far as both went. */
const equal = (a, b) => a.every((loss, i) => i >= b.length || loss === b[i]);
process.stdout.write(
  `${JSON.stringify({
    ...{ work: options.work.name, mode, device: values.device, threads, rounds: base.times.length },
    contestants: contestants.map(({ name, stepsPerRun, times, idleTimes, losses }) => ({
      ...{ name, stepsPerRun, milliseconds: median(times) },
      ratio: median(times.map((time, i) => time / base.times[i])),
      ...(idleTimes && { moved: median(idleTimes), share: median(idleTimes) / median(times) }),
      sameLosses: equal(losses, base.losses),
    })),
  })}\n`,
);
process.exit(0);

/** Times a run of the graph that has the engine's inputs and outputs and computes nothing, for one step. */
async function idleRun(engine, count) {
  const ort = await loadRuntime();
  await engine.prepare();
  const { graph } = await engine.loading;
  const idle = idleGraph(graph.model, count);
  const session = await createSession(idle.model, { device, threads, purpose: "the idle graph" });
  const runs = values.quick ? QUICK_IDLE_RUNS : IDLE_RUNS;
  const feeds = {};
  for (const { name, type, dims } of idle.inputs) feeds[name] = zeros(type, dims, name);
  const fetches = {};
  for (const { name, type, dims } of idle.outputs) fetches[name] = zeros(type, dims, name);
  await session.run(feeds, fetches);
  return async () => {
    const start = now();
    for (let run = 0; run < runs; run++) await session.run(feeds, fetches);
    return (now() - start) / count / runs;
  };
  function zeros(type, dims, name) {
    const ArrayType = { 1: Float32Array, 6: Int32Array, 7: BigInt64Array, 11: Float64Array }[type];
    const length = dims.reduce((product, dim) => product * dim, 1);
    return tensorOver(ort, type, dims, new ArrayType(length), name);
  }
}
