/** What SOAP does with each parameter: how it is cut, and the eigenbases of its blocks. */
import { DataType } from "../../onnx/proto.js";
import { zeros } from "../common.js";
import type { ParameterSpec, StateSpec } from "../optimizer.js";
import { mergeDims, type Partition, partition, type Region, stackDims } from "../shampoo/blocking.js";
import type { SoapOptions } from "./options.js";

/** The blocks along one axis of a region: equal matrices, [d, d] or [count, d, d]. */
export interface BasisFactor {
  readonly axis: number;
  readonly statistics: string;
  readonly basis: string;
  readonly label: string;
  readonly count: number;
  readonly size: number;
}

export interface RegionPlan {
  readonly region: Region;
  readonly factors: readonly BasisFactor[];
  /** State with the second moment in the eigenbasis, of the stack's shape. */
  readonly secondMoment: string;
}

export interface SoapPlan {
  readonly parameter: ParameterSpec;
  /** Undefined for parameters that take AdamW's step. */
  readonly preconditioned?: { readonly cut: Partition; readonly regions: readonly RegionPlan[] };
}

export function planSoap(parameter: ParameterSpec, options: SoapOptions): SoapPlan {
  const { blockSize, mergeLimit = blockSize, skipDimAbove, sides } = options;
  const shape = mergeDims(parameter.dims, { direction: options.mergeDims, limit: mergeLimit, rank: 2 });
  if (shape.length < 2 || parameter.dims.some((dim) => dim > skipDimAbove)) return { parameter };
  const cut = partition(shape, blockSize, options.blocks);
  const all = shape.map((_, axis) => axis);
  const axes = sides === "all" ? all : sides === "leading" ? all.slice(0, -1) : all.slice(-1);
  const regions = cut.regions.map((region, i): RegionPlan => {
    const where = cut.regions.length === 1 ? parameter.name : `${parameter.name}/region${i}`;
    return {
      region,
      secondMoment: `${where}/exp_avg_sq`,
      factors: axes.map((axis) => ({
        axis,
        statistics: `${where}/statistics${axis}`,
        basis: `${where}/basis${axis}`,
        label: `${where}/axis${axis}`,
        count: region.count,
        size: region.block[axis] as number,
      })),
    };
  });
  return { parameter, preconditioned: { cut, regions } };
}

/** All state of a parameter: both moments, statistics and bases. */
export function soapState({ parameter, preconditioned }: SoapPlan): StateSpec[] {
  const first = zeros(parameter, "exp_avg");
  if (!preconditioned) return [first, zeros(parameter, "exp_avg_sq")];
  return [
    first,
    ...preconditioned.regions.flatMap(({ region, factors, secondMoment }) => [
      filled(secondMoment, stackDims(region), () => 0),
      ...factors.flatMap(({ statistics, basis, size }) => {
        const dims = stackDims(region, [size, size]);
        return [
          filled(statistics, dims, () => 0),
          filled(basis, dims, (i) => ((i % (size * size)) % (size + 1) === 0 ? 1 : 0)),
        ];
      }),
    ]),
  ];
}

function filled(name: string, dims: readonly number[], value: (i: number) => number): StateSpec {
  const count = dims.reduce((product, dim) => product * dim, 1);
  return { name, type: DataType.FLOAT, dims, init: () => Float32Array.from({ length: count }, (_, i) => value(i)) };
}

/** Bases of one size that are refreshed in one stack. */
export interface BasisGroup {
  readonly name: string;
  readonly size: number;
  readonly factors: readonly BasisFactor[];
}

/** Elements of a stack beyond which more matrices gain nothing. */
const STACK_ELEMENTS = 2 ** 20;

export function groupBases(plans: readonly SoapPlan[]): BasisGroup[] {
  const stacks = new Map<number, BasisFactor[][]>();
  for (const factor of plans.flatMap((plan) => plan.preconditioned?.regions ?? []).flatMap(({ factors }) => factors)) {
    const known = stacks.get(factor.size) ?? [];
    stacks.set(factor.size, known);
    const open = known.at(-1);
    const count = (open ?? []).reduce((sum, other) => sum + other.count, factor.count);
    if (open && count * factor.size ** 2 <= STACK_ELEMENTS) open.push(factor);
    else known.push([factor]);
  }
  return [...stacks].flatMap(([size, groups]) =>
    groups.map((factors, i) => ({ name: groups.length === 1 ? `${size}` : `${size}.${i}`, size, factors })),
  );
}
