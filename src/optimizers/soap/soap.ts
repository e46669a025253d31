/**
 * SOAP (Vyas et al. 2024, Algorithm 3): Adam in the eigenbasis of Shampoo's statistics. A step is, as Shampoo's here:
 * statistics from this step's gradient, a refresh of the bases, the update in the new ones; the authors' code refreshes
 * after the update. As in theirs, the first step only starts the statistics and their bases (in the basis of its own
 * gradient alone most coordinates would be rounding, which Adam would bring to full length), and a refresh sorts the
 * second moment with its basis and does not rotate it.
 */
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import { accumulateBy, decayFactor, square } from "../common.js";
import type { Optimizer, ParameterSpec, StepResult, StepValues } from "../optimizer.js";
import { createSchedule, type RunLength } from "../schedules.js";
import { emitBlocks, emitUnblock, type Region } from "../shampoo/blocking.js";
import { emitPrecondition } from "../shampoo/precondition.js";
import { blockNames } from "../shampoo/roots.js";
import { emitStatistics } from "../shampoo/statistics.js";
import { emitBasis } from "./basis.js";
import type { SoapOptions } from "./options.js";
import {
  type BasisFactor,
  type BasisGroup,
  groupBases,
  planSoap,
  type RegionPlan,
  type SoapPlan,
  soapState,
} from "./plan.js";

/**
 * Makes the optimizer. State: `<parameter>/exp_avg` of the parameter's shape, `<parameter>/exp_avg_sq` of its own or its
 * blocks', and `<parameter>/statistics<axis>` and `<parameter>/basis<axis>`, [d, d] or [blocks, d, d].
 */
export function createSoap(options: SoapOptions, parameters: readonly ParameterSpec[], run: RunLength = {}): Optimizer {
  const multiplier = createSchedule(options.schedule, run);
  const plans = parameters.map((parameter) => planSoap(parameter, options));
  const groups = options.basisInterval === Number.POSITIVE_INFINITY ? [] : groupBases(plans);
  const isDue = (step: number, interval: number) => groups.length > 0 && (step - 1) % interval === 0;
  return {
    name: options.name,
    parameters,
    state: plans.flatMap(soapState),
    hyperparameters: (step) => hyperparameters(options, step, step - (groups.length > 0 ? 1 : 0), multiplier(step)),
    schedule: (step) => ({
      statistics: isDue(step, options.statisticsInterval),
      roots: isDue(step, options.basisInterval),
    }),
    emitUpdate: (b, values) => emitUpdate(b, values, plans, options),
    ...(groups.length > 0 && {
      statisticsSource: "gradient" as const,
      emitStatistics: (b, values) => emitAllStatistics(b, values, plans, options),
      emitRoots: (b, values) => emitBases(b, values, plans, groups),
      blocks: new Map(groups.map((group) => [`bases/${group.name}/residual`, blockNames(group)])),
    }),
  };
}

/** @param t updates of the moments once the step is over. */
function hyperparameters(options: SoapOptions, step: number, t: number, s: number) {
  const { beta1, beta2 } = options;
  const lr = options.learningRate * s;
  const moves = t > 0;
  const correction = moves ? Math.sqrt(1 - beta2 ** t) : 1;
  return {
    step,
    learning_rate: lr,
    step_size: moves ? (lr * correction) / (1 - beta1 ** t) : 0,
    epsilon: options.epsilon * correction,
    first_weight: moves ? 1 - beta1 : 0,
    second_weight: moves ? 1 - beta2 : 0,
    ...(options.weightDecay > 0 && { decay_factor: moves ? decayFactor(options, s) : 1 }),
  };
}

function emitAllStatistics(
  b: GraphBuilder,
  values: StepValues,
  plans: readonly SoapPlan[],
  { beta2, statisticsBeta = beta2 }: SoapOptions,
): StepResult {
  const state = new Map<string, string>();
  for (const { parameter, preconditioned } of plans) {
    if (!preconditioned) continue;
    b.scope(`${parameter.name}/statistics`, () => {
      const stacks = emitBlocks(b, values.statisticsGradient(parameter.name), parameter.dims, preconditioned.cut);
      for (const [i, { region, factors }] of preconditioned.regions.entries()) {
        for (const { axis, statistics } of factors) {
          const old = values.state(statistics);
          const gram = emitStatistics(b, region, axis, stacks[i] as string, old, statisticsBeta, 1 - statisticsBeta);
          state.set(statistics, gram);
        }
      }
    });
  }
  return { parameters: new Map(), state };
}

/**
 * Refreshes all bases, and sorts the second moments with them. Metrics: `bases/failed` and `bases/residual`, the largest
 * max|QᵀQ − I|; the same for each block.
 */
