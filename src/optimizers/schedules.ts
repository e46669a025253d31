/**
 * Learning-rate schedules: pure functions of the step, so a schedule never rebuilds a graph. `step` counts from 1. The
 * first step after the warm-up has the full learning rate, as PyTorch's schedulers have it when `scheduler.step()`
 * follows `optimizer.step()`.
 */
import { z } from "zod";
import { UsageError } from "../errors.js";
import { number, option } from "./options.js";

const duration = z
  .union([number({ min: 0, integer: true }), z.strictObject({ epochs: number({ min: 0 }) })], {
    error: "must be a number of steps of at least 0, or { epochs: number }",
  })
  .default(0)
  .describe("Linear warm-up, in steps or as { epochs }: the multiplier is step / warmup up to step = warmup.");

const total = number({ min: 1, integer: true })
  .optional()
  .describe("Steps of the whole run with its warm-up; the number of steps being trained when left out.");

const final = option(number({ min: 0, max: 1 }), 0, "The multiplier at the end of the decay.");

export const scheduleOptions = z.discriminatedUnion(
  "kind",
  [
    z.strictObject({ kind: z.literal("constant"), warmup: duration }).describe("1 after the warm-up."),
    z
      .strictObject({ kind: z.literal("linear"), warmup: duration, totalSteps: total, final })
      .describe("1 − (1 − final)·t, t from 0 to 1 over the steps after the warm-up."),
    z
      .strictObject({ kind: z.literal("cosine"), warmup: duration, totalSteps: total, final })
      .describe("final + (1 − final)·(1 + cos πt)/2 (Loshchilov and Hutter 2017, without restarts)."),
    z
      .strictObject({
        kind: z.literal("polynomial"),
        warmup: duration,
        totalSteps: total,
        final,
        power: option(number({ min: 0, openMin: true }), 2, "The exponent; 1 is linear."),
      })
      .describe("final + (1 − final)·(1 − t)^power."),
    z
      .strictObject({
        kind: z.literal("step"),
        warmup: duration,
        every: z
          .union([number({ min: 1, integer: true }), z.strictObject({ epochs: number({ min: 0, openMin: true }) })], {
            error: "must be a number of steps of at least 1, or { epochs: number }",
          })
          .describe("Between two decays: steps, or { epochs }."),
        factor: option(number({ min: 0, max: 1, openMin: true }), 0.1, "What each decay multiplies by."),
      })
      .describe("factor^⌊steps after the warm-up / every⌋ (PyTorch's StepLR)."),
    z
      .strictObject({
        kind: z.literal("one-cycle"),
        totalSteps: total,
        warmupFraction: option(number({ min: 0, max: 1, openMax: true }), 0.3, "The share of steps that rises."),
        initial: option(number({ min: 0, max: 1, openMin: true }), 1 / 25, "The first multiplier."),
        final: option(number({ min: 0, max: 1 }), 1 / 250_000, "The last multiplier."),
      })
      .describe("Cosine from initial to 1 and down to final (Smith and Topin 2018; PyTorch's OneCycleLR)."),
  ],
  { error: "must be an object with kind: constant, linear, cosine, polynomial, step or one-cycle" },
);

export type ScheduleOptions = z.input<typeof scheduleOptions>;

/** The multiplier of the learning rate at a step. */
export type Schedule = (step: number) => number;

/** What a schedule needs to know about the run. */
export interface RunLength {
  /** Steps that will be run. */
  readonly totalSteps?: number | undefined;
  readonly stepsPerEpoch?: number | undefined;
  /** Steps of the moments that the run starts from (default 0): bias corrections count them, the schedule does not. */
  readonly momentSteps?: number | undefined;
}

/** @throws UsageError when the schedule needs a length that neither its options nor `run` give. */
export function createSchedule(options: z.output<typeof scheduleOptions>, run: RunLength = {}): Schedule {
  if (options.kind === "one-cycle") return oneCycle(options, totalOf(options, run));
  const warmup = stepsOf(options.warmup, run, "A warm-up");
  const decay = decayOf(options, warmup, run);
  return (step) => (step <= warmup ? step / warmup : decay(step - 1 - warmup));
}

/** The multiplier after `elapsed` steps since the warm-up. */
function decayOf(
  options: Exclude<z.output<typeof scheduleOptions>, { kind: "one-cycle" }>,
  warmup: number,
  run: RunLength,
): (elapsed: number) => number {
  if (options.kind === "constant") return () => 1;
  if (options.kind === "step") {
    const every = Math.max(1, stepsOf(options.every, run, "A decay"));
    return (elapsed) => options.factor ** Math.floor(elapsed / every);
  }
  const length = totalOf(options, run) - warmup;
  if (length <= 0) {
    throw new UsageError(
      `The ${options.kind} schedule has ${length + warmup} steps in all but a warm-up of ${warmup}; the warm-up must be shorter.`,
    );
  }
  const shape = {
    linear: (t: number) => 1 - t,
    cosine: (t: number) => (1 + Math.cos(Math.PI * t)) / 2,
    polynomial: (t: number) => (1 - t) ** (options.kind === "polynomial" ? options.power : 1),
  }[options.kind];
  return (elapsed) => options.final + (1 - options.final) * shape(Math.min(1, elapsed / length));
}

function oneCycle(
  options: Extract<z.output<typeof scheduleOptions>, { kind: "one-cycle" }>,
  totalSteps: number,
): Schedule {
  const peak = options.warmupFraction * totalSteps - 1;
  const end = totalSteps - 1;
  const between = (from: number, to: number, t: number) => to + ((from - to) * (1 + Math.cos(Math.PI * t))) / 2;
  return (step) => {
    const position = Math.min(step - 1, end);
    if (position <= peak) return between(options.initial, 1, peak > 0 ? position / peak : 1);
    return between(1, options.final, end > peak ? (position - peak) / (end - peak) : 1);
  };
}

function totalOf(options: { kind: string; totalSteps?: number | undefined }, run: RunLength): number {
  const steps = options.totalSteps ?? run.totalSteps;
  if (steps === undefined) {
    throw new UsageError(`The ${options.kind} schedule needs its totalSteps: the number of steps of the whole run.`);
  }
  return steps;
}

function stepsOf(duration: number | { epochs: number }, run: RunLength, what: string): number {
  if (typeof duration === "number") return duration;
  if (run.stepsPerEpoch === undefined) {
    throw new UsageError(`${what} in epochs needs the number of steps in an epoch; give it in steps.`);
  }
  return Math.round(duration.epochs * run.stepsPerEpoch);
}
