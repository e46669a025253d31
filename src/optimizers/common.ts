/** What every optimizer shares: the learning rate with its schedule, and zero-initialised state. */
import { z } from "zod";
import type { GraphBuilder } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import { elementCount } from "../onnx/tensor.js";
import type { ParameterSpec, StateSpec } from "./optimizer.js";
import { number } from "./options.js";
import { scheduleOptions } from "./schedules.js";

const group = z.strictObject({
  parameters: z
    .union([z.string(), z.array(z.string()).min(1)], { error: "must be a pattern or a list of patterns" })
    .describe("Names of parameters, in which * stands for any characters."),
  frozen: z.boolean().default(false).describe("Whether these parameters never change."),
  options: z
    .record(z.string(), z.unknown())
    .default({})
    .describe("Options that differ from the optimizer's own; with `name`, another optimizer with its own defaults."),
});

/** Options of every optimizer. */
export function sharedOptions(learningRate: number) {
  return {
    learningRate: number({ min: 0 }).default(learningRate).describe("The learning rate; the schedule multiplies it."),
    schedule: scheduleOptions
      .default({ kind: "constant", warmup: 0 })
      .describe("How the learning rate changes with the step."),
    maxGradientNorm: number({ min: 0, openMin: true })
      .optional()
      .describe(
        "g ← g·min(1, maxGradientNorm/(‖g‖ + 10⁻⁶)), ‖g‖ over all parameters, as PyTorch's clip_grad_norm_ has it. Sampled gradients are left alone.",
      ),
    averageDecay: number({ min: 0, max: 1, openMax: true })
      .optional()
      .describe(
        "Keeps an average of the parameters: ā ← ā + w(θ − ā), w = 1 − min(averageDecay, (t − 1)/t), a plain mean until it is as slow as the decay (Polyak and Juditsky 1992). --averaged evaluates and exports it.",
      ),
    groups: z.array(group).optional().describe("Parameters with options of their own; the first that matches counts."),
  };
}

export const weightDecay = number({ min: 0 });

const DECAYS = {
  l2: "l2: wd·θ is added to the gradient",
  decoupled: "decoupled: θ ← (1 − lr·wd)θ (PyTorch's AdamW)",
  independent: "independent: θ ← (1 − s·wd)θ, s the schedule's multiplier alone (Loshchilov and Hutter 2019)",
};
type DecayKind = keyof typeof DECAYS;

/** The `weightDecayKind` of a first-order optimizer, the first being the default. */
export function decayKinds<K extends DecayKind>(first: K, ...others: K[]) {
  const kinds: [K, ...K[]] = [first, ...others];
  const fallback: DecayKind = first;
  return z
    .enum(kinds)
    .default(fallback as never)
    .describe(`${kinds.map((kind) => DECAYS[kind]).join(". ")}.`);
}

/** What decoupled and independent weight decay multiply θ by. @param multiplier the schedule's. */
export function decayFactor(
  options: { learningRate: number; weightDecay: number; weightDecayKind: DecayKind },
  multiplier: number,
): number {
  const { learningRate, weightDecay: rate, weightDecayKind: kind } = options;
  return 1 - (kind === "independent" ? multiplier : multiplier * learningRate) * rate;
}

/** State of a parameter's shape that starts at zero. */
export function zeros(parameter: ParameterSpec, name: string): StateSpec {
  return {
    name: `${parameter.name}/${name}`,
    type: DataType.FLOAT,
    dims: parameter.dims,
    init: () => new Float32Array(elementCount(parameter.dims)),
  };
}

/** decay · average + weight · value; a weight or decay of 1 costs nothing. */
export function accumulate(b: GraphBuilder, average: string, value: string, decay: number, weight: number): string {
  return b.add(scale(b, average, decay), scale(b, value, weight));
}

/** average + weight · (value − average), the weight a fed scalar. */
export function accumulateBy(b: GraphBuilder, average: string, value: string, weight: string): string {
  return b.add(average, b.mul(b.sub(value, average), weight));
}

export function scale(b: GraphBuilder, x: string, factor: number): string {
  return factor === 1 ? x : b.mul(x, b.f32(factor));
}

export function square(b: GraphBuilder, x: string): string {
  return b.mul(x, x);
}

/** x + weight · parameter, the weight a fed scalar. */
export function addWeighted(b: GraphBuilder, x: string, parameter: string, weight: string): string {
  return b.add(x, b.mul(parameter, weight));
}
