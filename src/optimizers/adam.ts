/**
 * Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019), as PyTorch computes them:
 *
 *     m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
 *     θ ← θ − lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
 *
 * written as lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√v + ε√(1 − β₂ᵗ)), which is the same in one pass less. Adam adds
 * wd·θ to g; AdamW multiplies θ by 1 − lr·wd first, as PyTorch does, or by 1 − s·wd, s the schedule's multiplier alone,
 * as the paper writes it (`weightDecayKind: independent`).
 *
 * Hugging Face Transformers' AdamW, and with it ONNX Runtime's `adam_mode` 1
 * (orttraining/training_ops/cpu/optimizer/adamw/adamw.cc), adds ε to the root before its correction,
 * lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√v + ε), and multiplies θ by 1 − lr·wd last.
 */
import { z } from "zod";
import type { GraphBuilder } from "../onnx/builder.js";
import {
  accumulate,
  addWeighted,
  decayFactor,
  decayKinds,
  sharedOptions,
  square,
  weightDecay,
  zeros,
} from "./common.js";
import type { Optimizer, ParameterSpec, StepResult, StepValues } from "./optimizer.js";
import { number, option } from "./options.js";
import { createSchedule, type RunLength } from "./schedules.js";

function adamShape(decay: number) {
  return {
    ...sharedOptions(1e-3),
    beta1: option(number({ min: 0, max: 1, openMax: true }), 0.9, "Decay of the first moment."),
    beta2: option(number({ min: 0, max: 1, openMax: true }), 0.999, "Decay of the second moment."),
    epsilon: option(number({ min: 0 }), 1e-8, "Added to the root of the second moment, after its bias correction."),
    weightDecay: weightDecay.default(decay),
  };
}

export const adamOptions = z
  .strictObject({
    name: z.literal("adam"),
    ...adamShape(0),
    weightDecay: option(weightDecay, 0, "Coupled (L2): weightDecay·θ is added to the gradient."),
  })
  .describe(
    "m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², θ ← θ − lr·(m/(1 − β₁ᵗ)) / (√(v/(1 − β₂ᵗ)) + ε), as PyTorch computes it (Kingma and Ba 2015).",
  );

export const adamwOptions = z
  .strictObject({
    name: z.literal("adamw"),
    ...adamShape(1e-2),
    weightDecay: option(weightDecay, 1e-2, "wd of weightDecayKind."),
    weightDecayKind: decayKinds("decoupled", "independent"),
    variant: z
      .enum(["pytorch", "transformers"], { error: "must be pytorch or transformers" })
      .default("pytorch")
      .describe(
        "Where epsilon and weight decay come in: as in PyTorch, or as in Hugging Face Transformers (adam_mode 1 of ONNX Runtime's training artifacts).",
      ),
  })
  .describe("Adam with weight decay beside the gradient instead of in it (Loshchilov and Hutter 2019).");

type AdamOptions = z.output<typeof adamOptions> | z.output<typeof adamwOptions>;

/** Adam or AdamW. State: `<parameter>/exp_avg` and `<parameter>/exp_avg_sq`, of the parameter's shape. */
export function createAdam(options: AdamOptions, parameters: readonly ParameterSpec[], run: RunLength = {}): Optimizer {
  const multiplier = createSchedule(options.schedule, run);
  const decoupled = options.name === "adamw";
  const transformers = options.name === "adamw" && options.variant === "transformers";
  const decays = options.weightDecay > 0;
  return {
    name: options.name,
    parameters,
    state: parameters.flatMap((parameter) => [zeros(parameter, "exp_avg"), zeros(parameter, "exp_avg_sq")]),
    hyperparameters(step) {
      const lr = options.learningRate * multiplier(step);
      const t = step + (run.momentSteps ?? 0);
      const correction = Math.sqrt(1 - options.beta2 ** t);
      return {
        step,
        learning_rate: lr,
        step_size: (lr * correction) / (1 - options.beta1 ** t),
        epsilon: transformers ? options.epsilon : options.epsilon * correction,
        ...(decays && !decoupled ? { weight_decay: options.weightDecay } : {}),
        ...(decays && options.name === "adamw" ? { decay_factor: decayFactor(options, multiplier(step)) } : {}),
      };
    },
    schedule: () => ({ statistics: false, roots: false }),
    emitUpdate(b, values) {
      const result: StepResult & { parameters: Map<string, string>; state: Map<string, string> } = {
        parameters: new Map(),
        state: new Map(),
      };
      for (const { name } of parameters) {
        b.scope(name, () => {
          let parameter = values.parameter(name);
          let gradient = values.gradient(name);
          const shrink = (x: string) => b.mul(x, values.hyperparameter("decay_factor"));
          if (decays && decoupled && !transformers) parameter = shrink(parameter);
          if (decays && !decoupled)
            gradient = addWeighted(b, gradient, parameter, values.hyperparameter("weight_decay"));
          const first = accumulate(b, values.state(`${name}/exp_avg`), gradient, options.beta1, 1 - options.beta1);
          const second = accumulate(
            b,
            values.state(`${name}/exp_avg_sq`),
            square(b, gradient),
            options.beta2,
            1 - options.beta2,
          );
          result.state.set(`${name}/exp_avg`, first).set(`${name}/exp_avg_sq`, second);
          const updated = b.sub(parameter, adamStep(b, first, second, values));
          result.parameters.set(name, decays && transformers ? shrink(updated) : updated);
        });
      }
      return result;
    },
  };
}

function adamStep(b: GraphBuilder, first: string, second: string, values: StepValues): string {
  const denominator = b.add(b.sqrt(second), values.hyperparameter("epsilon"));
  return b.mul(b.div(first, denominator), values.hyperparameter("step_size"));
}
