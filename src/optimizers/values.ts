/** Step values with some of them replaced: how one optimizer stands in front of another. */
import type { StepValues } from "./optimizer.js";

/** `values` with `changes` on top. */
export function withChanges(values: StepValues, changes: Partial<StepValues>): StepValues {
  // Every method by name, so that the compiler misses one that is added to the contract.
  const all: Required<StepValues> = {
    parameter: (name) => values.parameter(name),
    gradient: (name) => values.gradient(name),
    statisticsGradient: (name) => values.statisticsGradient(name),
    statisticsTerms: (name) => values.statisticsTerms?.(name),
    state: (name) => values.state(name),
    hyperparameter: (name) => values.hyperparameter(name),
    target: values.target,
  };
  return { ...all, ...changes };
}
