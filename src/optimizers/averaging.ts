/** A running average of the parameters beside the optimizer, for evaluation (Polyak and Juditsky 1992). */
import { accumulateBy, zeros } from "./common.js";
import type { Optimizer } from "./optimizer.js";

/** The state with a parameter's average. */
export function averageState(parameter: string): string {
  return `${parameter}/average`;
}

/**
 * Keeps `<parameter>/average`: a plain mean of the parameters after each step until that is as slow as `decay`, then
 * decay·average + (1 − decay)·θ. So it needs no correction and no start value. `optimizer.averages` says where it is.
 */
export function withAveraging(optimizer: Optimizer, decay: number): Optimizer {
  return {
    ...optimizer,
    state: [...optimizer.state, ...optimizer.parameters.map((parameter) => zeros(parameter, "average"))],
    averages: new Map(optimizer.parameters.map(({ name }) => [name, averageState(name)])),
    hyperparameters: (step) => ({
      ...optimizer.hyperparameters(step),
      average_weight: 1 - Math.min(decay, (step - 1) / step),
    }),
    emitUpdate(b, values) {
      const result = optimizer.emitUpdate(b, values);
      const state = new Map(result.state);
      for (const { name } of optimizer.parameters) {
        b.scope(name, () => {
          const parameter = result.parameters.get(name) ?? values.parameter(name);
          const average = accumulateBy(
            b,
            values.state(averageState(name)),
            parameter,
            values.hyperparameter("average_weight"),
          );
          state.set(averageState(name), average);
        });
      }
      return { ...result, state };
    },
  };
}
