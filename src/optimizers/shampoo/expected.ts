/** Statistics in closed form, block by block: the expected Gram matrices of a layer's sampled gradient. */
import { UsageError } from "../../errors.js";
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import type { StatisticsTerm } from "../../sections/statistics-term.js";
import { type Partition, type Region, stackDims } from "./blocking.js";

type LayerTerm = Extract<StatisticsTerm, { kind: "layer" }>;

/** A layer's rows as the blocks of one region see them. Values are built when first asked for. */
export interface ExpectedRegion {
  /** The expected Gram matrices along an axis: [d, d], or [count, d, d]. */
  gram(axis: number): string;
}

/**
 * Lays a layer's inputs and outputs out for the blocks of a region.
 * @throws UsageError when the parameter's merged shape does not keep the outputs on an axis of their own.
 */
export function expectedRegion(
  b: GraphBuilder,
  term: LayerTerm,
  dims: readonly number[],
  cut: Partition,
  region: Region,
): ExpectedRegion {
  const { shape } = cut;
  const outputAxis = term.outputAxis === "first" ? 0 : shape.length - 1;
  const outputs = term.outputAxis === "first" ? dims[0] : dims[dims.length - 1];
  if (shape[outputAxis] !== outputs) {
    throw new UsageError(
      `Expected statistics need the outputs of a layer on an axis of their own, but a parameter of shape [${dims.join(", ")}] is merged to [${shape.join(", ")}]. Set mergeRank to 2 or more, or draw samples (--draw exact).`,
    );
  }
  const inputAxes = shape.map((_, axis) => axis).filter((axis) => axis !== outputAxis);
  const gridOut = region.grid[outputAxis] as number;
  const blockOut = region.block[outputAxis] as number;
  const gridIn = inputAxes.reduce((product, axis) => product * (region.grid[axis] as number), 1);
  const blockIn = inputAxes.map((axis) => region.block[axis] as number);
  const sizeIn = blockIn.reduce((product, size) => product * size, 1);

  // v: [rows, Go, Bo]; x: [rows, Gi, Bi], Gi and Bi in row-major order of the input axes.
  const v = b.reshape(along(b, term.output, [[region, outputAxis]], [outputs as number]), [-1, gridOut, blockOut]);
  const x = inputBlocks();

  /** Puts [Go, Gi, …] into the order of the region's stack, and drops the count when there is one block. */
  const stack = (value: string, rest: readonly number[]) => {
    const rank = 2 + rest.length;
    const order = [1, 0, ...rest.map((_, i) => i + 2)];
    const swaps = outputAxis !== 0 && gridOut > 1 && gridIn > 1;
    return b.reshape(swaps && rank > 1 ? b.transpose(value, order) : value, stackDims(region, rest));
  };

  /** w Σ_i |x_i|² V_i. */
  const outputGram = () => {
    const squares = b.reduceSum(b.mul(x, x), [2], false); // [rows, Gi]
    const weighted = b.mul(squares, term.weight);
    // Σ_i |x_i|² v_i for each pair of blocks: [Go, Gi, Bo].
    const sums = b.matMul(b.transpose(weighted, [1, 0]), b.reshape(v, [-1, gridOut * blockOut]));
    const diagonal = b.transpose(b.reshape(sums, [gridIn, gridOut, blockOut]), [1, 0, 2]);
    const full = b.mul(b.unsqueeze(diagonal, [3]), identity(b, blockOut));
    if (term.covariance === "diagonal") return stack(full, [blockOut, blockOut]);
    const p = b.unsqueeze(b.transpose(v, [1, 2, 0]), [1]); // [Go, 1, Bo, rows]
    const q = b.unsqueeze(b.unsqueeze(b.transpose(weighted, [1, 0]), [1]), [0]); // [1, Gi, 1, rows]
    const outer = b.matMul(b.mul(p, q), b.transpose(p, [0, 1, 3, 2]));
    return stack(b.sub(full, outer), [blockOut, blockOut]);
  };

  /** w Σ_i tr(V_i) x_i x_iᵀ, along one of the input axes, summed over the others. */
  const inputGram = (position: number) => {
    const size = blockIn[position] as number;
    const total = b.reduceSum(v, [2], false); // [rows, Go]
    const trace = term.covariance === "diagonal" ? total : b.sub(total, b.reduceSum(b.mul(v, v), [2], false));
    const s = b.unsqueeze(b.transpose(b.mul(trace, term.weight), [1, 0]), [1, 3]); // [Go, 1, rows, 1]
    const perBlock = b.transpose(x, [1, 0, 2]); // [Gi, rows, Bi]
    let columns = perBlock;
    let scaled = b.mul(b.unsqueeze(perBlock, [0]), s); // [Go, Gi, rows, Bi]
    if (size !== sizeIn) {
      columns = unfold(b, perBlock, [gridIn], blockIn, position);
      scaled = unfold(b, scaled, [gridOut, gridIn], blockIn, position);
    }
    return stack(b.matMul(b.transpose(columns, [0, 2, 1]), scaled), [size, size]);
  };

  return {
    gram: (axis) => (axis === outputAxis ? outputGram() : inputGram(inputAxes.indexOf(axis))),
  };

  function inputBlocks(): string {
    const lengths = inputAxes.map((axis) => shape[axis] as number);
    const part = along(
      b,
      term.input,
      inputAxes.map((axis) => [region, axis]),
      lengths,
    );
    if (gridIn === 1) return b.reshape(part, [-1, 1, sizeIn]);
    const gridded = b.reshape(part, [
      -1,
      ...inputAxes.flatMap((axis) => [region.grid[axis], region.block[axis]] as number[]),
    ]);
    const grids = inputAxes.map((_, i) => 1 + 2 * i);
    const blocks = inputAxes.map((_, i) => 2 + 2 * i);
    return b.reshape(b.transpose(gridded, [0, ...grids, ...blocks]), [-1, gridIn, sizeIn]);
  }
}

/** Cuts the part of a region out of [rows, lengths…], axes 1 and up. */
function along(
  b: GraphBuilder,
  value: string,
  axes: readonly (readonly [Region, number])[],
  lengths: readonly number[],
): string {
  const whole = lengths.length === 1 ? value : b.reshape(value, [-1, ...lengths]);
  const cuts = axes.flatMap(([region, axis], i) => {
    const start = region.start[axis] as number;
    const size = (region.grid[axis] as number) * (region.block[axis] as number);
    return size === lengths[i] ? [] : [{ start, end: start + size, axis: i + 1 }];
  });
  if (cuts.length === 0) return whole;
  return b.slice(
    whole,
    cuts.map((cut) => cut.start),
    cuts.map((cut) => cut.end),
    cuts.map((cut) => cut.axis),
  );
}

/** […lead, rows, Bi] as […lead, rows·others, size]: one input axis of the block in the columns. */
function unfold(
  b: GraphBuilder,
  value: string,
  lead: readonly number[],
  block: readonly number[],
  position: number,
): string {
  const size = block[position] as number;
  const apart = b.reshape(value, [...lead, -1, ...block]);
  const offset = lead.length + 1;
  const others = block.map((_, i) => i).filter((i) => i !== position);
  const perm = [...lead.map((_, i) => i), lead.length, ...others.map((i) => i + offset), position + offset];
  return b.reshape(b.transpose(apart, perm), [...lead, -1, size]);
}

function identity(b: GraphBuilder, size: number): string {
  const data = new Float32Array(size * size);
  for (let i = 0; i < size; i++) data[i * (size + 1)] = 1;
  return b.initializer("identity", DataType.FLOAT, [size, size], data);
}
