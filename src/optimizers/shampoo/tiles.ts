/**
 * Symmetric matrices as the tiles on and above their diagonal. A product of two that commute is symmetric as well, so
 * only those tiles are computed: (t + 1)/2t of the arithmetic with t × t tiles, and no copies, since Gemm transposes
 * what lies below the diagonal as it reads it.
 */
import type { GraphBuilder } from "../../onnx/builder.js";
import type { DataType } from "../../onnx/proto.js";

/** The tiles (0,0), (0,1), …, (0,t−1), (1,1), … */
export type SymmetricTiles = readonly string[];

export interface ProductOptions {
  /** Multiplies the product; a float32 number. */
  readonly scale?: number | undefined;
  /** Added to the product. */
  readonly plus?: { readonly tiles: SymmetricTiles; readonly weight: number } | undefined;
}

/** Length of a tile's side at which Gemm still runs at full speed. */
const TILE = 250;
/** More tiles save little more, and every product is count³/2 nodes. */
const MOST_TILES = 4;

/** The tiling of d × d matrices, and arithmetic on it. */
export class Tiling {
  /** Tiles along a side. */
  readonly count: number;
  /** Where they start, and the size at the end. */
  private readonly edges: readonly number[];

  constructor(
    readonly size: number,
    readonly type: DataType,
  ) {
    this.count = Math.min(MOST_TILES, Math.max(2, Math.round(size / TILE)));
    this.edges = Array.from({ length: this.count + 1 }, (_, i) => Math.round((size * i) / this.count));
  }

  /** [rows, columns] of each tile. */
  get shapes(): [number, number][] {
    return this.pairs.map(([i, j]) => [this.side(i), this.side(j)]);
  }

  /** Cuts a matrix, [d, d]. */
  split(b: GraphBuilder, matrix: string): SymmetricTiles {
    const at = (i: number) => this.edges[i] as number;
    return this.pairs.map(([i, j]) => b.slice(matrix, [at(i), at(j)], [at(i + 1), at(j + 1)], [0, 1]));
  }

  /** The inverse of `split`. */
  join(b: GraphBuilder, tiles: SymmetricTiles): string {
    const whole = (i: number, j: number) =>
      i <= j ? this.tile(tiles, i, j) : b.transpose(this.tile(tiles, j, i), [1, 0]);
    const range = Array.from({ length: this.count }, (_, i) => i);
    return b.concat(
      range.map((i) =>
        b.concat(
          range.map((j) => whole(i, j)),
          1,
        ),
      ),
      0,
    );
  }

  /** Cuts a column, [d, 1]. */
  splitColumn(b: GraphBuilder, column: string): string[] {
    return this.edges.slice(1).map((end, i) => b.slice(column, [this.edges[i] as number], [end], [0]));
  }

  /** Does the same to every tile. */
  map(tiles: SymmetricTiles, change: (tile: string, i: number, j: number) => string): SymmetricTiles {
    return this.pairs.map(([i, j]) => change(this.tile(tiles, i, j), i, j));
  }

  /** x + value·I, the value a number or a [1, 1]. */
  shift(b: GraphBuilder, x: SymmetricTiles, value: number | string): SymmetricTiles {
    const scalar = typeof value === "number" ? b.constant(this.type, value) : value;
    return this.map(x, (tile, i, j) => (i === j ? b.add(tile, b.mul(this.identity(b, i), scalar)) : tile));
  }

  /** scale·x·y (+ weight·plus) for x and y that commute. */
  product(b: GraphBuilder, x: SymmetricTiles, y: SymmetricTiles, options: ProductOptions = {}): SymmetricTiles {
    return this.pairs.map(([i, j], k) => {
      const { plus } = options;
      const start = plus && { value: plus.tiles[k] as string, weight: plus.weight };
      return this.entry(b, x, y, i, j, options.scale, start);
    });
  }

  /**
   * The mean of x and its transpose. Tiles off the diagonal are symmetric as they stand; those on it are only to rounding,
   * and an iteration that takes one tile for the transpose of another would let that grow.
   */
  symmetric(b: GraphBuilder, x: SymmetricTiles): SymmetricTiles {
    const half = b.constant(this.type, 0.5);
    return this.map(x, (tile, i, j) => (i === j ? b.mul(b.add(tile, b.transpose(tile, [1, 0])), half) : tile));
  }

  /** All tiles of x·y, row by row, whether x and y commute or not. */
  wholeProduct(
    b: GraphBuilder,
    x: SymmetricTiles,
    y: SymmetricTiles,
  ): { tile: string; diagonal: number | undefined }[] {
    const range = Array.from({ length: this.count }, (_, i) => i);
    return range.flatMap((i) =>
      range.map((j) => ({ tile: this.entry(b, x, y, i, j), diagonal: i === j ? i : undefined })),
    );
  }

  /** The identity of a diagonal tile's size. */
  identity(b: GraphBuilder, i: number): string {
    const side = this.side(i);
    return b.op("EyeLike", [b.op("ConstantOfShape", [b.i64([side, side])])], { dtype: this.type });
  }

  /** A tile of scale·x·y, as a chain of Gemms that add up. */
  private entry(
    b: GraphBuilder,
    x: SymmetricTiles,
    y: SymmetricTiles,
    i: number,
    j: number,
    scale?: number,
    start?: { value: string; weight: number },
  ): string {
    let sum = start?.value;
    for (let k = 0; k < this.count; k++) {
      sum = b.gemm(this.tile(x, Math.min(i, k), Math.max(i, k)), this.tile(y, Math.min(k, j), Math.max(k, j)), {
        transA: k < i,
        transB: j < k,
        ...(scale !== undefined && { alpha: scale }),
        ...(sum !== undefined && { c: sum, beta: k === 0 ? (start?.weight ?? 1) : 1 }),
      });
    }
    return sum as string;
  }

  /** The tile (i, j), i ≤ j. */
  tile(tiles: SymmetricTiles, i: number, j: number): string {
    return tiles[i * this.count - (i * (i - 1)) / 2 + (j - i)] as string;
  }

  /** Length of a diagonal tile's side. */
  side(i: number): number {
    return (this.edges[i + 1] as number) - (this.edges[i] as number);
  }

  private get pairs(): [number, number][] {
    return Array.from({ length: this.count }, (_, i) =>
      Array.from({ length: this.count - i }, (_, k): [number, number] => [i, i + k]),
    ).flat();
  }
}
