/**
 * Optimizers against each other, all tuned over the same grid of learning rates with the same number of trials.
 *
 *     npm run build && node tools/bench/compare.mjs [--finals] [quadratic] [logistic] [cnn] [autoencoder]
 *
 * Every learning rate of the grid is tried once for each method (seed 0), judged by the training loss at the end; the
 * best is run again with seeds 1, 2 and 3, the methods in turn, and those runs are reported. The seed draws the problem
 * (quadratic), the order of the data, and the samples. Writes docs/figures/compare-<problem>.json and .svg, and the
 * tables of docs/comparisons.md. Without arguments: quadratic, logistic and cnn. With --finals only the final runs are
 * made again, with the learning rates that the file has; their losses are the same, and of the times the faster are kept.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { drawFigure } from "./compare-figure.mjs";
import { median, PROBLEMS, root, withRate } from "./compare-problems.mjs";
import { fillTables } from "./compare-tables.mjs";

const SEEDS = [1, 2, 3];
const CURVE_POINTS = 60;

const folder = join(root, "docs", "figures");
const page = join(root, "docs", "comparisons.md");
const packageVersion = (name) => JSON.parse(readFileSync(fileURLToPath(import.meta.resolve(name)))).version;

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const digits = (value, count = 4) => (value === undefined ? undefined : Number(value.toPrecision(count)));

/** A run's result, or null when its numbers stopped being finite. */
async function attempt(problem, options, settings) {
  try {
    return await problem.run(options, settings);
  } catch (error) {
    if (!/not finite|NaN|Infinity/.test(error.message)) throw error;
    return null;
  }
}

async function tune(problem, method, options) {
  const trials = [];
  for (const learningRate of problem.grid) {
    const result = await attempt(problem, withRate(options, learningRate), {
      seed: 0,
      steps: problem.tuningSteps ?? problem.steps,
    });
    trials.push({ learningRate, trainLoss: result ? digits(result.trainLoss) : null });
    console.log(`${method}  ${learningRate}  ${result ? result.trainLoss.toPrecision(4) : "not finite"}`);
  }
  const finite = trials.filter((trial) => trial.trainLoss !== null);
  if (finite.length === 0) throw new Error(`No learning rate of the grid trains with ${method}.`);
  return { trials, best: finite.reduce((a, b) => (b.trainLoss < a.trainLoss ? b : a)).learningRate };
}

/**
 * Mean, lowest and highest loss over the runs, each the mean of the last `smoothing` steps, at some of the steps; the
 * seconds are those of the fastest run, which other work on the machine disturbed least.
 */
function curveOf(runs, smoothing) {
  const fastest = runs.reduce((a, b) => (b.seconds.at(-1) < a.seconds.at(-1) ? b : a));
  const length = runs[0].losses.length;
  const every = Math.max(1, Math.ceil(length / CURVE_POINTS));
  const curve = { step: [], loss: [], low: [], high: [], seconds: [] };
  for (let i = smoothing - 1; i < length; i++) {
    if ((length - 1 - i) % every !== 0) continue;
    const values = runs.map((run) => mean(run.losses.slice(i + 1 - smoothing, i + 1)));
    curve.step.push(i + 1);
    curve.loss.push(digits(mean(values)));
    curve.low.push(digits(Math.min(...values)));
    curve.high.push(digits(Math.max(...values)));
    curve.seconds.push(digits(fastest.seconds[i]));
  }
  return curve;
}

/** Times of an earlier measurement, where other work disturbed it less. */
function keepFaster({ finals, curve }, known) {
  if (!known) return;
  for (const run of finals) {
    const before = known.finals.find(({ seed }) => seed === run.seed);
    if (before?.trainLoss !== run.trainLoss) return;
    run.medianStep = Math.min(run.medianStep, before.medianStep);
    run.seconds = Math.min(run.seconds, before.seconds);
  }
  if (known.curve.seconds.at(-1) < curve.seconds.at(-1)) curve.seconds = known.curve.seconds;
}

async function compare(name, known) {
  const problem = PROBLEMS[name];
  const { title, lossName, steps, tuningSteps, seeds = SEEDS, grid, methods, smoothing } = problem;
  console.log(`\n${title}: ${steps} steps, learning rates ${grid.join(", ")}`);
  const tuned = {};
  for (const [method, options] of Object.entries(methods)) {
    tuned[method] = known?.results.find((result) => result.method === method) ?? (await tune(problem, method, options));
  }
  const runs = Object.fromEntries(Object.keys(methods).map((method) => [method, []]));
  for (const seed of seeds) {
    for (const [method, options] of Object.entries(methods)) {
      const result = await attempt(problem, withRate(options, tuned[method].best), { seed, steps });
      if (!result)
        throw new Error(`${method} with its best learning rate ${tuned[method].best} diverged with seed ${seed}.`);
      runs[method].push({ seed, ...result });
      console.log(
        `${method}  seed ${seed}  ${result.trainLoss.toPrecision(4)}  ${(1000 * result.secondsPerStep).toFixed(1)} ms`,
      );
    }
  }
  const results = Object.entries(methods).map(([method, options]) => ({
    method,
    options,
    trials: tuned[method].trials,
    best: tuned[method].best,
    finals: runs[method].map(({ seed, trainLoss, heldOutLoss, heldOutAccuracy, secondsPerStep, seconds }) => ({
      seed,
      trainLoss: digits(trainLoss),
      heldOutLoss: digits(heldOutLoss),
      heldOutAccuracy: digits(heldOutAccuracy),
      medianStep: digits(secondsPerStep),
      seconds: digits(seconds.at(-1)),
    })),
    curve: curveOf(runs[method], smoothing),
  }));
  for (const result of results) {
    keepFaster(
      result,
      known?.results.find(({ method }) => method === result.method),
    );
  }
  const comparison = {
    ...{ problem: name, title, lossName, steps, tuningSteps, grid },
    date: new Date().toISOString().slice(0, 10),
    machine: `${cpus()[0]?.model ?? "unknown CPU"}, ${cpus().length} cores`,
    versions: { node: process.version, "onnxruntime-node": packageVersion("onnxruntime-node/package.json") },
    results,
  };
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `compare-${name}.json`), `${JSON.stringify(comparison)}\n`);
  writeFileSync(join(folder, `compare-${name}.svg`), drawFigure(comparison));
  for (const { method, best, finals } of results) {
    const losses = finals.map((run) => run.trainLoss);
    console.log(
      `${method}: learning rate ${best}, loss ${median(losses)} (${Math.min(...losses)} to ${Math.max(...losses)})`,
    );
  }
}

const onlyFinals = process.argv.includes("--finals");
const given = process.argv.slice(2).filter((argument) => argument !== "--finals");
const names = given.length > 0 ? given : ["quadratic", "logistic", "cnn"];
const unknown = names.filter((name) => !Object.hasOwn(PROBLEMS, name));
if (unknown.length > 0) {
  console.error(`Unknown: ${unknown.join(", ")}. The problems are ${Object.keys(PROBLEMS).join(", ")}.`);
  process.exit(2);
}
for (const name of names) {
  const file = join(folder, `compare-${name}.json`);
  if (onlyFinals && !existsSync(file)) throw new Error(`--finals needs ${file}: run ${name} without it first.`);
  await compare(name, onlyFinals ? JSON.parse(readFileSync(file, "utf8")) : undefined);
}
writeFileSync(page, fillTables(readFileSync(page, "utf8"), folder));
