/**
 * The main job on real data: trains the autoencoder with Adam and with Fishy for the same number of steps, prints a
 * table, and writes the trained models, metrics and a page with both curves under runs/demo/.
 */
import { rmSync } from "node:fs";
import { join, relative } from "node:path";
import { formatTable } from "../dist/cli/table.js";
import { Progress, train } from "../dist/index.js";
import { writeReport } from "../dist/report/report.js";
import { common, methods, readTuning, root, tuningFile } from "./demo-settings.mjs";

const folder = join(root, "runs", "demo");
const shown = (path) => relative(process.cwd(), path) || ".";
const tuning = readTuning();

rmSync(folder, { recursive: true, force: true });
console.log(
  `Autoencoder 784-1000-500-250-30-250-500-1000-784 on Fashion-MNIST, ${common.steps} steps of ${common.batchSize} examples each.\n` +
    `Learning rates: the best of ${tuning.results.Adam.map((run) => run.learningRate).join(", ")} for each method (${shown(tuningFile)}).\n`,
);
const rows = [];
const runs = [];
for (const [method, options] of Object.entries(methods)) {
  const learningRate = tuning.best[method];
  const progress = new Progress({ label: method });
  const outDir = join(folder, method.toLowerCase());
  let result;
  try {
    result = await train({
      ...common,
      optimizer: { ...options, learningRate },
      outDir,
      handleSignals: true,
      ...progress.hooks,
    });
  } finally {
    progress.finish();
  }
  if (result.outcome === "interrupted") {
    console.log(`Stopped after ${result.steps} steps; the run is in ${shown(outDir)}.`);
    process.exit(130);
  }
  runs.push({ directory: outDir, name: method });
  rows.push([
    method,
    String(learningRate),
    result.train.loss.toFixed(2),
    result.heldOut.loss.toFixed(2),
    `${(1000 * result.medianSecondsPerStep).toFixed(0)} ms`,
    `${(1000 * result.secondsPerStep).toFixed(0)} ms`,
    `${result.seconds.toFixed(1)} s`,
  ]);
}
const page = join(folder, "report.html");
await writeReport(runs, page);
console.log(
  `\n${formatTable(["method", "learning rate", "training loss", "held-out loss", "median step", "mean step", "total"], rows)}\n`,
);
console.log(`Trained models  ${runs.map((run) => shown(join(run.directory, "model.onnx"))).join(", ")}`);
console.log(`Metrics         ${runs.map((run) => shown(join(run.directory, "metrics.jsonl"))).join(", ")}`);
console.log(`Curves          ${shown(page)}`);
