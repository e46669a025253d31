/**
 * What the size of Shampoo's blocks costs, and what it does to the loss: Fishy on the paper's deep autoencoder, batch
 * 1000, statistics every 10 steps and roots every 20, on Fashion-MNIST (its 10,000 test images, which come with the
 * project), and Adam beside it.
 *
 *     npm run build && node tools/bench/block-size.mjs [--sizes 1024,512,256,128] [--steps 100] [--rate 3e-4] [--threads 2]
 *
 * Contestants take turns, twenty steps each. Milliseconds of a step of each kind (medians; of roots all but the first),
 * of a step on average, and the ratio of that to Adam's; the mean loss of the last ten steps, which see every image once.
 */
import { parseArgs } from "node:util";
import { formatTable } from "../../dist/cli/table.js";
import { createOptimizer, rewrite } from "../../dist/index.js";
import { Stepper } from "../../dist/training/stepper.js";
import { deepAutoencoder } from "./deep-autoencoder.mjs";
import { generator, images } from "./support.mjs";

const { values: given } = parseArgs({
  options: {
    sizes: { type: "string", default: "1024,512,256,128" },
    steps: { type: "string", default: "100" },
    rate: { type: "string", default: "3e-4" },
    threads: { type: "string", default: "2" },
  },
});
const BATCH = 1000;
const TURN = 20;
const INTERVALS = { statistics: 10, roots: 20 };
const pixels = images();
const steps = Number(given.steps);

async function contestant(name, options, sections) {
  const program = await rewrite(deepAutoencoder(generator(1)).proto, {
    loss: "sigmoid-cross-entropy",
    targetInput: "image",
    sections: { kind: sections },
    draw: "fast",
  });
  const parameters = program.manifest.parameters.map(({ name, dims }) => ({ name, dims }));
  const optimizer = createOptimizer({ learningRate: Number(given.rate), ...options }, parameters);
  const inputs = [{ name: "image", type: 1, dims: [784] }];
  const common = { program, optimizer, inputs, batchSize: BATCH, seed: 1, threads: Number(given.threads) };
  const stepper = await Stepper.create(common);
  return { name, optimizer, stepper, times: { step: [], statistics: [], roots: [] }, losses: [] };
}

const fishy = { name: "fishy", statisticsInterval: INTERVALS.statistics, rootInterval: INTERVALS.roots };
const contestants = [await contestant("Adam", { name: "adam" }, "none")];
for (const size of given.sizes.split(",").map(Number)) {
  contestants.push(await contestant(`Fishy, ${size}`, { ...fishy, blockSize: size }, "per-layer"));
}
for (let start = 1; start <= steps; start += TURN) {
  for (const { optimizer, stepper, times, losses } of contestants) {
    for (let step = start; step < start + TURN && step <= steps; step++) {
      const first = (((step - 1) * BATCH) % 10000) * 784;
      const fill = (into) => into.get("image").set(pixels.subarray(first, first + BATCH * 784));
      const { statistics, roots } = optimizer.schedule(step);
      const kind = roots ? "roots" : statistics ? "statistics" : "step";
      const begun = performance.now();
      const { loss } = await stepper.step(step, { size: BATCH, fill });
      times[kind].push(performance.now() - begun);
      losses.push(loss);
    }
  }
}
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const results = contestants.map(({ name, times, losses }) => {
  // The first step of a kind builds its graph.
  const [step, statistics, roots] = ["step", "statistics", "roots"].map((kind) => median(times[kind].slice(1)));
  const average =
    statistics === undefined
      ? step
      : step + (statistics - step) / INTERVALS.statistics + (roots - statistics) / INTERVALS.roots;
  const loss = losses.slice(-10).reduce((sum, one) => sum + one, 0) / 10;
  return { name, step, statistics, roots, average, loss };
});
const shown = (value) => (value === undefined ? "" : value.toFixed(0));
process.stdout.write(
  `${formatTable(
    ["optimizer, blocks", "step ms", "with statistics", "with roots too", "average", "of Adam's", "loss"],
    results.map(({ name, step, statistics, roots, average, loss }) => [
      ...[name, shown(step), shown(statistics), shown(roots), shown(average)],
      ...[(average / results[0].average).toFixed(2), loss.toFixed(1)],
    ]),
  )}\n`,
);
for (const { stepper } of contestants) await stepper.release();
