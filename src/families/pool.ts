/**
 * Random numbers that cost an element almost nothing: a pool of 2¹⁷ of them is drawn once in a step, and every run of
 * about `WIDTH` elements takes a row of it at random and turns its levels by a random amount of its own, or gives its
 * normal numbers a random sign. The levels of any two elements are then independent, in one boundary or in two, and normals
 * uncorrelated: all that the expectations of G_s·G_sᵀ and G_sᵀ·G_s depend on. Three or more are so only nearly, by the many
 * rows of the pool.
 */
import type { GraphBuilder } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import type { PooledRandom } from "./family.js";
import { lookedUpNormal } from "./normal.js";
import { counterRandom } from "./random.js";
import { flatten, unflatten } from "./shapes.js";

/** The longest runs: rows of the pool, of which a boundary uses the beginnings. */
const WIDTH = 128;
/** Shorter ones than that are not taken to spare a boundary the remainder of its last run. */
const SHORTEST = 64;
const ROW_BITS = 10;
const ROWS = 2 ** ROW_BITS;

const LEVEL_BITS = 4;
/** Equally likely levels of a draw. */
export const LEVELS = 2 ** LEVEL_BITS;
/** How far levels are apart: a position in a table with a column for each level is added to them. */
export const LEVEL_STEP = 1024;
/** Bits of the fraction with which a draw falls into one of two neighbouring cells of a table. */
const FRACTION_BITS = 7;

/** No boundary has this number: the pool's streams are its own. */
const POOL = -1;

/**
 * The random numbers of every boundary of a program, in their order.
 *
 * @param seed name of an int64 scalar in the graph
 * @param boundaries what they draw
 */
export function pooledRandom(b: GraphBuilder, seed: string, boundaries: readonly Drawn[]): PooledRandom[] {
  const pool = new Pool(b, seed);
  const counts = boundaries.map(({ shape, last }) => {
    const width = runLength(last);
    const size = b.reduce("ReduceProd", shape, undefined, true);
    return { shape, size, width, runs: b.div(b.add(size, b.i64([width - 1])), b.i64([width])) };
  });
  const ends: string[] = [];
  for (const { runs } of counts) ends.push(ends.length === 0 ? runs : b.add(ends[ends.length - 1] as string, runs));
  pool.runs = ends[ends.length - 1] ?? b.i64([0]);
  return counts.map(({ shape, size, width }, i) => {
    const start = i === 0 ? b.i64([0]) : (ends[i - 1] as string);
    const own = (keys: string) => b.op("Slice", [keys, start, ends[i] as string, b.i64([0])]);
    const spread = (rows: string) => {
      if (divides(width, boundaries[i]?.last)) return unflatten(b, rows, shape);
      return unflatten(b, b.op("Slice", [flatten(b, rows), b.i64([0]), size, b.i64([0])]), shape);
    };
    return {
      levels: () => spread(b.add(b.gather(pool.levels(width), own(pool.keys().row)), own(pool.keys().turn))),
      normals: (divisor) =>
        spread(b.mul(b.gather(pool.normals(width, divisor), own(pool.keys().row)), own(pool.keys().sign))),
    };
  });
}

/** What a boundary draws. */
export interface Drawn {
  /** The name of its shape, an int64 vector. */
  readonly shape: string;
  /** Its last dimension, where that is known. */
  readonly last?: number | undefined;
}

/** The longest run of which rows of `last` elements hold a whole number; else WIDTH. */
function runLength(last: number | undefined): number {
  for (let width = WIDTH; width >= SHORTEST; width--) if (divides(width, last)) return width;
  return WIDTH;
}

function divides(width: number, last: number | undefined): boolean {
  return last !== undefined && last % width === 0;
}

/** What the boundaries share; emitted when the first of them wants it. */
class Pool {
  /** How many runs all boundaries have, an int64 vector of one. */
  runs = "";
  private readonly made = new Map<string, unknown>();

  constructor(
    private readonly b: GraphBuilder,
    private readonly seed: string,
  ) {}

  private once<T>(key: string, make: (b: GraphBuilder) => T): T {
    if (!this.made.has(key))
      this.made.set(
        key,
        this.b.scope("pool", () => make(this.b)),
      );
    return this.made.get(key) as T;
  }

  /** By run: the row that it takes, int32 [runs], and what it adds to levels or multiplies normals by, float32 [runs, 1]. */
  keys(): { row: string; turn: string; sign: string } {
    return this.once("keys", (b) => {
      const words = this.integers("keys", this.runs, ROW_BITS + LEVEL_BITS);
      const row = b.div(words, b.u32(LEVELS));
      const level = b.cast(b.sub(words, b.mul(row, b.u32(LEVELS))), DataType.FLOAT);
      const column = b.unsqueeze(level, [1]);
      const isUpper = b.cast(b.less(column, b.f32(LEVELS / 2)), DataType.FLOAT);
      return {
        row: b.cast(row, DataType.INT32),
        turn: b.mul(column, b.f32(LEVEL_STEP)),
        sign: b.sub(b.add(isUpper, isUpper), b.f32(1)),
      };
    });
  }

  /** LEVEL_STEP·level + fraction, float32 [ROWS, width]. */
  levels(width: number): string {
    const whole = this.once("levels", (b) => {
      const scale = 2 ** FRACTION_BITS;
      const words = this.integers("levels", b.i64([ROWS, WIDTH]), LEVEL_BITS + FRACTION_BITS);
      const level = b.div(words, b.u32(scale));
      const fraction = b.sub(words, b.mul(level, b.u32(scale)));
      const float = (x: string, factor: number) => b.mul(b.cast(x, DataType.FLOAT), b.f32(factor));
      return b.add(float(level, LEVEL_STEP), float(fraction, 1 / scale));
    });
    return this.rows(whole, width);
  }

  /** Standard normals, divided where a divisor is given; float32 [ROWS, width]. */
  normals(width: number, divisor: string | undefined): string {
    const normals = this.once("normals", (b) => {
      const shape = b.i64([ROWS, WIDTH]);
      return lookedUpNormal(b, (bits) => this.integers("normals", shape, bits), shape);
    });
    const scaled = divisor === undefined ? normals : this.once(`normals/${divisor}`, (b) => b.div(normals, divisor));
    return this.rows(scaled, width);
  }

  /** The beginnings of the rows of [ROWS, WIDTH]. */
  private rows(whole: string, width: number): string {
    return width === WIDTH ? whole : this.once(`${whole}/${width}`, (b) => b.slice(whole, [0], [width], [1]));
  }

  private integers(stream: "keys" | "levels" | "normals", shape: string, bits: number): string {
    const number = { keys: 0, levels: 1, normals: 2 }[stream];
    return counterRandom(this.seed, POOL - number).integers(this.b, shape, bits);
  }
}
