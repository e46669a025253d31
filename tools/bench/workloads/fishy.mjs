/** Fishy as a contestant: `fishy.mjs FOLDER MODE THREADS`, MODE as in set-up.mjs; a kind of step is one of the schedule. */
import { readFileSync } from "node:fs";
import { Stepper } from "../../../dist/training/stepper.js";
import { now, serve } from "../peers/protocol.mjs";
import { setUp } from "./set-up.mjs";

const [folder, mode, threads] = process.argv.slice(2);
const before = process.memoryUsage().rss;
const { batch, optimizer, ...rest } = await setUp(folder, mode);
const stepper = await Stepper.create({ ...rest, optimizer, threads: Number(threads) });

/** A step of each kind; the first step that has it, once the optimizer preconditions. */
const kinds = new Map();
for (let step = 11; step < 60; step++) {
  const { statistics, roots } = optimizer.schedule(step);
  const kind = roots ? "roots" : statistics ? "statistics" : "step";
  if (!kinds.has(kind)) kinds.set(kind, step);
}
let loss;
// Roots first, so that the other steps precondition.
for (const step of [...kinds.values()].reverse()) loss ??= (await stepper.step(step, batch)).loss;

serve(
  {
    loss,
    version: `fishy, onnxruntime-node ${JSON.parse(readFileSync(new URL("../../../node_modules/onnxruntime-node/package.json", import.meta.url), "utf8")).version}`,
    kinds: [...kinds.keys()],
    before,
  },
  async (repeat) => {
    const times = Object.fromEntries([...kinds.keys()].map((kind) => [kind, []]));
    for (const [kind, step] of kinds) {
      for (let i = 0; i < (kind === "roots" ? 1 : repeat); i++) {
        const start = now();
        await stepper.step(step, batch);
        times[kind].push(now() - start);
      }
    }
    return times;
  },
);
