/** The refresh of all preconditioners: blocks of one size and exponent are stacked and rooted together. */
import { type GraphBuilder, valueInfo } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import type { StateSpec, StepResult, StepValues } from "../optimizer.js";
import { emitInverseRoots, type InverseRoots, type RootOptions } from "./newton.js";
import { emitTiledRoot, isTiled } from "./tiled-roots.js";

/** The blocks along one axis of a region: equal matrices with one exponent. */
export interface Factor {
  /** State names of the statistics and of the preconditioners, both [d, d] or [count, d, d]. */
  readonly statistics: string;
  readonly preconditioner: string;
  /** What to call it in diagnostics, such as `encoder.0.weight/0`. */
  readonly label: string;
  readonly count: number;
  readonly size: number;
  readonly exponent: number;
  /** The root is multiplied by the trace of the statistics to this power. */
  readonly tracePower: number;
}

/** Factors that are rooted in one stack. */
export interface RootGroup {
  readonly name: string;
  readonly size: number;
  readonly exponent: number;
  readonly tracePower: number;
  readonly factors: readonly Factor[];
  /** Matrices in all. */
  readonly count: number;
}

/** Elements of a stack beyond which more matrices gain nothing and only push each other out of the cache. */
const STACK_ELEMENTS = 2 ** 20;

/** Groups factors of one size and exponent, small ones up to `STACK_ELEMENTS` in a stack. */
export function groupFactors(factors: readonly Factor[]): RootGroup[] {
  const stacks = new Map<string, Factor[][]>();
  for (const factor of factors) {
    const trace = factor.tracePower > 0 ? "t" : "";
    const key = `${factor.size}^${Number(factor.exponent.toFixed(4))}${trace}`;
    const known = stacks.get(key) ?? [];
    if (known.length === 0) stacks.set(key, known);
    const open = known[known.length - 1];
    const count = (open ?? []).reduce((sum, other) => sum + other.count, 0);
    const fits = isTiled(factor.size) || (count + factor.count) * factor.size ** 2 <= STACK_ELEMENTS;
    if (open && fits) open.push(factor);
    else known.push([factor]);
  }
  return [...stacks].flatMap(([key, groups]) =>
    groups.map((group, i) => ({
      name: groups.length === 1 ? key : `${key}.${i}`,
      size: (group[0] as Factor).size,
      exponent: (group[0] as Factor).exponent,
      tracePower: (group[0] as Factor).tracePower,
      factors: group,
      count: group.reduce((sum, factor) => sum + factor.count, 0),
    })),
  );
}

/** The state that counts, for each block, the refreshes that failed since its last good root. */
export function failureState(group: RootGroup): StateSpec {
  return {
    name: `roots/${group.name}/failures`,
    type: DataType.FLOAT,
    dims: [group.count],
    init: () => new Float32Array(group.count),
  };
}

/** Names of a group's blocks, in the order of its block metrics. */
export function blockNames(group: { readonly factors: readonly Pick<Factor, "label" | "count">[] }): string[] {
  return group.factors.flatMap((factor) =>
    factor.count === 1 ? [factor.label] : Array.from({ length: factor.count }, (_, i) => `${factor.label}/block${i}`),
  );
}

export const BLOCK_METRICS = ["residual", "condition", "iterations", "retries", "failures"] as const;

/**
 * Refreshes every preconditioner. Statistics of zeros and failed roots keep the preconditioner that was there.
 *
 * Metrics: `roots/failed` (blocks that failed now), `roots/residual`, `roots/condition`, `roots/iterations` and
 * `roots/retries` (largest over the blocks). Block metrics: the same for each block, and the refreshes failed in a row.
 */
export function emitRoots(
  b: GraphBuilder,
  groups: readonly RootGroup[],
  options: RootOptions,
  values: Pick<StepValues, "state">,
  factor: string | undefined,
): StepResult {
  const state = new Map<string, string>();
  const blockMetrics = new Map<string, string>();
  const all: Refreshed[] = [];
  const stacked = (group: RootGroup, name: (factor: Factor) => string) =>
    b.concat(
      group.factors.map((one) => {
        const value = values.state(name(one));
        return one.count === 1 ? b.unsqueeze(value, [0]) : value;
      }),
      0,
    );
  for (const group of groups) {
    b.scope(`roots/${group.name}`, () => {
      const statistics = stacked(group, (one) => one.statistics);
      const before = stacked(group, (one) => one.preconditioner);
      const emit = isTiled(group.size) && !options.unrolled ? emitOneByOne : emitTogether;
      const { after, ...roots } = emit(b, group, statistics, before, options, factor);
      splitStack(b, group, after).forEach((value, i) => {
        const one = group.factors[i] as Factor;
        state.set(one.preconditioner, one.count === 1 ? b.squeeze(value, [0]) : value);
      });
      const { name } = failureState(group);
      const failed = b.cast(roots.failed, DataType.FLOAT);
      const failures = b.mul(b.add(values.state(name), failed), failed);
      state.set(name, failures);
      const metrics = { ...roots, failures };
      for (const metric of BLOCK_METRICS) blockMetrics.set(`roots/${group.name}/${metric}`, metrics[metric]);
      all.push({ ...roots, after });
    });
  }
  const reduced = (metric: "residual" | "condition" | "iterations" | "retries") =>
    b.reduce(
      "ReduceMax",
      b.concat(
        all.map((roots) => roots[metric]),
        0,
      ),
      undefined,
      false,
    );
  const failed = b.cast(
    b.concat(
      all.map((roots) => roots.failed),
      0,
    ),
    DataType.FLOAT,
  );
  return {
    parameters: new Map(),
    state,
    metrics: new Map([
      ["roots/failed", b.reduceSum(failed, undefined, false)],
      ["roots/residual", reduced("residual")],
      ["roots/condition", reduced("condition")],
      ["roots/iterations", reduced("iterations")],
      ["roots/retries", reduced("retries")],
    ]),
    blockMetrics,
  };
}

