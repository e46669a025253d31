/** Adam, AdamW and SGD against PyTorch in float64 (tools/export/first_order.py). */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createOptimizer, type OptimizerOptions } from "../../src/optimizers/registry.js";
import { createSchedule, scheduleOptions } from "../../src/optimizers/schedules.js";
import { createArrayOptimizer } from "../../src/training/array-optimizer.js";
import { relativeError } from "../support/run.js";

interface Fixture {
  start: number[][];
  gradients: number[][][];
  runs: Record<string, { first: number[][]; last: number[][] }>;
  schedules: Record<string, number[]>;
}
const fixture = JSON.parse(
  readFileSync(join(import.meta.dirname, "../fixtures/optimizers/first_order.json"), "utf8"),
) as Fixture;

const RUNS: [string, OptimizerOptions][] = [
  ["adam", { name: "adam", learningRate: 0.01 }],
  ["adam_decay", { name: "adam", learningRate: 0.01, beta1: 0.8, beta2: 0.99, epsilon: 1e-4, weightDecay: 0.1 }],
  ["adamw", { name: "adamw", learningRate: 0.01, weightDecay: 0.1 }],
  // What the learning rate makes of a decoupled decay, an independent one is given.
  ["adamw", { name: "adamw", learningRate: 0.01, weightDecay: 0.001, weightDecayKind: "independent" }],
  ["sgd", { name: "sgd", learningRate: 0.1 }],
  ["sgd_momentum", { name: "sgd", learningRate: 0.1, momentum: 0.9 }],
  ["sgd_nesterov", { name: "sgd", learningRate: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.05 }],
  ["sgd_dampening", { name: "sgd", learningRate: 0.1, momentum: 0.9, dampening: 0.3, weightDecay: 0.05 }],
];

function start() {
  return [
    { name: "w", dims: [4, 3], data: fixture.start[0] as number[] },
    { name: "b", dims: [3], data: fixture.start[1] as number[] },
  ];
}

describe("first-order optimizers", () => {
  it.each(RUNS)("%s steps as PyTorch does", async (name, options) => {
    const optimizer = await createArrayOptimizer(options, start());
    const expected = fixture.runs[name] as { first: number[][]; last: number[][] };
    for (const [i, [w, b]] of fixture.gradients.entries()) {
      await optimizer.step({ w: w as number[], b: b as number[] });
      const reference = i === 0 ? expected.first : i === fixture.gradients.length - 1 ? expected.last : undefined;
      if (!reference) continue;
      expect(relativeError(optimizer.parameters.get("w") ?? [], reference[0] as number[])).toBeLessThan(1e-6);
      expect(relativeError(optimizer.parameters.get("b") ?? [], reference[1] as number[])).toBeLessThan(1e-6);
    }
    await optimizer.release();
  });

  it.each(["l2", "decoupled", "independent"] as const)("sgd decays weights, %s, with its schedule", async (kind) => {
    const [rate, decay, momentum] = [0.1, 0.3, 0.9];
    const schedule = { kind: "linear", totalSteps: fixture.gradients.length, warmup: 2 } as const;
    const options: OptimizerOptions = {
      ...{ name: "sgd", learningRate: rate, momentum, weightDecay: decay, weightDecayKind: kind, schedule },
    };
    const optimizer = await createArrayOptimizer(options, start());
    const multiplier = createSchedule(scheduleOptions.parse(schedule));
    const theta = [...(fixture.start[0] as number[])];
    const buffer = theta.map(() => 0);
    for (const [i, [w, b]] of fixture.gradients.entries()) {
      await optimizer.step({ w: w as number[], b: b as number[] });
      const s = multiplier(i + 1);
      const shrink = { l2: 1, decoupled: 1 - s * rate * decay, independent: 1 - s * decay }[kind];
      for (const [k, old] of theta.entries()) {
        const g = (w?.[k] as number) + (kind === "l2" ? decay * old : 0);
        buffer[k] = momentum * (buffer[k] as number) + g;
        theta[k] = shrink * old - s * rate * (buffer[k] as number);
      }
    }
    expect(relativeError(optimizer.parameters.get("w") ?? [], theta)).toBeLessThan(1e-5);
    await optimizer.release();
  });

  it("goes on from a checkpoint with the same bits", async () => {
    const options: OptimizerOptions = { name: "adamw" };
    const gradients = fixture.gradients.map(([w, b]) => ({ w: w as number[], b: b as number[] }));
    const whole = await createArrayOptimizer(options, start());
    const first = await createArrayOptimizer(options, start());
    const second = await createArrayOptimizer(options, start());
    for (const gradient of gradients) await whole.step(gradient);
    for (const gradient of gradients.slice(0, 5)) await first.step(gradient);
    second.restore(first.stepsDone, first.parameters, first.state);
    for (const gradient of gradients.slice(5)) await second.step(gradient);
    expect(second.parameters.get("w")).toEqual(whole.parameters.get("w"));
    await Promise.all([whole, first, second].map((optimizer) => optimizer.release()));
  });

  it("names the gradient that is wrong", async () => {
    const optimizer = await createArrayOptimizer({ name: "sgd" }, start());
    const b = [1, 2, 3];
    await expect(optimizer.step({ w: [1], b })).rejects.toThrow(/gradient of 'w' has 1 elements; expected 12/);
    const w = new Float32Array(12);
    w[7] = Number.NaN;
    await expect(optimizer.step({ w, b })).rejects.toThrow(/'w' is NaN at element 7/);
    expect(optimizer.stepsDone).toBe(0);
    await optimizer.release();
  });
});

