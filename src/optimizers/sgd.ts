/**
 * Stochastic gradient descent with momentum, as PyTorch computes it (Sutskever et al. 2013, with the learning rate
 * outside the buffer):
 *
 *     g ← g + wd·θ      u ← μ u + (1 − dampening) g  (u = g at the first step)
 *     θ ← θ − lr · (g + μ u if Nesterov, else u)
 */
import { z } from "zod";
import { addWeighted, learningRateOf, scale, sharedOptions, weightDecay, zeros } from "./common.js";
import type { Optimizer, ParameterSpec } from "./optimizer.js";
import { number, option } from "./options.js";
import type { RunLength } from "./schedules.js";

export const sgdOptions = z
  .strictObject({
    name: z.literal("sgd"),
    ...sharedOptions(1e-2),
    momentum: option(number({ min: 0, max: 1, openMax: true }), 0, "μ; 0 keeps no buffer."),
    dampening: option(number({ min: 0, max: 1, openMax: true }), 0, "Lowers the weight of the gradient in the buffer."),
    nesterov: z.boolean().default(false).describe("Looks ahead along the buffer; needs momentum and no dampening."),
    weightDecay: option(weightDecay, 0, "Coupled (L2): weightDecay·θ is added to the gradient."),
  })
  .refine((options) => !options.nesterov || (options.momentum > 0 && options.dampening === 0), {
    path: ["nesterov"],
    error: "must be false unless momentum is above 0 and dampening is 0",
  });

/** SGD. State: `<parameter>/momentum_buffer` of the parameter's shape when there is momentum. */
export function createSgd(
  options: z.output<typeof sgdOptions>,
  parameters: readonly ParameterSpec[],
  run: RunLength = {},
): Optimizer {
  const { momentum, dampening, nesterov } = options;
  const learningRate = learningRateOf(options, run);
  return {
    name: options.name,
    parameters,
    state: momentum > 0 ? parameters.map((parameter) => zeros(parameter, "momentum_buffer")) : [],
    hyperparameters: (step) => ({
      step,
      learning_rate: learningRate(step),
      ...(options.weightDecay > 0 ? { weight_decay: options.weightDecay } : {}),
      ...(dampening > 0 ? { gradient_weight: step === 1 ? 1 : 1 - dampening } : {}),
    }),
    schedule: () => ({ statistics: false, roots: false }),
    emitUpdate(b, values) {
      const updated = new Map<string, string>();
      const state = new Map<string, string>();
      for (const { name } of parameters) {
        b.scope(name, () => {
          const parameter = values.parameter(name);
          let update = values.gradient(name);
          if (options.weightDecay > 0) {
            update = addWeighted(b, update, parameter, values.hyperparameter("weight_decay"));
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
