import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { encodeSafetensors } from "../../src/data/safetensors.js";
import { decodeModel } from "../../src/onnx/codec.js";
import { listCheckpoints, loadCheckpoint } from "../../src/training/checkpoint.js";
import { readMetrics } from "../../src/training/metrics.js";
import { resume, type TrainOptions, train } from "../../src/training/train.js";
import { f32, runModel } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";
import { clusters, differingTensors, temporaryFolder } from "./support.js";

const folder = temporaryFolder();
const dataFile = join(folder, "clusters.safetensors");
const register = `--import ${pathToFileURL(join(import.meta.dirname, "../support/register-typescript.mjs"))}`;

beforeAll(() => {
  const dataset = clusters(600, 20, 5);
  writeFileSync(
    dataFile,
    encodeSafetensors(
      new Map([...dataset.columns].map(([name, { type, dims, data }]) => [name, { type, dims: [600, ...dims], data }])),
    ),
  );
  // The processes that `train` starts run the sources too.
  process.env.NODE_OPTIONS = register;
});

function optionsOf(name: string, steps: number): TrainOptions & { outDir: string } {
  return {
    model: join(GRAPHS, "pytorch/mlp_tanh/model.onnx"),
    rewrite: { loss: "softmax-cross-entropy" },
    data: dataFile,
    heldOut: 100,
    optimizer: { name: "adam", learningRate: 0.003 },
    batchSize: 50,
    evaluateEvery: 0,
    steps,
    seed: 2,
    threads: 1,
    outDir: join(folder, name),
  };
}

describe("a run in a process of its own", () => {
  test("has the bits of a run in this process, reports its steps, and exports a model", async () => {
    const steps: number[] = [];
    let total = 0;
    const apart = await train({
      ...optionsOf("apart", 25),
      onStep: ({ step }) => steps.push(step),
      onPlan: ({ totalSteps }) => {
        total = totalSteps;
      },
    });
    const here = await train({ ...optionsOf("here", 25), isolate: false });
    expect(steps).toEqual(Array.from({ length: 25 }, (_, i) => i + 1));
    expect(total).toBe(25);
    expect(apart.losses).toEqual(here.losses);
    expect(apart.heldOut).toEqual(here.heldOut);
    const { state } = loadCheckpoint(apart.checkpoint as string);
    expect(differingTensors(state, here.state as typeof state)).toEqual([]);
    expect(apart.train?.loss).toBeLessThan(apart.losses[0] as number);

    // The exported model gives the held-out accuracy: as many hits as counted during evaluation.
    const exported = decodeModel(readFileSync(apart.modelFile as string));
    const { columns } = clusters(600, 20, 5);
    const outputs = await runModel(exported, { x: f32(columns.get("x")?.data as Float32Array, [600, 20]) });
    const logits = outputs.output?.data as Float32Array;
    const labels = columns.get("labels")?.data as BigInt64Array;
    let hits = 0;
    for (let n = 0; n < 600; n++) {
      const row = [...logits.subarray(5 * n, 5 * n + 5)];
      if (row.indexOf(Math.max(...row)) === Number(labels[n])) hits++;
    }
    const counted = 500 * (apart.train?.accuracy as number) + 100 * (apart.heldOut?.accuracy as number);
    expect(hits).toBe(Math.round(counted));
  });

  test("passes errors on, with their kind", async () => {
    const bad = { ...optionsOf("bad", 5), inputs: { x: "nothing" } };
    await expect(train(bad)).rejects.toMatchObject({ name: "UsageError", message: /mapped to the column 'nothing'/ });
    const missing = { ...optionsOf("missing", 5), data: join(folder, "missing.npz") };
    await expect(train(missing)).rejects.toMatchObject({
      name: "FishyError",
      message: /no file or folder .*missing\.npz/,
    });
  });

  test("needs a folder, and data that can be written down", async () => {
    const { outDir: _, ...options } = optionsOf("", 5);
    await expect(train({ ...options, isolate: true })).rejects.toThrow(/needs a folder/);
    await expect(
      train({ ...options, data: clusters(60, 20, 5), outDir: join(folder, "x"), isolate: true }),
    ).rejects.toThrow(/data from memory cannot have a process of its own/);
  });

  test("ends at an abort signal, saved", async () => {
    const controller = new AbortController();
    const result = await train({
      ...optionsOf("aborted", 1_000_000),
      signal: controller.signal,
      onStep: () => controller.abort(),
    });
    expect(result.outcome).toBe("interrupted");
    expect(result.steps).toBeGreaterThan(0);
    expect(loadCheckpoint(result.checkpoint as string).position.step).toBe(result.steps);
  });
});

