/**
 * How fast: ratios measured in one run, the contestants taking turns.
 *
 *     npm run bench -- [--work a,b,c,d] [--parts gradients,adam,…] [--contestants NAME,…] [--rounds N] [--repeat N]
 *                      [--threads N] [--clock wall|cpu] [--batch N] [--limit SECONDS] [--peers FOLDER] [--out FILE.json]
 *
 * Every contestant is a process that stays; in each round each of them does its steps, one contestant after the other,
 * in an order that turns. Times are medians over all rounds; a ratio is the median over the rounds of the ratio within
 * a round, with the quartiles beside it. Contestants whose environment is missing, which refuse the work, or which take longer
 * than --limit (120) to start or for a round, are named with the reason. Peers are those of FOLDER
 * (or FISHY_BENCH_PEERS), which tools/bench/peers/setup.mjs makes.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { formatTable } from "../../dist/cli/table.js";
import { contestants, limits, missing } from "./contestants.mjs";
import { WORKS, writeWork } from "./workloads/works.mjs";

/** Statistics and roots in a cycle of 20 steps: what a mean step costs. */
const CYCLES = {
  "statistics every 10": { step: 18, statistics: 1, roots: 1 },
  "statistics every step": { step: 0, statistics: 19, roots: 1 },
};
/** Sums of 784,000 terms one after the other in float32, as the WebAssembly peers make them, are off by 1.2e-4. */
const LOSS_TOLERANCE = 2e-4;

const { values: options } = parseArgs({
  options: {
    work: { type: "string", default: "a,b,c,d" },
    parts: { type: "string" },
    contestants: { type: "string" },
    rounds: { type: "string", default: "7" },
    repeat: { type: "string" },
    threads: { type: "string", default: String(cpus().length) },
    clock: { type: "string", default: "wall" },
    batch: { type: "string" },
    limit: { type: "string", default: "120" },
    peers: { type: "string", default: process.env.FISHY_BENCH_PEERS ?? "" },
    out: { type: "string", default: "bench.json" },
  },
});
const peers = options.peers === "" ? undefined : resolve(options.peers);
const list = (text) => text?.split(",");

const median = (values) => quantile(values, 0.5);
function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const low = sorted[Math.floor(at)];
  return low + (at - Math.floor(at)) * (sorted[Math.ceil(at)] - low);
}

/** A contestant's process; `ask` sends one line and waits for one. */
async function start(contestant) {
  const [command, ...args] = contestant.command;
  const env = {
    ...process.env,
    ...{ OMP_NUM_THREADS: options.threads, PYTHONWARNINGS: "ignore", FISHY_BENCH_CLOCK: options.clock },
    ...contestant.env,
  };
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env, cwd: import.meta.dirname });
  let errors = "";
  child.stderr.on("data", (data) => {
    errors = (errors + data).slice(-4000);
  });
  let waiting;
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (line.startsWith("{")) waiting?.resolve(JSON.parse(line));
  });
  child.on("exit", (code) =>
    waiting?.reject(
      new Error(`ended with ${code}: ${/^\w*Error.*$/m.exec(errors)?.[0] ?? errors.trim().split("\n").at(-1)}`),
    ),
  );
  const answer = () => {
    const limit = setTimeout(() => {
      waiting?.reject(new Error(`takes longer than ${options.limit} s`));
      child.kill("SIGKILL");
    }, 1000 * Number(options.limit));
    const answered = new Promise((resolve, reject) => {
      waiting = { resolve, reject };
    });
    return answered.finally(() => clearTimeout(limit));
  };
  const ask = (message) => {
    const reply = answer();
    child.stdin.write(`${JSON.stringify(message)}\n`);
    return reply;
  };
  const ready = await answer();
  return { ...contestant, ready, ask, rounds: [] };
}

async function startAll(all, absent) {
  const started = [];
  for (const one of all) {
    const why = missing(one);
    try {
      if (why) throw new Error(why);
      started.push(await start(one));
    } catch (error) {
      absent.push({ name: one.name, part: one.part, why: error.message });
    }
  }
  return started;
}

