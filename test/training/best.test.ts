import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { decodeModel } from "../../src/onnx/codec.js";
import { dataOf } from "../../src/onnx/tensor.js";
import { BestFollower } from "../../src/training/best.js";
import { listCheckpoints, loadCheckpoint } from "../../src/training/checkpoint.js";
import { readMetrics } from "../../src/training/metrics.js";
import { parseRunOptions, type RunOptions } from "../../src/training/options.js";
import { type RunHooks, runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { clusters, differingTensors, handMadeProgram, temporaryFolder } from "./support.js";

const folder = temporaryFolder();
const handMade = handMadeProgram(6, 8, 4);
// Without running statistics, so that its forward pass is that of inference and can be exported.
const program = { ...handMade, manifest: { ...handMade.manifest, runningStatistics: [] } };
const data = clusters(70, 6, 4);

/** A rate at which the held-out loss goes down and up again. */
const options: RunOptions = {
  optimizer: { name: "adam", learningRate: 0.5 },
  steps: 60,
  batchSize: 16,
  heldOut: 0.3,
  seed: 4,
  evaluateEvery: 3,
  keepCheckpoints: 1,
};

async function run(name: string, extra: RunOptions, hooks: RunHooks = {}, from?: string) {
  const directory = new RunDirectory(join(folder, name));
  const all = { ...options, ...extra };
  if (!from) await directory.create({ fishy: "test", model: null, rewrite: {}, run: all }, program, undefined);
  const result = await runTraining({ program, data, options: parseRunOptions(all), directory, from }, hooks);
  return { directory, result };
}

/** The evaluations of a run: [step, held-out loss]. */
function evaluations(directory: RunDirectory): [number, number][] {
  return readMetrics(directory.metricsFile).flatMap(({ step, held_out_loss }) =>
    held_out_loss === undefined ? [] : [[step, held_out_loss]],
  );
}

/** Where a run with patience stops, by the definition: so many evaluations after the best, none better by more than delta. */
function stopOf(losses: readonly [number, number][], patience: number, delta: number) {
  let best = losses[0] as [number, number];
  let waited = 0;
  for (const [step, loss] of losses.slice(1)) {
    if (loss < best[1] - delta) {
      best = [step, loss];
      waited = 0;
    } else if (++waited === patience) return { best, stop: step };
  }
  return { best, stop: losses.at(-1)?.[0] };
}

describe("the best evaluation", () => {
  test("more is better for accuracies, less for the others; it takes more than minDelta", () => {
    const loss = new BestFollower({ metric: "loss", minDelta: 0.1, patience: 2 });
    const seen = [1, 0.95, 0.85, 0.8, 0.79].map((value, i) => loss.update(i + 1, { loss: value, examples: 1 }));
    expect(seen).toEqual([true, false, true, false, false]);
    expect(loss).toMatchObject({ best: { step: 3, value: 0.85, waited: 2 }, isOver: true });
    const accuracy = new BestFollower({ metric: "accuracy", minDelta: 0 });
    const judged = [0.5, 0.7, Number.NaN, 0.6].map((value, i) =>
      accuracy.update(i + 1, { loss: 1, accuracy: value, examples: 1 }),
    );
    expect(judged).toEqual([true, true, false, false]);
    expect(accuracy).toMatchObject({ best: { step: 2, value: 0.7 }, isOver: false });
    expect(() => accuracy.update(9, { loss: 1, examples: 1 })).toThrow(/'accuracy' is not measured.*Measured: loss/);
  });
});

describe("a run that follows its evaluations", () => {
  test("stops when its patience is over, with the best model, as often as it is resumed", async () => {
    const { directory: whole } = await run("whole", {});
    const all = evaluations(whole);
    const { best, stop } = stopOf(all, 3, 0.001);
    // The case is worth something: the best is neither the first nor the last evaluation.
    expect(best[0]).toBeGreaterThan(3);
    expect(stop).toBeLessThan(60);

    const patient = { patience: 3, minDelta: 0.001, keepBest: true };
    const { directory, result } = await run("patient", patient);
    expect(result).toMatchObject({
      steps: stop,
      outcome: "stopped early",
      best: { metric: "loss", step: best[0], value: best[1] },
    });
    expect(evaluations(directory)).toEqual(all.filter(([step]) => step <= (stop as number)));
    expect(result.heldOut?.loss).toBe(all.find(([step]) => step === stop)?.[1]);
    const names = listCheckpoints(directory.path).map((path) => path.slice(directory.path.length + 1));
    expect(names).toEqual([`checkpoint-${best[0]}`, `checkpoint-${stop}`]);
    expect(directory.bestCheckpoint()).toBe(join(directory.path, `checkpoint-${best[0]}`));
    const { state } = loadCheckpoint(directory.bestCheckpoint());
    const model = decodeModel(readFileSync(directory.modelFile));
    for (const name of ["A", "b"]) {
      const exported = model.graph.initializer.find((tensor) => tensor.name === name);
      expect(exported && dataOf(exported)).toEqual(state.model.get(name)?.data);
    }

    // Stopped between the best and the end, and resumed: the same end.
    const between = (best[0] + (stop as number)) / 2;
    let steps = 0;
    const stopped = await run("stopped", patient, {
      onStep: () => {
        steps++;
      },
      shouldStop: () => steps >= between,
    });
    expect(stopped.result.outcome).toBe("interrupted");
    expect(existsSync(stopped.directory.modelFile)).toBe(true);
    const resumed = await run("stopped", patient, {}, listCheckpoints(stopped.directory.path).at(-1));
    expect(resumed.result).toMatchObject({ steps: stop, outcome: "stopped early", best: result.best });
    expect(differingTensors(resumed.result.state, result.state)).toEqual([]);
    expect(readFileSync(resumed.directory.modelFile)).toEqual(readFileSync(directory.modelFile));
    const again = await run("stopped", patient, {}, listCheckpoints(stopped.directory.path).at(-1));
    expect(again.result).toMatchObject({ steps: stop, outcome: "stopped early", best: result.best });
  });

  test("keeps the best state in memory where there is no folder", async () => {
    const stopping = { patience: 3, minDelta: 0.001, keepBest: true };
    const { directory, result } = await run("folder", stopping);
    const { best } = result;
    // The case is worth something: the run goes on after the best evaluation.
    expect(best?.step).toBeLessThan(result.steps);
    const all = parseRunOptions({ ...options, ...stopping });
    const memory = await runTraining({ program, data, options: all });
    expect(memory.best).toEqual(best);
    const { state } = loadCheckpoint(directory.bestCheckpoint());
    expect(differingTensors(memory.state, state)).toEqual([]);
    expect(differingTensors(result.state, state)).toEqual([]);
    const newest = await runTraining({ program, data, options: parseRunOptions(options) });
    expect(differingTensors(newest.state, state)).not.toEqual([]);
  });

  test("needs something held out, and a metric that is measured", async () => {
    await expect(run("nothing", { heldOut: 0, patience: 2 })).rejects.toThrow(/patience follows the held-out/);
    expect(() => parseRunOptions({ ...options, metric: "f1" as never })).toThrow(/metric.*must be "loss", "accuracy"/);
    await expect(run("unmeasured", { metric: "perplexity", keepBest: true })).rejects.toThrow(
      /'perplexity' is not measured.*Measured: loss, accuracy/,
    );
  });
});
