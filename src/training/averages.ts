/** The running averages of parameters (`averageDecay`) in place of the parameters: for evaluation and export. */
import { FishyError, UsageError } from "../errors.js";
import { averageState } from "../optimizers/averaging.js";
import type { Optimizer, ParameterSpec } from "../optimizers/optimizer.js";
import type { TrainingState } from "./state.js";

/** @throws UsageError when the optimizer keeps none. */
export function requireAverages(optimizer: Optimizer): ReadonlyMap<string, string> {
  if (optimizer.averages) return optimizer.averages;
  throw new UsageError(
    `${optimizer.name} keeps no averages of the parameters to evaluate (averaged). Set its averageDecay, such as 0.999.`,
  );
}

/**
 * Parameters by their averages, and running statistics as they are; what is frozen has no average and stays.
 * @param averages the optimizer's state by parameter.
 */
export function averagedModel(state: TrainingState, averages: ReadonlyMap<string, string>): TrainingState["model"] {
  const model = new Map(state.model);
  for (const [name, average] of averages) {
    const tensor = state.optimizer.get(average);
    if (tensor) model.set(name, tensor);
  }
  return model;
}

/**
 * The same, of a run's checkpoint.
 * @param source what the state was read from.
 * @throws FishyError when it holds no averages.
 */
export function averagedCheckpoint(
  state: TrainingState,
  parameters: readonly ParameterSpec[],
  source: string,
): TrainingState["model"] {
  const averages = new Map(
    parameters
      .map(({ name }) => [name, averageState(name)] as const)
      .filter(([, average]) => state.optimizer.has(average)),
  );
  if (averages.size === 0) {
    throw new FishyError(
      `The checkpoint ${source} holds no averages of the parameters: its run had no averageDecay. Leave out --averaged.`,
    );
  }
  return averagedModel(state, averages);
}
