/**
 * How a parameter is cut into blocks. Each axis splits into at most two runs of equal pieces, so a parameter is at most
 * 2^rank *regions*: regular grids of equal blocks, which are handled as one stack.
 */
import type { GraphBuilder } from "../../onnx/builder.js";

/** A regular grid of equal blocks. */
export interface Region {
  /** Where the region starts along each axis. */
  readonly start: readonly number[];
  /** Blocks along each axis. */
  readonly grid: readonly number[];
  /** The shape of one block. */
  readonly block: readonly number[];
  /** Blocks in all. */
  readonly count: number;
}

/** A parameter's shape after merging, and its regions in row-major order of their starts. */
export interface Partition {
  readonly shape: readonly number[];
  /** Regions along each axis. */
  readonly regionGrid: readonly number[];
  readonly regions: readonly Region[];
}

export interface MergeOptions {
  readonly direction: "right" | "left" | "none";
  /** Largest product of merged dimensions. */
  readonly limit: number;
  /** The rank at which merging stops. */
  readonly rank: number;
}

/**
 * Merges neighbouring dimensions and drops those of 1. From the left this is Google's `merge_small_dims`, from the
 * right Meta's. A shape of ones is [1].
 */
export function mergeDims(dims: readonly number[], options: MergeOptions): number[] {
  if (options.direction === "none") return dims.length > 0 ? [...dims] : [1];
  const kept = dims.filter((dim) => dim !== 1);
  if (kept.length === 0) return [1];
  if (options.direction === "right") kept.reverse();
  const merged: number[] = [];
  let left = kept.length;
  for (const dim of kept) {
    const last = merged[merged.length - 1];
    if (last !== undefined && left > options.rank && last * dim <= options.limit) {
      merged[merged.length - 1] = last * dim;
      left--;
    } else merged.push(dim);
  }
  return options.direction === "right" ? merged.reverse() : merged;
}

interface Run {
  readonly start: number;
  readonly size: number;
  readonly count: number;
}

function runsOf(length: number, blockSize: number, kind: "balanced" | "fixed"): Run[] {
  const run = (start: number, size: number, count: number): Run[] => (count > 0 ? [{ start, size, count }] : []);
  if (length <= blockSize) return run(0, length, 1);
  if (kind === "fixed") {
    const whole = Math.floor(length / blockSize);
    const rest = length - whole * blockSize;
    return [...run(0, blockSize, whole), ...run(whole * blockSize, rest, rest > 0 ? 1 : 0)];
  }
  const pieces = Math.ceil(length / blockSize);
  const small = Math.floor(length / pieces);
  const larger = length - small * pieces;
  return [...run(0, small + 1, larger), ...run(larger * (small + 1), small, pieces - larger)];
}

/** Cuts a (merged) shape into regions of blocks no longer than `blockSize`. */
export function partition(shape: readonly number[], blockSize: number, kind: "balanced" | "fixed"): Partition {
  const runs = shape.map((length) => runsOf(length, blockSize, kind));
  let regions: Run[][] = [[]];
  for (const axis of runs) regions = regions.flatMap((region) => axis.map((run) => [...region, run]));
  return {
    shape,
    regionGrid: runs.map((axis) => axis.length),
    regions: regions.map((region) => ({
      start: region.map((run) => run.start),
      grid: region.map((run) => run.count),
      block: region.map((run) => run.size),
      count: region.reduce((product, run) => product * run.count, 1),
    })),
  };
}

/** The dims of a region's stack: [count, ...block], or the block's alone when there is one. */
export function stackDims(region: Region, dims: readonly number[] = region.block): number[] {
  return region.count === 1 ? [...dims] : [region.count, ...dims];
}

/** Cuts `tensor`, whose shape is `dims`, into one stack for each region. */
export function emitBlocks(b: GraphBuilder, tensor: string, dims: readonly number[], cut: Partition): string[] {
  const merged = sameShape(dims, cut.shape) ? tensor : b.reshape(tensor, cut.shape);
  return cut.regions.map((region) => {
    const lengths = region.grid.map((count, axis) => count * (region.block[axis] as number));
    const axes = cut.shape.flatMap((length, axis) => (length === lengths[axis] ? [] : [axis]));
    const start = region.start;
    const part =
      axes.length === 0
        ? merged
        : b.slice(
            merged,
            axes.map((axis) => start[axis] as number),
            axes.map((axis) => (start[axis] as number) + (lengths[axis] as number)),
            axes,
          );
    if (region.count === 1) return part;
    const rank = region.grid.length;
    const gridded = b.reshape(
      part,
      region.grid.flatMap((count, axis) => [count, region.block[axis] as number]),
    );
    const perm = [...evens(rank), ...odds(rank)];
    return b.reshape(onlyFirst(region) ? gridded : b.transpose(gridded, perm), stackDims(region));
  });
}

/** The inverse of `emitBlocks`. */
export function emitUnblock(
  b: GraphBuilder,
  stacks: readonly string[],
  dims: readonly number[],
  cut: Partition,
): string {
  let parts = cut.regions.map((region, i) => {
    const stack = stacks[i] as string;
    if (region.count === 1) return stack;
    const lengths = region.grid.map((count, axis) => count * (region.block[axis] as number));
    if (onlyFirst(region)) return b.reshape(stack, lengths);
    const rank = region.grid.length;
    const gridded = b.reshape(stack, [...region.grid, ...region.block]);
    const perm = region.grid.flatMap((_, axis) => [axis, rank + axis]);
    return b.reshape(b.transpose(gridded, perm), lengths);
  });
  for (let axis = cut.shape.length - 1; axis >= 0; axis--) {
    const along = cut.regionGrid[axis] as number;
    parts = Array.from({ length: parts.length / along }, (_, i) =>
      b.concat(parts.slice(i * along, (i + 1) * along), axis),
    );
  }
  const whole = parts[0] as string;
  return sameShape(dims, cut.shape) ? whole : b.reshape(whole, dims);
}

/** Whether only the first axis is cut: then the blocks lie one behind the other already. */
function onlyFirst(region: Region): boolean {
  return region.grid.every((count, axis) => axis === 0 || count === 1);
}

function evens(rank: number): number[] {
  return Array.from({ length: rank }, (_, axis) => 2 * axis);
}

function odds(rank: number): number[] {
  return Array.from({ length: rank }, (_, axis) => 2 * axis + 1);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}