function emitBases(
  b: GraphBuilder,
  values: Pick<StepValues, "state">,
  plans: readonly SoapPlan[],
  groups: readonly BasisGroup[],
): StepResult {
  const state = new Map<string, string>();
  const blockMetrics = new Map<string, string>();
  const orders = new Map<string, string>();
  const failed: string[] = [];
  for (const { name, size, factors } of groups) {
    b.scope(`bases/${name}`, () => {
      const stacked = (of: (factor: BasisFactor) => string) =>
        b.concat(
          factors.map((factor) => {
            const value = values.state(of(factor));
            return factor.count === 1 ? b.unsqueeze(value, [0]) : value;
          }),
          0,
        );
      const result = emitBasis(
        b,
        stacked((factor) => factor.statistics),
        stacked((factor) => factor.basis),
        size,
      );
      let at = 0;
      for (const { basis, count } of factors) {
        const own = (value: string) => {
          const part = b.slice(value, [at], [at + count], [0]);
          return count === 1 ? b.squeeze(part, [0]) : part;
        };
        state.set(basis, own(result.basis));
        orders.set(basis, own(result.order));
        at += count;
      }
      blockMetrics.set(`bases/${name}/residual`, result.residual);
      failed.push(b.cast(result.failed, DataType.FLOAT));
    });
  }
  for (const { parameter, preconditioned } of plans) {
    b.scope(`${parameter.name}/sort`, () => {
      for (const { region, factors, secondMoment } of preconditioned?.regions ?? []) {
        let sorted = values.state(secondMoment);
        for (const { axis, basis } of factors)
          sorted = emitSorted(b, region, axis, sorted, orders.get(basis) as string);
        state.set(secondMoment, sorted);
      }
    });
  }
  const residuals = b.concat([...blockMetrics.values()], 0);
  return {
    parameters: new Map(),
    state,
    metrics: new Map([
      ["bases/failed", b.reduceSum(b.concat(failed, 0), undefined, false)],
      ["bases/residual", b.reduce("ReduceMax", residuals, undefined, false)],
    ]),
    blockMetrics,
  };
}

/** A stack of blocks in another order along an axis. @param order int64 [d], or [count, d]. */
function emitSorted(b: GraphBuilder, { count, block }: Region, axis: number, stack: string, order: string): string {
  if (count === 1) return b.gather(stack, order, axis);
  const others = block.map((_, i) => i + 1).filter((i) => i !== axis + 1);
  const places = b.expand(b.unsqueeze(order, others), b.shape(stack));
  return b.op("GatherElements", [stack, places], { axis: axis + 1 });
}

function emitUpdate(b: GraphBuilder, values: StepValues, plans: readonly SoapPlan[], options: SoapOptions): StepResult {
  const state = new Map<string, string>();
  const updated = new Map<string, string>();
  const isIdentity = options.basisInterval === Number.POSITIVE_INFINITY;
  for (const { parameter, preconditioned } of plans) {
    const { name, dims } = parameter;
    b.scope(name, () => {
      const gradient = values.gradient(name);
      const momentum = accumulateBy(
        b,
        values.state(`${name}/exp_avg`),
        gradient,
        values.hyperparameter("first_weight"),
      );
      state.set(`${name}/exp_avg`, momentum);
      /** Adam's quotient, of values in whatever axes; keeps the second moment. */
      const quotient = (m: string, g: string, secondMoment: string) => {
        const second = accumulateBy(
          b,
          values.state(secondMoment),
          square(b, g),
          values.hyperparameter("second_weight"),
        );
        state.set(secondMoment, second);
        return b.div(m, b.add(b.sqrt(second), values.hyperparameter("epsilon")));
      };
      let step: string;
      if (!preconditioned) step = quotient(momentum, gradient, `${name}/exp_avg_sq`);
      else {
        const [gradients, momenta] = [gradient, momentum].map((x) => emitBlocks(b, x, dims, preconditioned.cut));
        const stacks = preconditioned.regions.map((plan, i) => {
          const [g, m] = [gradients?.[i] as string, momenta?.[i] as string];
          if (isIdentity) return quotient(m, g, plan.secondMoment);
          const into = turns(b, values, plan, "into");
          const [turnedG, turnedM] = [g, m].map((x) => emitPrecondition(b, plan.region, x, into)) as [string, string];
          const turned = quotient(turnedM, turnedG, plan.secondMoment);
          return emitPrecondition(b, plan.region, turned, turns(b, values, plan, "back"));
        });
        step = emitUnblock(b, stacks, dims, preconditioned.cut);
      }
      let theta = values.parameter(name);
      if (options.weightDecay > 0) theta = b.mul(theta, values.hyperparameter("decay_factor"));
      updated.set(name, b.sub(theta, b.mul(step, values.hyperparameter("step_size"))));
    });
  }
  return { parameters: updated, state };
}

/** The matrices that turn a region's blocks into their eigenbases or back: of the last axis from the right, of others from the left. */
function turns(
  b: GraphBuilder,
  values: StepValues,
  { region, factors }: RegionPlan,
  way: "into" | "back",
): ReadonlyMap<number, string> {
  return new Map(
    factors.map(({ axis, basis }) => {
      const q = values.state(basis);
      const isPlain = (axis === region.block.length - 1) === (way === "into");
      return [axis, isPlain ? q : b.transpose(q, region.count === 1 ? [1, 0] : [0, 2, 1])];
    }),
  );
}