/** Rounds of all, each time from another one on. @returns those that did them; the others are added to `absent`. */
async function compete(all, rounds, repeatOf, absent) {
  const lost = new Set();
  const trying = async (one, act) => {
    try {
      await act();
    } catch (error) {
      lost.add(one);
      absent.push({ name: one.name, part: one.part, why: error.message });
    }
  };
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < all.length; i++) {
      const one = all[(i + round) % all.length];
      if (lost.has(one)) continue;
      await trying(one, async () => {
        const { times } = await one.ask({ repeat: repeatOf(one) });
        one.rounds.push(Object.fromEntries(Object.entries(times).map(([kind, list]) => [kind, median(list)])));
      });
      // Threads of the last one stop spinning.
      await new Promise((done) => setTimeout(done, 20));
    }
  }
  const finished = all.filter((one) => !lost.has(one));
  for (const one of finished) one.peak = (await one.ask({})).peak;
  return finished;
}

/** Milliseconds of a mean step, by round. */
function timesOf({ rounds, ready }, cycle) {
  return rounds.map((times) => {
    if (!ready.kinds.includes("roots")) return times.step;
    const total = Object.values(cycle).reduce((sum, count) => sum + count, 0);
    return Object.entries(cycle).reduce((sum, [kind, count]) => sum + (count && count * times[kind]), 0) / total;
  });
}

/** The cycles that a contestant has all steps for. */
const cyclesOf = ({ ready: { kinds } }) =>
  kinds.includes("roots")
    ? Object.entries(CYCLES).filter(([, cycle]) =>
        Object.keys(cycle).every((kind) => !cycle[kind] || kinds.includes(kind)),
      )
    : [["", {}]];

const ratios = (a, b) => a.map((value, round) => value / b[round]);
const showRatio = (values) =>
  `${median(values).toFixed(2)} (${quantile(values, 0.25).toFixed(2)}–${quantile(values, 0.75).toFixed(2)})`;
const showTime = (ms) => `${ms.toFixed(ms < 10 ? 3 : 1)} ms`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;

async function measureLimit(absent) {
  const all = await startAll(limits(options.threads, peers), absent);
  const measured = await compete(all, 3, () => 5, absent);
  const gigaflops = Object.fromEntries(
    measured.map(({ name, rounds, ready }) => [
      name,
      Math.max(...ready.kinds.map((size) => (2 * size ** 3) / median(rounds.map((times) => times[size])) / 1e6)),
    ]),
  );
  return { gigaflops, peak: Math.max(...Object.values(gigaflops)) };
}

