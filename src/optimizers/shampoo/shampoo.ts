/**
 * Shampoo, FIM Shampoo and Fishy. For a matrix with gradient G and statistics gradient Ĝ (the true one for Shampoo):
 *
 *     L ← β₂L + (1 − β₂)ĜĜᵀ        R ← β₂R + (1 − β₂)ĜᵀĜ        U = L^(−1/p) · G · R^(−1/p)
 *
 * then grafting, weight decay and momentum in Google's order (`momentumOrder: after`), or momentum of G first, in
 * Meta's. A step is: statistics, roots, update; each part is a graph of its own, so that each can have its interval.
 */
import type { GraphBuilder } from "../../onnx/builder.js";
import type { StatisticsTerm } from "../../sections/statistics-term.js";
import { accumulate, addWeighted, scale } from "../common.js";
import type { Optimizer, ParameterSpec, StepResult, StepValues } from "../optimizer.js";
import { createSchedule, type RunLength } from "../schedules.js";
import { emitBlocks, type Partition, type Region } from "./blocking.js";
import { emitGradientMetrics, PARAMETER_COSINE } from "./diagnostics.js";
import { emitDirections, type Prepared, scoped, weighsLater } from "./directions.js";
import { expectedRegion } from "./expected.js";
import { emitGraft, hasSecondMoment } from "./grafting.js";
import { emitMomentum, momentumCorrection, momentumWeight } from "./momentum.js";
import { rootOptionsFor } from "./newton.js";
import type { ShampooOptions } from "./options.js";
import { type ParameterPlan, planParameter, stateOf } from "./plan.js";
import { BLOCK_METRICS, blockNames, emitRoots, failureState, groupFactors } from "./roots.js";
import { statisticsUpdates, stepSchedule } from "./schedule.js";
import { emitStatistics } from "./statistics.js";

/**
 * Makes the optimizer. State: `<parameter>/momentum` and `<parameter>/graft` of the parameter's shape;
 * `<parameter>/statistics<axis>` and `<parameter>/preconditioner<axis>`, [d, d] or [blocks, d, d] (`<parameter>/region<i>/…`
 * when the blocks are of several shapes); `roots/<group>/failures`.
 */
export function createShampoo(
  options: ShampooOptions,
  parameters: readonly ParameterSpec[],
  run: RunLength = {},
): Optimizer {
  const multiplier = createSchedule(options.schedule, run);
  const plans = parameters.map((parameter) => planParameter(parameter, options));
  const preconditioned = plans.filter((plan) => plan.preconditioned);
  const groups = groupFactors(
    plans.flatMap((plan) => (plan.preconditioned?.factors ?? []).flatMap((factors) => [...factors.values()])),
  );
  const correctsStatistics = options.statisticsBiasCorrection && options.beta2 < 1;
  const source = options.name === "shampoo" ? "gradient" : "sampled";
  const active = preconditioned.length > 0;
  return {
    name: options.name,
    parameters,
    state: [...plans.flatMap((plan) => stateOf(plan, options)), ...groups.map(failureState)],
    hyperparameters: (step) => hyperparameters(options, multiplier(step), step, run.momentSteps),
    schedule: (step) => (active ? stepSchedule(options, step) : { statistics: false, roots: false }),
    emitUpdate: (b, values) => emitUpdate(b, values, plans, options),
    ...(active && {
      statisticsSource: source,
      blocks: new Map([
        ...groups.flatMap((group) =>
          BLOCK_METRICS.map((metric): [string, string[]] => [`roots/${group.name}/${metric}`, blockNames(group)]),
        ),
        ...(options.diagnostics && source === "sampled"
          ? [[PARAMETER_COSINE, preconditioned.map(({ parameter }) => parameter.name)] as [string, string[]]]
          : []),
      ]),
      emitStatistics: (b, values) => emitAllStatistics(b, values, preconditioned, options),
      emitRoots: (b, values) =>
        emitRoots(
          b,
          groups,
          rootOptionsFor(options, values.target),
          values,
          correctsStatistics ? values.hyperparameter("statistics_factor") : undefined,
        ),
    }),
  };
}

function hyperparameters(options: ShampooOptions, multiplier: number, step: number, momentSteps = 0) {
  const lr = options.learningRate * multiplier;
  // Moments of the gradient may have a past; a momentum of Shampoo's own steps has none.
  const correction = momentumCorrection(options, options.momentumOrder === "before" ? step + momentSteps : step);
  const graftCorrection = options.graft === "adam" ? Math.sqrt(1 - options.graftBeta2 ** (step + momentSteps)) : 1;
  const independent = options.weightDecayKind === "independent";
  return {
    step,
    learning_rate: lr,
    // The step is linear in the momentum, so its bias correction costs nothing here.
    step_size: lr / correction,
    // … but a coupled decay must not be divided by it when the momentum comes first.
    weight_decay:
      options.weightDecayKind === "coupled" && options.momentumOrder === "before"
        ? options.weightDecay * correction
        : options.weightDecay,
    decay_factor: 1 - (independent ? multiplier : lr) * options.weightDecay,
    statistics_factor: options.beta2 === 1 ? 1 : 1 / (1 - options.beta2 ** statisticsUpdates(options, step)),
    graft_epsilon: options.graftEpsilon * graftCorrection,
    graft_correction: graftCorrection,
    preconditioning: step >= options.startStep ? 1 : 0,
  };
}

