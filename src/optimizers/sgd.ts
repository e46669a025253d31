/**
 * Stochastic gradient descent with momentum, as PyTorch computes it (Sutskever et al. 2013, with the learning rate
 * outside the buffer):
 *
 *     g ← g + wd·θ      u ← μ u + (1 − dampening) g  (u = g at the first step)
 *     θ ← θ − lr · (g + μ u if Nesterov, else u)
 *
 * Weight decay that is decoupled or independent multiplies θ first instead (SGDW, Loshchilov and Hutter 2019).
 */
import { z } from "zod";
import { addWeighted, decayFactor, decayKinds, scale, sharedOptions, weightDecay, zeros } from "./common.js";
import type { Optimizer, ParameterSpec } from "./optimizer.js";
import { number, option } from "./options.js";
import { createSchedule, type RunLength } from "./schedules.js";

export const sgdOptions = z
  .strictObject({
    name: z.literal("sgd"),
    ...sharedOptions(1e-2),
    momentum: option(number({ min: 0, max: 1, openMax: true }), 0, "μ; 0 keeps no buffer."),
    dampening: option(number({ min: 0, max: 1, openMax: true }), 0, "Lowers the weight of the gradient in the buffer."),
    nesterov: z.boolean().default(false).describe("Looks ahead along the buffer; needs momentum and no dampening."),
    weightDecay: option(weightDecay, 0, "wd of weightDecayKind."),
    weightDecayKind: decayKinds("l2", "decoupled", "independent"),
  })
  .refine((options) => !options.nesterov || (options.momentum > 0 && options.dampening === 0), {
    path: ["nesterov"],
    error: "must be false unless momentum is above 0 and dampening is 0",
  })
  .describe(
    "u ← μu + (1 − dampening)g (u = g at first), θ ← θ − lr·u, or lr·(g + μu) with Nesterov, as PyTorch computes it (Sutskever et al. 2013).",
  );

/** SGD. State: `<parameter>/momentum_buffer` of the parameter's shape when there is momentum. */
export function createSgd(
  options: z.output<typeof sgdOptions>,
  parameters: readonly ParameterSpec[],
  run: RunLength = {},
): Optimizer {
  const { momentum, dampening, nesterov } = options;
  const multiplier = createSchedule(options.schedule, run);
  const decays = options.weightDecay > 0;
  const isCoupled = options.weightDecayKind === "l2";
  return {
    name: options.name,
    parameters,
    state: momentum > 0 ? parameters.map((parameter) => zeros(parameter, "momentum_buffer")) : [],
    hyperparameters: (step) => ({
      step,
      learning_rate: options.learningRate * multiplier(step),
      ...(decays && isCoupled ? { weight_decay: options.weightDecay } : {}),
      ...(decays && !isCoupled ? { decay_factor: decayFactor(options, multiplier(step)) } : {}),
      ...(dampening > 0 ? { gradient_weight: step === 1 ? 1 : 1 - dampening } : {}),
    }),
    schedule: () => ({ statistics: false, roots: false }),
    emitUpdate(b, values) {
      const updated = new Map<string, string>();
      const state = new Map<string, string>();
      for (const { name } of parameters) {
        b.scope(name, () => {
          let parameter = values.parameter(name);
          let update = values.gradient(name);
          if (decays && isCoupled) {
            update = addWeighted(b, update, parameter, values.hyperparameter("weight_decay"));
          } else if (decays) {
            parameter = b.mul(parameter, values.hyperparameter("decay_factor"));
          }
          if (momentum > 0) {
            const weighted = dampening > 0 ? b.mul(update, values.hyperparameter("gradient_weight")) : update;
            const buffer = b.add(scale(b, values.state(`${name}/momentum_buffer`), momentum), weighted);
            state.set(`${name}/momentum_buffer`, buffer);
            update = nesterov ? b.add(update, scale(b, buffer, momentum)) : buffer;
          }
          updated.set(name, b.sub(parameter, b.mul(update, values.hyperparameter("learning_rate"))));
        });
      }
      return { parameters: updated, state };
    },
  };
}
