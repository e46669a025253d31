/** The directions of a step: the gradients preconditioned, with the length of the graft's step, or that step itself. */
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import { scale } from "../common.js";
import type { StepValues } from "../optimizer.js";
import { emitBlocks, emitUnblock } from "./blocking.js";
import { emitWithNormOf, type GraftResult } from "./grafting.js";
import { momentumWeight } from "./momentum.js";
import type { ShampooOptions } from "./options.js";
import type { ParameterPlan } from "./plan.js";
import { emitPrecondition } from "./precondition.js";

/** A parameter's nodes of one part of the step, by whose names a profile tells the parts. */
export function scoped<T>(b: GraphBuilder, parameter: string, part: string, build: () => T): T {
  return b.scope(parameter, () => b.scope(part, build));
}

/** A parameter on its way through the update: value names. */
export interface Prepared {
  readonly plan: ParameterPlan;
  /** What is preconditioned: the gradient, or its momentum. */
  readonly gradient: string;
  /** What the graft alone would do. */
  readonly graft: GraftResult;
}

/** Whether the direction meets its weight in the momentum on its own, because a decay is added in between. */
export function weighsLater(options: ShampooOptions): boolean {
  return options.weightDecay > 0 && options.weightDecayKind === "coupled";
}

/** What a direction is multiplied by on its way, so that the momentum has no pass of its own for that. */
function directionWeight(options: ShampooOptions): number {
  const weighs = options.momentum > 0 && options.momentumOrder === "after" && !weighsLater(options);
  return weighs ? momentumWeight(options) : 1;
}

/** The graft's step, times the weight. */
function emitGraftStep(b: GraphBuilder, { step, factor }: GraftResult, weight: number): string {
  return factor === undefined ? scale(b, step, weight) : b.mul(step, scale(b, factor, weight));
}

/** The steps by parameter name, times `directionWeight`: preconditioned from the start step on, the graft's own before and without one. */
export function emitDirections(
  b: GraphBuilder,
  prepared: readonly Prepared[],
  values: StepValues,
  options: ShampooOptions,
): Map<string, string> {
  const weight = directionWeight(options);
  const graftOf = (inner: GraphBuilder, { plan, graft }: Prepared) =>
    scoped(inner, plan.parameter.name, "graft", () => emitGraftStep(inner, graft, weight));
  const active = prepared.filter(({ plan }) => plan.preconditioned);
  const others = prepared.filter(({ plan }) => !plan.preconditioned);
  const directions = new Map(others.map((one) => [one.plan.parameter.name, graftOf(b, one)]));
  if (active.length === 0) return directions;
  const emit = (inner: GraphBuilder) =>
    active.map((one) =>
      scoped(inner, one.plan.parameter.name, "precondition", () => emitDirection(inner, one, values, options)),
    );
  let results: string[];
  if (options.startStep <= 1) results = emit(b);
  else {
    // The preconditioners must be declared outside the branch that reads them.
    for (const { plan } of active) forEachFactor(plan, (factor) => values.state(factor.preconditioner));
    const branch = (name: string, build: (inner: GraphBuilder) => string[]) => {
      const inner = b.subgraph(name);
      build(inner).forEach((value, i) => {
        const { dims } = (active[i] as Prepared).plan.parameter;
        // What a branch makes leaves it as it is; an Identity would copy it.
        const isOwn = inner.graph.node.some(({ output }) => output.includes(value));
        inner.output(isOwn ? value : inner.op("Identity", [value]), { elemType: DataType.FLOAT, shape: dims });
      });
      return inner.graph;
    };
    results = b.node("If", [b.greater(values.hyperparameter("preconditioning"), b.f32(0.5))], {
      name: "direction",
      outputs: active.length,
      attributes: {
        then_branch: branch("preconditioned", emit),
        else_branch: branch("graft", (inner) => active.map((one) => graftOf(inner, one))),
      },
    });
  }
  active.forEach(({ plan }, i) => {
    directions.set(plan.parameter.name, results[i] as string);
  });
  return directions;
}

function forEachFactor(plan: ParameterPlan, visit: (factor: { preconditioner: string }) => void): void {
  for (const factors of plan.preconditioned?.factors ?? []) for (const factor of factors.values()) visit(factor);
}

function emitDirection(b: GraphBuilder, one: Prepared, values: StepValues, options: ShampooOptions): string {
  const { preconditioned, parameter } = one.plan;
  if (!preconditioned) throw new Error(`'${parameter.name}' is not preconditioned`);
  const { cut } = preconditioned;
  const { step, factor } = one.graft;
  const weight = directionWeight(options);
  const factors = [...(factor === undefined ? [] : [factor]), ...(weight === 1 ? [] : [b.f32(weight)])];
  const grafts = options.graft !== "none";
  const byBlock = grafts && options.graftNorm === "block";
  const lengths = byBlock ? emitBlocks(b, step, parameter.dims, cut) : [];
  const stacks = emitBlocks(b, one.gradient, parameter.dims, cut).map((stack, i) => {
    const region = cut.regions[i] as (typeof cut.regions)[number];
    const byAxis = preconditioned.factors[i] ?? new Map();
    const matrices = new Map([...byAxis].map(([axis, { preconditioner }]) => [axis, values.state(preconditioner)]));
    const direction = emitPrecondition(b, region, stack, matrices);
    if (!byBlock) return direction;
    const axes = region.block.map((_, axis) => axis + (region.count === 1 ? 0 : 1));
    return b.scope("graft", () => emitWithNormOf(b, direction, lengths[i] as string, factors, axes));
  });
  const direction = emitUnblock(b, stacks, parameter.dims, cut);
  if (!grafts) return scale(b, direction, weight);
  return byBlock ? direction : b.scope("graft", () => emitWithNormOf(b, direction, step, factors));
}