/** What a group's refresh gives: the new preconditioners, [count, d, d], and [count] values for each matrix. */
type Refreshed = Omit<InverseRoots, "root" | "usable"> & { readonly after: string };

/** Stacks of whole matrices. */
function emitTogether(
  b: GraphBuilder,
  group: RootGroup,
  statistics: string,
  before: string,
  options: RootOptions,
  factor: string | undefined,
): Refreshed {
  const { count, size, exponent } = group;
  const most = Math.max(1, Math.floor(STACK_ELEMENTS / size ** 2));
  const parts: Refreshed[] = [];
  for (let start = 0; start < count; start += most) {
    const end = Math.min(start + most, count);
    const part = (stack: string) => (end - start === count ? stack : b.slice(stack, [start], [end], [0]));
    const own = part(statistics);
    const roots = emitInverseRoots(b, own, end - start, size, exponent, options, factor);
    const usable = b.reshape(roots.usable, [end - start, 1, 1]);
    const after = b.where(usable, scaledByTrace(b, group, roots.root, own, factor), part(before));
    parts.push({ ...roots, after });
  }
  const joined = (key: keyof Refreshed) =>
    b.concat(
      parts.map((one) => one[key]),
      0,
    );
  return { ...perMatrix(joined), after: joined("after") };
}

const PER_MATRIX = ["failed", "residual", "condition", "iterations", "retries"] as const;

function perMatrix(value: (key: (typeof PER_MATRIX)[number], index: number) => string): Omit<Refreshed, "after"> {
  return Object.fromEntries(PER_MATRIX.map((key, i) => [key, value(key, i)])) as Omit<Refreshed, "after">;
}

/** Large matrices: a Scan, which computes one root after the other. */
function emitOneByOne(
  b: GraphBuilder,
  group: RootGroup,
  statistics: string,
  before: string,
  options: RootOptions,
  factor: string | undefined,
): Refreshed {
  const { size, exponent } = group;
  const inner = b.subgraph("root");
  const input = (hint: string) => {
    const name = inner.unique(hint);
    inner.graph.input.push(valueInfo(name, { elemType: DataType.FLOAT, shape: [size, size] }));
    return name;
  };
  const [one, previous] = [input("statistics"), input("preconditioner")];
  const roots = emitTiledRoot(inner, one, size, exponent, options, factor);
  const after = inner.where(roots.usable, scaledByTrace(inner, group, roots.root, one, factor), previous);
  inner.output(inner.op("Identity", [after]), { elemType: DataType.FLOAT, shape: [size, size] });
  for (const key of PER_MATRIX) {
    const elemType = key === "failed" ? DataType.BOOL : DataType.FLOAT;
    inner.output(inner.reshape(roots[key], []), { elemType, shape: [] });
  }
  const [stack, ...values] = b.node("Scan", [statistics, before], {
    outputs: 1 + PER_MATRIX.length,
    attributes: { num_scan_inputs: 2, body: inner.graph },
  });
  return { ...perMatrix((_, i) => values[i] as string), after: stack as string };
}

function scaledByTrace(
  b: GraphBuilder,
  group: RootGroup,
  root: string,
  statistics: string,
  factor: string | undefined,
): string {
  if (group.tracePower === 0) return root;
  const eye = b.op("EyeLike", [b.op("ConstantOfShape", [b.i64([group.size, group.size])])], { dtype: DataType.FLOAT });
  const trace = b.reduceSum(b.mul(statistics, eye), [-2, -1], true);
  return b.mul(root, b.pow(factor ? b.mul(trace, factor) : trace, b.f32(group.tracePower)));
}

function splitStack(b: GraphBuilder, group: RootGroup, stack: string): string[] {
  if (group.factors.length === 1) return [stack];
  return b.node("Split", [stack, b.i64(group.factors.map((factor) => factor.count))], {
    outputs: group.factors.length,
    attributes: { axis: 0 },
  });
}
