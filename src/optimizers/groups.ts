/** Parameter groups: optimizers with different options side by side, as one optimizer. */
import { UsageError } from "../errors.js";
import type { Optimizer, ParameterSpec, RootValues, StepResult, StepValues } from "./optimizer.js";
import { withChanges } from "./values.js";

/** Whether a name matches a pattern in which `*` stands for any characters. */
export function matches(pattern: string, name: string): boolean {
  const parts = pattern.split("*").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(name);
}

/**
 * Sorts parameters into groups: each into the first whose patterns match its name, the rest into the last of the result.
 * @throws UsageError when a group gets none.
 */
export function assignGroups(
  parameters: readonly ParameterSpec[],
  groups: readonly { readonly parameters: string | readonly string[] }[],
): ParameterSpec[][] {
  const patterns = groups.map((group) => [group.parameters].flat());
  const result: ParameterSpec[][] = Array.from({ length: groups.length + 1 }, () => []);
  for (const parameter of parameters) {
    const found = patterns.findIndex((list) => list.some((pattern) => matches(pattern, parameter.name)));
    (result[found < 0 ? groups.length : found] as ParameterSpec[]).push(parameter);
  }
  for (const [i, list] of patterns.entries()) {
    if (result[i]?.length === 0) {
      throw new UsageError(
        `The parameter group ${list.map((pattern) => `'${pattern}'`).join(", ")} matches no parameter that is left. ` +
          `Parameters: ${parameters.map((parameter) => parameter.name).join(", ")}.`,
      );
    }
  }
  return result;
}

/** Steps for which schedules are compared. */
const COMPARED_STEPS = 5000;

/**
 * One optimizer out of several with parameters of their own. Hyperparameters and metrics of the second and later ones
 * begin with `group<i>/`, and so does state that does not belong to a parameter.
 * @throws UsageError when two of them want statistics or roots at different steps, or from different gradients.
 */
export function combine(name: string, members: readonly Optimizer[]): Optimizer {
  if (members.length === 1) return members[0] as Optimizer;
  const withStatistics = members.filter((member) => member.emitStatistics);
  checkAlike(withStatistics);
  const leader = withStatistics[0];
  const parameterNames = members.map((member) => new Set(member.parameters.map((parameter) => parameter.name)));
  const prefix = (i: number, key: string) => (i === 0 ? key : `group${i}/${key}`);
  const stateName = (i: number, key: string) =>
    [...(parameterNames[i] as Set<string>)].some((parameter) => key.startsWith(`${parameter}/`)) ? key : prefix(i, key);
  const own = (i: number, values: RootValues): RootValues => ({
    state: (key) => values.state(stateName(i, key)),
    hyperparameter: (key) => values.hyperparameter(prefix(i, key)),
    target: values.target,
  });
  const view = (i: number, values: StepValues) => withChanges(values, own(i, values));
  const gather = (emit: (member: Optimizer, i: number) => StepResult | undefined): StepResult => {
    const results = members.map(emit);
    const merged = (pick: (result: StepResult) => ReadonlyMap<string, string> | undefined, rename: typeof prefix) =>
      new Map(
        results.flatMap((result, i) =>
          [...((result && pick(result)) ?? [])].map(([key, value]): [string, string] => [rename(i, key), value]),
        ),
      );
    return {
      parameters: merged(
        (result) => result.parameters,
        (_, key) => key,
      ),
      state: merged((result) => result.state, stateName),
      metrics: merged((result) => result.metrics, prefix),
      blockMetrics: merged((result) => result.blockMetrics, prefix),
    };
  };
  return {
    name,
    parameters: members.flatMap((member) => member.parameters),
    state: members.flatMap((member, i) =>
      member.state.map((state) => ({ ...state, name: stateName(i, state.name), init: () => state.init() })),
    ),
    hyperparameters: (step) => ({
      step,
      learning_rate: 0,
      ...Object.fromEntries(
        members.flatMap((member, i) =>
          Object.entries(member.hyperparameters(step)).map(([key, value]) => [prefix(i, key), value]),
        ),
      ),
    }),
    schedule: (step) => leader?.schedule(step) ?? { statistics: false, roots: false },
    emitUpdate: (b, values) => gather((member, i) => member.emitUpdate(b, view(i, values))),
    ...(leader && {
      ...(leader.statisticsSource && { statisticsSource: leader.statisticsSource }),
      blocks: new Map(
        members.flatMap((member, i) =>
          [...(member.blocks ?? [])].map(([key, names]): [string, readonly string[]] => [prefix(i, key), names]),
        ),
      ),
      emitStatistics: (b, values) => gather((member, i) => member.emitStatistics?.(b, view(i, values))),
      emitRoots: (b, values) => gather((member, i) => member.emitRoots?.(b, own(i, values))),
    }),
  };
}

function checkAlike(members: readonly Optimizer[]): void {
  const [first, ...others] = members;
  for (const other of first ? others : []) {
    if (other.statisticsSource !== first?.statisticsSource) {
      throw new UsageError(
        `Parameter groups cannot mix ${first?.name} and ${other.name}: one takes its statistics from the true gradient, the other from sampled ones.`,
      );
    }
    for (let step = 1; step <= COMPARED_STEPS; step++) {
      const [a, b] = [first?.schedule(step), other.schedule(step)];
      if (a?.statistics !== b.statistics || a?.roots !== b.roots) {
        throw new UsageError(
          `Parameter groups with statistics must update them and refresh roots at the same steps; they differ at step ${step}. ` +
            "Give all groups the same statisticsInterval, rootInterval, rootSchedule and startStep.",
        );
      }
    }
  }
}