interface Script {
  readonly process: ChildProcess;
  /** Waits for a line of the output. */
  line(pattern: RegExp): Promise<RegExpExecArray>;
  readonly exit: Promise<{ code: number | null; signal: string | null }>;
}

function start(options: Partial<TrainOptions> & { from?: string }): Script {
  const script = join(import.meta.dirname, "train-script.ts");
  const child = spawn(process.execPath, [script, JSON.stringify(options)], {
    env: { ...process.env, NODE_OPTIONS: register },
    stdio: ["ignore", "pipe", "inherit"],
    // A group of its own, as a shell gives it.
    detached: true,
  });
  let text = "";
  const waiting = new Set<() => void>();
  child.stdout.on("data", (chunk) => {
    text += chunk;
    for (const check of waiting) check();
  });
  return {
    process: child,
    line: (pattern) =>
      new Promise((resolve, reject) => {
        const check = () => {
          const match = pattern.exec(text);
          if (!match) return;
          waiting.delete(check);
          resolve(match);
        };
        waiting.add(check);
        child.once("close", () =>
          setImmediate(() => reject(new Error(`ended without ${pattern}: ${text.slice(-500)}`))),
        );
        check();
      }),
    exit: new Promise((resolve) => child.once("close", (code, signal) => resolve({ code, signal }))),
  };
}

describe.concurrent("Ctrl-C", () => {
  test("ends the step, saves, exits with 130; the run goes on bit for bit", async ({ expect }) => {
    const steps = 3000;
    const script = start(optionsOf("interrupted", steps));
    await script.line(/step 20\n/);
    // The whole group, as a terminal does it.
    process.kill(-(script.process.pid as number), "SIGINT");
    const [, json] = await script.line(/result (.*)\n/);
    expect(await script.exit).toEqual({ code: 130, signal: null });
    const result = JSON.parse(json as string);
    expect(result.outcome).toBe("interrupted");
    expect(result.steps).toBeLessThan(steps);
    expect(loadCheckpoint(result.checkpoint).position.step).toBe(result.steps);
    expect(readMetrics(join(folder, "interrupted", "metrics.jsonl"))).toHaveLength(result.steps);
    const { output } = await runModel(decodeModel(readFileSync(result.modelFile)), {
      x: f32(new Float32Array(20), [1, 20]),
    });
    expect(output?.dims).toEqual([1, 5]);

    const whole = await train({ ...optionsOf("uninterrupted", steps), isolate: false });
    const resumed = await resume(join(folder, "interrupted"));
    expect(resumed).toMatchObject({ outcome: "completed", steps });
    const { state } = loadCheckpoint(resumed.checkpoint as string);
    expect(differingTensors(state, whole.state as typeof state)).toEqual([]);
    const losses = readMetrics(join(folder, "interrupted", "metrics.jsonl")).map(({ loss }) => loss);
    expect(losses).toEqual(whole.losses);
  });

  test("a second signal ends at once with 130", async ({ expect }) => {
    const script = start(optionsOf("twice", 1_000_000));
    await script.line(/step 20\n/);
    // Two of one kind could arrive as one.
    script.process.kill("SIGINT");
    script.process.kill("SIGTERM");
    await script.line(/error Interrupted\./);
    expect((await script.exit).code).toBe(130);
    expect(existsSync(join(folder, "twice", "result.json"))).toBe(false);
  });

  test("a parent that is killed leaves a saved run", async ({ expect }) => {
    const script = start(optionsOf("orphaned", 1_000_000));
    await script.line(/step 20\n/);
    script.process.kill("SIGKILL");
    await script.exit;
    const result = join(folder, "orphaned", "result.json");
    for (let waited = 0; waited < 30_000 && !existsSync(result); waited += 50) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(JSON.parse(readFileSync(result, "utf8")).outcome).toBe("interrupted");
    expect(() => loadCheckpoint(listCheckpoints(join(folder, "orphaned")).at(-1) as string)).not.toThrow();
  });
});