function emitAllStatistics(
  b: GraphBuilder,
  values: StepValues,
  plans: readonly ParameterPlan[],
  options: ShampooOptions,
): StepResult {
  const state = new Map<string, string>();
  for (const { parameter, preconditioned } of plans) {
    if (!preconditioned) continue;
    scoped(b, parameter.name, "statistics", () => {
      const terms = termsOf(b, parameter, values, options).map((term) =>
        preparedTerm(b, term, parameter, preconditioned.cut),
      );
      for (const [i, factors] of preconditioned.factors.entries()) {
        const region = preconditioned.cut.regions[i];
        if (!region) continue;
        for (const [axis, factor] of factors) {
          const weight = options.beta2 === 1 ? 1 : 1 - options.beta2;
          let statistics = values.state(factor.statistics);
          for (const [k, term] of terms.entries()) {
            statistics = term(i, region, axis, statistics, k === 0 ? options.beta2 : 1, weight);
          }
          state.set(factor.statistics, statistics);
        }
      }
    });
  }
  // Expected statistics have no gradient to compare.
  const compares =
    options.diagnostics &&
    options.name !== "shampoo" &&
    plans.every(({ parameter }) => (values.statisticsTerms?.(parameter.name) ?? []).every(isGradient));
  const metrics = compares
    ? emitGradientMetrics(
        b,
        plans.map((plan) => plan.parameter),
        values,
      )
    : {};
  return { parameters: new Map(), state, ...metrics };
}

function isGradient(term: StatisticsTerm): boolean {
  return term.kind === "gradient";
}

/** What a parameter's statistics take: one gradient, or what the program knows of its expectation. */
function termsOf(
  b: GraphBuilder,
  { name }: ParameterSpec,
  values: StepValues,
  options: ShampooOptions,
): readonly StatisticsTerm[] {
  if (options.name === "shampoo") {
    return [{ kind: "gradient", value: withL2(b, values.statisticsGradient(name), name, values, options) }];
  }
  return values.statisticsTerms?.(name) ?? [{ kind: "gradient", value: values.statisticsGradient(name) }];
}

/** Adds weight·Gram to decay·statistics for an axis of a region. */
type TermUpdate = (
  index: number,
  region: Region,
  axis: number,
  statistics: string,
  decay: number,
  weight: number,
) => string;

function preparedTerm(b: GraphBuilder, term: StatisticsTerm, parameter: ParameterSpec, cut: Partition): TermUpdate {
  if (term.kind === "gradient") {
    const stacks = emitBlocks(b, term.value, parameter.dims, cut);
    return (index, region, axis, statistics, decay, weight) =>
      emitStatistics(b, region, axis, stacks[index] as string, statistics, decay, weight);
  }
  const regions = new Map<Region, ReturnType<typeof expectedRegion>>();
  return (_, region, axis, statistics, decay, weight) => {
    const expected = regions.get(region) ?? expectedRegion(b, term, parameter.dims, cut, region);
    regions.set(region, expected);
    return accumulate(b, statistics, expected.gram(axis), decay, weight);
  };
}

function withL2(b: GraphBuilder, gradient: string, name: string, values: StepValues, options: ShampooOptions): string {
  if (options.weightDecay === 0 || options.weightDecayKind !== "l2") return gradient;
  return addWeighted(b, gradient, values.parameter(name), values.hyperparameter("weight_decay"));
}

function emitUpdate(
  b: GraphBuilder,
  values: StepValues,
  plans: readonly ParameterPlan[],
  options: ShampooOptions,
): StepResult {
  const state = new Map<string, string>();
  const updated = new Map<string, string>();
  const prepared = plans.map((plan) => b.scope(plan.parameter.name, () => prepare(b, plan, values, options, state)));
  const directions = emitDirections(b, prepared, values, options);
  for (const { plan } of prepared) {
    const { name } = plan.parameter;
    scoped(b, name, "update", () => {
      let step = directions.get(name) as string;
      let parameter = values.parameter(name);
      const decays = options.weightDecay > 0;
      if (decays && options.weightDecayKind === "coupled") {
        step = addWeighted(b, step, parameter, values.hyperparameter("weight_decay"));
      }
      if (options.momentum > 0 && options.momentumOrder === "after") {
        const buffer = values.state(`${name}/momentum`);
        const momentum = b.scope("momentum", () =>
          emitMomentum(b, options, buffer, weighsLater(options) ? scale(b, step, momentumWeight(options)) : step),
        );
        state.set(`${name}/momentum`, momentum.buffer);
        step = momentum.output;
      }
      if (decays && (options.weightDecayKind === "decoupled" || options.weightDecayKind === "independent")) {
        parameter = b.mul(parameter, values.hyperparameter("decay_factor"));
      }
      updated.set(name, b.sub(parameter, b.mul(step, values.hyperparameter("step_size"))));
    });
  }
  return { parameters: updated, state };
}

function prepare(
  b: GraphBuilder,
  plan: ParameterPlan,
  values: StepValues,
  options: ShampooOptions,
  state: Map<string, string>,
): Prepared {
  const { name } = plan.parameter;
  const gradient = withL2(b, values.gradient(name), name, values, options);
  let numerator = gradient;
  if (options.momentum > 0 && options.momentumOrder === "before") {
    const buffer = values.state(`${name}/momentum`);
    const momentum = b.scope("momentum", () =>
      emitMomentum(b, options, buffer, scale(b, gradient, momentumWeight(options))),
    );
    state.set(`${name}/momentum`, momentum.buffer);
    numerator = momentum.output;
  }
  const graft = b.scope("graft", () =>
    emitGraft(
      b,
      options,
      gradient,
      numerator,
      hasSecondMoment(options.graft) ? () => values.state(`${name}/graft`) : undefined,
      () => values.hyperparameter("graft_epsilon"),
      () => values.hyperparameter("graft_correction"),
    ),
  );
  if (graft.secondMoment) state.set(`${name}/graft`, graft.secondMoment);
  return { plan, gradient: numerator, graft };
}
