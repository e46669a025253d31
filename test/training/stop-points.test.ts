/** A run that is stopped at twenty random steps, ten times by Ctrl-C and ten times by kill -9, and goes on each time. */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeAll, describe, test } from "vitest";
import { Random } from "../../src/data/random.js";
import { encodeSafetensors } from "../../src/data/safetensors.js";
import { listCheckpoints, loadCheckpoint } from "../../src/training/checkpoint.js";
import { readMetrics } from "../../src/training/metrics.js";
import { type TrainOptions, type TrainResult, train } from "../../src/training/train.js";
import { GRAPHS } from "../support/shared.js";
import { clusters, differingTensors, temporaryFolder } from "./support.js";

const STEPS = 1100;
const STOPS = 10;
const folder = temporaryFolder();
const dataFile = join(folder, "clusters.safetensors");
const register = `--import ${pathToFileURL(join(import.meta.dirname, "../support/register-typescript.mjs"))}`;
let whole: TrainResult;

/** Everything that must survive a stop: momenta, sampled statistics, roots, a schedule, the order of the data. */
function optionsOf(name: string): TrainOptions & { outDir: string } {
  return {
    model: join(GRAPHS, "pytorch/mlp_tanh/model.onnx"),
    rewrite: { loss: "softmax-cross-entropy" },
    data: dataFile,
    heldOut: 100,
    optimizer: { name: "fishy", learningRate: 0.01, schedule: { kind: "cosine", warmup: 50 }, rootInterval: 7 },
    batchSize: 50,
    evaluateEvery: 90,
    keepBest: true,
    checkpointEvery: 13,
    steps: STEPS,
    seed: 2,
    threads: 1,
    outDir: join(folder, name),
  };
}

beforeAll(async () => {
  const { columns } = clusters(600, 20, 5);
  const tensors = [...columns].map(
    ([name, { type, dims, data }]) => [name, { type, dims: [600, ...dims], data }] as const,
  );
  writeFileSync(dataFile, encodeSafetensors(new Map(tensors)));
  whole = await train({ ...optionsOf("whole"), isolate: false });
});

/** Runs the script until it has done `stop` steps, then sends the signal. @returns the outcome that it printed. */
function runUntil(name: string, stop: number, signal: NodeJS.Signals): Promise<string | undefined> {
  const script = join(import.meta.dirname, "stop-script.ts");
  const child = spawn(process.execPath, [script, JSON.stringify(optionsOf(name))], {
    env: { ...process.env, NODE_OPTIONS: register },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  let sent = false;
  child.stdout.on("data", (chunk) => {
    const before = text.length;
    text += chunk;
    const steps = text.slice(Math.max(0, before - 12)).matchAll(/step (\d+)\n/g);
    if (sent || ![...steps].some(([, step]) => Number(step) >= stop)) return;
    // Once: a second Ctrl-C would end the process without saving.
    sent = true;
    child.kill(signal);
  });
  return new Promise((resolve) => child.once("close", () => resolve(/outcome (.+)\n/.exec(text)?.[1])));
}

describe.concurrent.each(["SIGINT", "SIGKILL"] as const)("a run stopped ten times by %s", (signal) => {
  test("ends with the bits of the run that never stopped", async ({ expect }) => {
    const random = new Random(signal === "SIGINT" ? 1n : 2n);
    const points = Array.from({ length: STOPS }, () => 1 + random.below(STEPS - 300)).sort((a, b) => a - b);
    for (const point of points) {
      const outcome = await runUntil(signal, point, signal);
      expect(outcome).toBe(signal === "SIGINT" ? "interrupted" : undefined);
    }
    expect(await runUntil(signal, Number.POSITIVE_INFINITY, signal)).toBe("completed");
    const checkpoint = listCheckpoints(join(folder, signal)).at(-1) as string;
    const { state, position } = loadCheckpoint(checkpoint);
    expect(position.step).toBe(STEPS);
    expect(differingTensors(state, whole.state as typeof state)).toEqual([]);
    const records = readMetrics(join(folder, signal, "metrics.jsonl"));
    const uninterrupted = readMetrics(join(folder, "whole", "metrics.jsonl"));
    const numbers = (all: typeof records) => all.map(({ seconds: _, examples_per_second: __, ...record }) => record);
    expect(numbers(records)).toEqual(numbers(uninterrupted));
    expect(whole.best?.step).toBeGreaterThan(0);
    expect(position.best).toMatchObject(whole.best as object);
  });
});
