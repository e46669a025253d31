/** What Shampoo does with each parameter: how it is cut, and which axes of its blocks are preconditioned. */
import { DataType } from "../../onnx/proto.js";
import { zeros } from "../common.js";
import type { ParameterSpec, StateSpec } from "../optimizer.js";
import { mergeDims, type Partition, partition, stackDims } from "./blocking.js";
import { hasSecondMoment } from "./grafting.js";
import { exponentOf, type ShampooOptions } from "./options.js";
import type { Factor } from "./roots.js";

export interface ParameterPlan {
  readonly parameter: ParameterSpec;
  /** Undefined for parameters that only take the graft's step. */
  readonly preconditioned?: {
    readonly cut: Partition;
    /** For each region: the factors by axis. */
    readonly factors: readonly ReadonlyMap<number, Factor>[];
  };
}

export function planParameter(parameter: ParameterSpec, options: ShampooOptions): ParameterPlan {
  const shape = mergeDims(parameter.dims, {
    direction: options.mergeDims,
    limit: options.mergeLimit ?? options.blockSize,
    rank: options.mergeRank,
  });
  const rank = parameter.dims.length === 0 ? 0 : shape.length;
  const tooLong = parameter.dims.some((dim) => dim > options.skipDimAbove);
  if (rank < options.skipRankBelow || tooLong || options.startStep === Number.POSITIVE_INFINITY) return { parameter };
  const cut = partition(shape, options.blockSize, options.blocks);
  const axes = preconditionedAxes(shape.length, options.sides);
  const exponent = exponentOf(options, axes.length);
  const factors = cut.regions.map((region, index) => {
    const where = cut.regions.length === 1 ? parameter.name : `${parameter.name}/region${index}`;
    return new Map(
      axes.map((axis) => [
        axis,
        {
          statistics: `${where}/statistics${axis}`,
          preconditioner: `${where}/preconditioner${axis}`,
          label: `${where}/axis${axis}`,
          count: region.count,
          size: region.block[axis] as number,
          exponent,
          tracePower: options.traceFactor ? (axes.length - 1) / (axes.length * exponent) : 0,
        },
      ]),
    );
  });
  return { parameter, preconditioned: { cut, factors } };
}

function preconditionedAxes(rank: number, sides: ShampooOptions["sides"]): number[] {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  if (rank === 1 || sides === "all") return axes;
  return sides === "leading" ? axes.slice(0, -1) : axes.slice(-1);
}

/** All state of a parameter: momentum, the graft's second moment, statistics and preconditioners. */
export function stateOf(plan: ParameterPlan, options: ShampooOptions): StateSpec[] {
  const { parameter, preconditioned } = plan;
  return [
    ...(options.momentum > 0 ? [zeros(parameter, "momentum")] : []),
    ...(hasSecondMoment(options.graft) ? [zeros(parameter, "graft")] : []),
    ...(preconditioned?.factors ?? []).flatMap((factors, i) => {
      const region = preconditioned?.cut.regions[i];
      return [...factors.values()].flatMap((factor) => {
        const dims = region ? stackDims(region, [factor.size, factor.size]) : [];
        return [
          identities(factor.statistics, dims, options.statisticsInit),
          identities(factor.preconditioner, dims, 1),
        ];
      });
    }),
  ];
}

/** A stack of multiples of the identity. */
function identities(name: string, dims: readonly number[], value: number): StateSpec {
  const size = dims[dims.length - 1] as number;
  const count = dims.length === 3 ? (dims[0] as number) : 1;
  return {
    name,
    type: DataType.FLOAT,
    dims,
    init() {
      const data = new Float32Array(count * size * size);
      for (let block = 0; block < count; block++) {
        for (let i = 0; i < size; i++) data[block * size * size + i * (size + 1)] = value;
      }
      return data;
    },
  };
}