describe("options", () => {
  const create = (options: unknown) => () => createOptimizer(options as OptimizerOptions, []);
  it.each([
    [{ name: "adam", beta1: 1.5 }, /'beta1' of adam must be a number in \[0, 1\); got 1\.5/],
    [{ name: "adam", learningRate: "fast" }, /'learningRate' of adam must be a number of at least 0; got "fast"/],
    [{ name: "sgd", learningRate: -1, momentum: 1 }, /learningRate.*got -1.\n.*'momentum'.*\[0, 1\); got 1\./],
    [{ name: "sgd", nesterov: true }, /'nesterov' of sgd must be false unless momentum is above 0/],
    [{ name: "sgd", momentun: 0.9 }, /sgd has no option 'momentun'. Known options: .*momentum, dampening/],
    [{ name: "adagrad2" }, /no optimizer "adagrad2". Optimizers: adam, adamw, sgd/],
    [{ name: "adam", schedule: { kind: "cosin" } }, /'schedule.kind' of adam must be .*kind: constant, linear, cosine/],
    [{ name: "adam", schedule: { kind: "cosine" } }, /cosine schedule needs its totalSteps/],
    [{ name: "adam", schedule: { kind: "constant", warmup: { epochs: 1 } } }, /warm-up in epochs needs/],
    [{ name: "adam", schedule: { kind: "step", every: { epochs: 1 } } }, /decay in epochs needs/],
    [
      { name: "adam", schedule: { kind: "step", every: 0 } },
      /'schedule.every' of adam must be .* at least 1, or \{ epochs/,
    ],
    [{ name: "adam", weightDecayKind: "independent" }, /adam has no option 'weightDecayKind'/],
    [
      { name: "adamw", weightDecayKind: "l2" },
      /'weightDecayKind' of adamw must be "decoupled", "independent"; got "l2"/,
    ],
    [{ name: "adam", schedule: { kind: "linear", totalSteps: 5, warmup: 5 } }, /5 steps in all but a warm-up of 5/],
  ])("refuses %o", (options, message) => {
    expect(create(options)).toThrow(message);
  });
});

describe("schedules", () => {
  const schedule = (options: unknown, run = {}) => createSchedule(scheduleOptions.parse(options), run);
  it.each([
    ["cosine", { kind: "cosine", totalSteps: 20 }],
    ["step", { kind: "step", every: 4, factor: 0.5 }],
    ["one_cycle", { kind: "one-cycle", totalSteps: 20 }],
    ["polynomial", { kind: "polynomial", totalSteps: 20 }],
    ["linear", { kind: "linear", totalSteps: 20, final: 0.1 }],
  ])("%s multiplies as PyTorch does", (name, options) => {
    const multiplier = schedule(options);
    const expected = fixture.schedules[name] as number[];
    for (const [i, value] of expected.entries()) expect(multiplier(i + 1)).toBeCloseTo(value, 12);
  });

  it("warms up linearly, in steps and in epochs, and then starts at 1", () => {
    const inSteps = schedule({ kind: "linear", warmup: 4 }, { totalSteps: 14 });
    expect([1, 2, 3, 4, 5, 10, 14, 99].map(inSteps)).toEqual([0.25, 0.5, 0.75, 1, 1, 0.5, 1 - 9 / 10, 0]);
    const inEpochs = schedule({ kind: "linear", warmup: { epochs: 2 } }, { totalSteps: 14, stepsPerEpoch: 2 });
    expect([1, 7, 14].map(inEpochs)).toEqual([1, 7, 14].map(inSteps));
    const every = schedule({ kind: "step", every: { epochs: 2 }, factor: 0.5 }, { stepsPerEpoch: 2.5 });
    expect([1, 5, 6, 10, 11].map(every)).toEqual([1, 1, 0.5, 0.5, 0.25]);
  });
});