async function measure(name) {
  const folder = mkdtempSync(join(tmpdir(), "fishy-bench-"));
  const absent = [];
  try {
    const work = await writeWork(name, folder, options.batch ? Number(options.batch) : undefined);
    const parts = list(options.parts);
    const names = list(options.contestants);
    const wanted = contestants(folder, options.threads, peers).filter(
      (one) =>
        (parts ? parts.includes(one.part) : (one.unlessAsked ?? name) === name) && (!names || names.includes(one.name)),
    );
    const limit = await measureLimit([]);
    const all = [];
    // Gradients among themselves, then steps: so that not all of the processes hold their memory at once.
    const isStep = ({ part }) => !["gradients", "forward", "sampled", "fisher"].includes(part);
    for (const group of [wanted.filter((one) => !isStep(one)), wanted.filter(isStep)]) {
      const started = await startAll(group, absent);
      const quick = started.find((one) => one.name === "fishy");
      const estimate = quick ? Object.values((await quick.ask({ repeat: 3 })).times)[0][1] : 100;
      const repeat = Number(options.repeat ?? Math.max(1, Math.min(200, Math.round(300 / estimate))));
      all.push(...(await compete(started, Number(options.rounds), () => repeat, absent)));
    }
    return report(work, all, absent, limit);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report(work, all, absent, limit) {
  const { title, letter = "" } = WORKS[work.name];
  console.log(`\n## (${letter}) ${title}, batch ${work.batch}\n`);
  const shown = Object.entries(limit.gigaflops).map(([name, rate]) => `${name} ${rate.toFixed(0)}`);
  console.log(
    `sgemm: ${shown.join(", ")} GFLOP/s; forward and backward pass: ${(work.flops / 1e9).toPrecision(3)} GFLOP`,
  );
  const gradients = all.find(({ part, name }) => part === "gradients" && name === "fishy");
  const reference = all.find(({ part, name }) => part === "gradients" && name === "PyTorch eager") ?? gradients;
  const rows = [];
  const records = [];
  for (const one of all) {
    const own = all.find(({ part, name }) => part === one.part && name === "fishy");
    const cycles = cyclesOf(one);
    for (const [label, cycle] of cycles) {
      const times = timesOf(one, cycle);
      const ms = median(times);
      const ratio = own && one !== own ? ratios(timesOf(own, cycle), times) : undefined;
      const share = work.flops / ms / 1e6 / limit.peak;
      const { loss } = one.ready;
      const agrees = loss === undefined || !reference || Math.abs(loss / reference.ready.loss - 1) < LOSS_TOLERANCE;
      rows.push([
        [one.part, label].filter(Boolean).join(", "),
        one.name,
        showTime(ms),
        `${showTime(quantile(times, 0.25))}–${showTime(quantile(times, 0.75))}`,
        ratio ? showRatio(ratio) : "",
        one.part === "gradients" ? `${(100 * share).toFixed(0)} %` : "",
        `${megabytes(one.peak)}${one.ready.before ? ` (+${megabytes(one.peak - one.ready.before)})` : ""}`,
        agrees ? (loss?.toPrecision(7) ?? "") : `${loss.toPrecision(7)} DIFFERS`,
      ]);
      records.push({
        ...{ part: one.part, cycle: label, name: one.name, version: one.ready.version, loss, agrees, times },
        ...{ median: ms, kinds: one.rounds, peak: one.peak, before: one.ready.before, share },
        ...(ratio && {
          fishyRatio: { median: median(ratio), low: quantile(ratio, 0.25), high: quantile(ratio, 0.75) },
        }),
      });
    }
  }
  const head = ["part", "who", "median", "quartiles", "fishy takes, relative", "of sgemm", "peak memory", "loss"];
  console.log(formatTable(head, rows));
  const derived = derive(all);
  for (const [text, values] of derived) console.log(`${text}: ${showRatio(values)}`);
  for (const { name, part, why } of absent) console.log(`not measured: ${name} (${part}): ${why}`);
  const summaries = derived.map(([text, values]) => ({ text, median: median(values), values }));
  return { work, limit, records, derived: summaries, absent };
}

/** Ratios between fishy's own parts. */
function derive(all) {
  const own = Object.fromEntries(all.filter(({ name }) => name === "fishy").map((one) => [one.part, one]));
  const lines = [];
  const { gradients, sampled, fisher, adam } = own;
  const difference = (one) => timesOf(one).map((value, round) => value - timesOf(gradients)[round]);
  if (gradients && sampled && fisher) {
    lines.push(["sampling and sampled backward pass: fishy / FIM", ratios(difference(sampled), difference(fisher))]);
    lines.push([
      "sampling and sampled backward pass of fishy / forward and backward",
      ratios(difference(sampled), timesOf(gradients)),
    ]);
  }
  for (const part of ["shampoo", "fim-shampoo", "fishy"]) {
    if (!own[part] || !adam) continue;
    for (const [label, cycle] of Object.entries(CYCLES)) {
      lines.push([
        `a step of ${part}, ${label}, roots every 20 / Adam's`,
        ratios(timesOf(own[part], cycle), timesOf(adam)),
      ]);
    }
  }
  return lines;
}

const letters = Object.fromEntries(Object.entries(WORKS).map(([name, { letter }]) => [letter, name]));
const { version } = JSON.parse(
  readFileSync(new URL("../../node_modules/onnxruntime-node/package.json", import.meta.url), "utf8"),
);
const machine = `${cpus()[0].model.trim()}, ${cpus().length} cores, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, ${process.platform}`;
console.log(
  `${machine}; Node ${process.versions.node}, onnxruntime-node ${version}; ${options.threads} threads, ${options.clock} clock; ${new Date().toISOString().slice(0, 10)}`,
);
const results = [];
for (const name of list(options.work)) results.push(await measure(letters[name] ?? name));
writeFileSync(
  options.out,
  JSON.stringify({ machine, node: process.versions.node, onnxruntime: version, options, results }, null, 1),
);
console.log(`\n${options.out}`);
