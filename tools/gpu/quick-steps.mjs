/**
 * The short form of steps.mjs: each kind of single step by itself, put together by the schedule, and what moving tensors
 * costs at K steps a run. Loops are run where one run takes less than `LOOP_MS`; elsewhere a step in a loop is taken for a
 * single one and its share of the moving.
 */
import { freemem } from "node:os";
import { createEngine } from "../../dist/training/engines.js";
import { LoopedStepper } from "../../dist/training/looped-stepper.js";

/** Statistics every 10 steps, roots every 20. */
const CYCLE = { step: 18, statistics: 1, roots: 1 };
const REPEAT = { step: 5, statistics: 3, roots: 1 };
const LOOP_MS = 20_000;
const WARM_MS = 1000;
/** Optimizers whose loops are run: the others' loop the same way, and take a cycle of 20 steps. */
const LOOPED = new Set(["gradients", "adam"]);

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

/** @param common.now milliseconds of the clock. @param idleRun makes, for an engine and a count, a function that measures the moving of tensors for a step. */
export async function quickSteps({ batch, mode, counts, now, ...common }, idleRun) {
  const single = await createEngine({ ...common, stepsPerRun: 1, totalSteps: 1e6 });
  const { kinds, milliseconds } = await singleSteps(single, common.optimizer, batch, now);
  await single.release();
  const contestants = [{ name: "single", stepsPerRun: 1, milliseconds, ratio: 1, kinds, sameLosses: true }];
  const bytes = common.inputs.reduce((sum, { type, dims }) => {
    return sum + common.batchSize * dims.reduce((a, b) => a * b, type === 7 ? 8 : 4);
  }, 0);
  // The batches lie in memory twice, in the engine and in the graph that only moves them.
  const fitting = counts.filter((count) => 2 * count * bytes < freemem() / 2);
  const most = Math.max(...fitting, 0);
  if (most > 0) {
    const engine = await LoopedStepper.create({ ...common, stepsPerRun: most, totalSteps: 1e6 });
    for (let slot = 0; slot < most; slot++) engine.fill(slot, batch);
    if (LOOPED.has(mode)) await engine.run(1, 1);
    let first = 2;
    for (const count of fitting) {
      const idle = await idleRun(engine, count);
      const moved = median([await idle(), await idle(), await idle()]);
      const isRun = LOOPED.has(mode) && count * milliseconds < LOOP_MS;
      let time = milliseconds + moved;
      if (isRun) {
        // The first run of so many steps still finds its memory.
        if (count * milliseconds < WARM_MS) await engine.run(first, count);
        const start = now();
        await engine.run(first, count);
        time = (now() - start) / count;
        first += count;
      }
      contestants.push({
        ...{ name: `loop of ${count}`, stepsPerRun: count, milliseconds: time, isRun, ratio: time / milliseconds },
        ...{ moved, share: moved / time },
      });
    }
    await engine.release?.();
  }
  const left = counts.filter((count) => !fitting.includes(count));
  return {
    ...{ work: common.work.name, mode, device: common.device.kind, threads: common.threads, rounds: 1 },
    ...{ contestants, ...(left.length > 0 && { tooLarge: left }) },
  };
}

async function singleSteps(engine, optimizer, batch, now) {
  const steps = new Map();
  for (let step = 11; step < 60; step++) {
    const { statistics, roots } = optimizer.schedule(step);
    const kind = roots ? "roots" : statistics ? "statistics" : "step";
    if (!steps.has(kind)) steps.set(kind, step);
  }
  engine.fill(0, batch);
  const kinds = {};
  // Roots first, so that the other steps precondition; the first of a kind loads its graph.
  for (const [kind, step] of [...steps].reverse()) {
    await engine.run(step, 1);
    const times = [];
    for (let i = 0; i < REPEAT[kind]; i++) {
      const start = now();
      await engine.run(step, 1);
      times.push(now() - start);
    }
    kinds[kind] = median(times);
  }
  const counted = Object.entries(CYCLE).filter(([kind]) => kinds[kind] !== undefined);
  const total = counted.reduce((sum, [, count]) => sum + count, 0);
  return { kinds, milliseconds: counted.reduce((sum, [kind, count]) => sum + count * kinds[kind], 0) / total };
}
