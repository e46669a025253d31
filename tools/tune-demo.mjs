/**
 * Finds the demo's learning rates: every rate of one grid for each method, the same number of steps, judged by the loss
 * on the training examples alone. Writes every result to tools/demo-tuning.json.
 *
 *     npm run build && node tools/tune-demo.mjs
 */
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { Progress, train } from "../dist/index.js";
import { common, grid, methods, readTuning, tuningFile } from "./demo-settings.mjs";

const { heldOut, ...rest } = common;
const results = {};
for (const [method, optimizer] of Object.entries(methods)) {
  results[method] = [];
  for (const learningRate of grid) {
    const progress = new Progress({ label: `${method} ${learningRate}` });
    let trainLoss = null;
    try {
      // The held-out examples are set aside as in the demo, and not looked at.
      const run = await train({
        ...rest,
        heldOut,
        evaluateEvery: 0,
        optimizer: { ...optimizer, learningRate },
        ...progress.hooks,
      });
      trainLoss = run.train.loss;
    } catch (error) {
      if (!/not finite|NaN|Infinity/.test(error.message)) throw error;
    } finally {
      progress.finish();
    }
    results[method].push({ learningRate, trainLoss });
    console.log(`${method}  learning rate ${learningRate}  training loss ${trainLoss?.toFixed(2) ?? "not finite"}`);
  }
}
const best = Object.fromEntries(
  Object.entries(results).map(([method, runs]) => [
    method,
    runs.filter((run) => run.trainLoss !== null).reduce((a, b) => (b.trainLoss < a.trainLoss ? b : a)).learningRate,
  ]),
);
const { steps, batchSize, seed } = common;
const tuning = {
  date: new Date().toISOString().slice(0, 10),
  cpu: cpus()[0]?.model,
  cores: cpus().length,
  node: process.version,
  steps,
  batchSize,
  seed,
  methods,
  best,
  results,
};
writeFileSync(tuningFile, `${JSON.stringify(tuning, null, 2)}\n`);
console.log(`Best: ${JSON.stringify(best)}; before: ${JSON.stringify(readTuning()?.best)}`);
