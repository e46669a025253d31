/**
 * Families whose draws and moments are looked up in tables, without Exp and Log. A draw interpolates the quantile function at
 * one uniform; a fast one is one look-up (`draw-table.ts`), but for families that change too fast for it.
 */
import { float } from "../onnx/attributes.js";
import type { GraphBuilder } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import { type ContinuousDensity, scalarFamily } from "./density.js";
import type { EmitDivergence } from "./divergences.js";
import { drawTable, LAST, place } from "./draw-table.js";
import { type DensityInput, divided, type Family, type PooledRandom, type SampleInput } from "./family.js";
import { coin } from "./random.js";
import { flatten, unflatten } from "./shapes.js";
import { sharedValue } from "./shared-values.js";
import {
  bilinear,
  CELLS,
  centredNodes,
  momentTable,
  NORMALISER_CELLS,
  normaliserTable,
  type QuantileNodes,
  quantileNodes,
  supportBox,
  type TableLayout,
} from "./tables.js";

export interface TableFamilyOptions {
  readonly name: string;
  readonly parameters?: Readonly<Record<string, number>>;
  readonly density: ContinuousDensity;
  readonly layout: TableLayout;
  /** Emits D(y, a). */
  readonly divergence: EmitDivergence;
  /** Emits f(a), for a caller who has no ŷ yet. */
  activation(b: GraphBuilder, a: string): string;
}

type Cache = Map<string, Record<string, Float32Array<ArrayBuffer>>>;

/** Tables by family and parameters: building one takes about a tenth of a second. */
const tables: Cache = new Map();
const nodes = new Map<string, QuantileNodes>();
const drawTables = new Map<string, Float32Array<ArrayBuffer> | "none">();

export function tableFamily(options: TableFamilyOptions): Family {
  const parameters = options.parameters ?? {};
  const emitter = new TableEmitter(options, `${options.name}${JSON.stringify(parameters)}`);
  return {
    name: options.name,
    parameters,
    residual: (b, input) => b.scope(options.name, () => emitter.residual(b, input)),
    moments: (b, input) => b.scope(options.name, () => emitter.moments(b, input)),
    logDensity: (b, input) => b.scope(options.name, () => emitter.logDensity(b, input)),
    scalar: scalarFamily(options.density),
  };
}

/** k and the spread, both flat. */
interface Position {
  readonly k: string;
  readonly spread: string | undefined;
}

type Argument = Pick<SampleInput, "a" | "activation">;

class TableEmitter {
  constructor(
    private readonly options: TableFamilyOptions,
    private readonly key: string,
  ) {}

  residual(b: GraphBuilder, input: SampleInput): string {
    if (input.draw === "two-point") return divided(b, this.twoPointResidual(b, input), input);
    const isCentred = input.score === "centred";
    const table = input.draw === "fast" && input.pool ? this.drawTable(isCentred) : undefined;
    if (table && input.pool) return this.pooledResidual(b, input, input.pool, table);
    return divided(b, this.interpolatedResidual(b, input), input);
  }

  /** One look-up: the position of `a` in a column of the table, plus the pool's level and fraction. */
  private pooledResidual(b: GraphBuilder, input: SampleInput, pool: PooledRandom, table: Float32Array): string {
    const { alpha, beta } = place(this.options.layout);
    const share = b.op("HardSigmoid", [input.a], { alpha: float(alpha), beta: float(beta) });
    const at = b.add(b.mul(share, b.f32(LAST)), pool.levels());
    // NaN casts to the least integer, and −1 is the table's end.
    const index = flatten(b, toIndex(b, at, -1));
    const key = `fast:${input.score}:${this.key}`;
    const residuals = sharedValue(b, `${key}:${input.divisor}`, () => {
      const values = sharedValue(b, key, () => b.initializer("fast", DataType.FLOAT, [table.length], table));
      return divided(b, values, input);
    });
    return unflatten(b, b.op("GatherElements", [residuals, index], { axis: 0 }), b.shape(input.a));
  }

  /** base + spread·T[k, r(u)] − ŷ, bilinear, for a uniform u. */
  private interpolatedResidual(b: GraphBuilder, input: SampleInput): string {
    const { columns, values } = this.nodes();
    const position = this.position(b, input.a);
    const u = input.random.uniform(b, b.shape(position.k));

    const column = cellOf(b, position.k, columns);
    const r = b.sub(b.sqrt(u), b.sqrt(b.sub(b.f32(1), u)));
    const cell = cellOf(b, r, CELLS);
    const index = toIndex(b, b.add(b.mul(column.floor, b.f32(CELLS)), cell.floor));

    const centred = input.score === "centred";
    const table = this.initializers(b, centred ? "centred" : "quantiles", () => ({
      ...bilinear(centred ? centredNodes(values) : values),
    }));
    const look = (name: string) => b.op("GatherElements", [table[name] as string, index], { axis: 0 });
    const atColumn = b.add(look("value"), b.mul(look("stepR"), cell.fraction));
    const towardsNext = b.add(look("stepK"), b.mul(look("stepRK"), cell.fraction));
    const scaled = b.add(atColumn, b.mul(column.fraction, towardsNext));
    const draw = position.spread === undefined ? scaled : b.mul(position.spread, scaled);
    const shaped = unflatten(b, draw, b.shape(input.a));
    return centred ? shaped : this.addOffset(b, shaped, input, position.k);
  }

  /** ±√variance by a coin, plus the mean's distance from ŷ for the paper's score. */
  private twoPointResidual(b: GraphBuilder, input: SampleInput): string {
    const { bias, variance, position } = this.lookUpMoments(b, input);
    const shape = b.shape(input.a);
    const deviation = b.mul(b.sqrt(variance), coin(b, input.random, b.shape(position.k)));
    if (input.score === "centred") return unflatten(b, deviation, shape);
    return this.addOffset(b, unflatten(b, b.add(bias, deviation), shape), input, position.k);
  }

  moments(b: GraphBuilder, input: Argument): { mean: string; variance: string } {
    const { bias, variance, position } = this.lookUpMoments(b, input);
    const shape = b.shape(input.a);
    return {
      mean: b.add(this.base(b, input, position.k), unflatten(b, bias, shape)),
      variance: unflatten(b, variance, shape),
    };
  }

  /** −D(y, a) − log Z(a), with log(Z/spread) looked up. */
  logDensity(b: GraphBuilder, { y, a }: DensityInput): string {
    const { layout, density, divergence } = this.options;
    const position = this.position(b, a);
    const column = cellOf(b, position.k, NORMALISER_CELLS);
    const index = toIndex(b, column.floor);
    const table = this.initializers(b, "normaliser", () => ({ ...normaliserTable(density, layout) }));
    const look = (name: string) => b.op("GatherElements", [table[name] as string, index], { axis: 0 });
    const ratio = b.add(look("value"), b.mul(look("step"), column.fraction));
    const logZ = position.spread === undefined ? ratio : b.add(ratio, b.log(position.spread));
    const inside = withinSupport(b, y, density.support, (nearest) => divergence(b, nearest, a));
    return b.sub(inside, unflatten(b, logZ, b.shape(a)));
  }

  /** E[y] − base and Var[y], flat. */
  private lookUpMoments(b: GraphBuilder, input: Argument) {
    const { layout, density } = this.options;
    // Twice the columns of the quantile table: a moment table is small, and linear in k is all that it is.
    const columns = 2 * this.nodes().columns;
    const position = this.position(b, input.a);
    const column = cellOf(b, position.k, columns);
    const index = toIndex(b, column.floor);
    const table = this.initializers(b, "moments", () => ({ ...momentTable(density, layout, columns) }));
    const look = (name: string) => b.op("GatherElements", [table[name] as string, index], { axis: 0 });
    const mean = b.add(look("mean"), b.mul(look("meanStep"), column.fraction));
    const variance = b.add(look("variance"), b.mul(look("varianceStep"), column.fraction));
    const { spread } = position;
    if (spread === undefined) return { bias: mean, variance, position };
    return { bias: b.mul(mean, spread), variance: b.mul(variance, b.mul(spread, spread)), position };
  }

  /** k = t/(1 + |t|) by primitives, since WebGPU has no Softsign; 1/(1 + |t|) = 1 − |k| is a spread by itself. */
  private position(b: GraphBuilder, a: string): Position {
    const { scale, shift = 0, spread } = this.options.layout;
    const flat = flatten(b, a);
    const moved = shift === 0 ? flat : b.sub(flat, b.f32(shift));
    const t = scale === 1 ? moved : b.mul(moved, b.f32(1 / scale));
    const decay = b.op("Reciprocal", [b.add(b.abs(t), b.f32(1))]);
    const k = b.mul(t, decay);
    switch (spread) {
      case "both":
        return { k, spread: decay };
      case "root":
        return { k, spread: b.sqrt(decay) };
      case "below":
        return { k, spread: b.add(b.min(k, b.f32(0)), b.f32(1)) };
      case "none":
        return { k, spread: undefined };
    }
  }

  private base(b: GraphBuilder, input: Argument, k: string): string {
    const { base, shift = 0 } = this.options.layout;
    switch (base) {
      case "activation":
        return this.activation(b, input);
      case "linear": {
        const { centre, halfWidth } = supportBox(this.options.density);
        const scaled = halfWidth === 1 ? k : b.mul(k, b.f32(halfWidth));
        return unflatten(b, centre === 0 ? scaled : b.add(scaled, b.f32(centre)), b.shape(input.a));
      }
      case "rectified":
        return b.op("Relu", [shift === 0 ? input.a : b.sub(input.a, b.f32(shift))]);
      case "identity":
        return input.a;
    }
  }

  /** x + base − ŷ. */
  private addOffset(b: GraphBuilder, x: string, input: Argument, k: string): string {
    if (this.options.layout.base === "activation") return x;
    return b.add(x, b.sub(this.base(b, input, k), this.activation(b, input)));
  }

  private activation(b: GraphBuilder, input: Argument): string {
    return input.activation ?? this.options.activation(b, input.a);
  }

  private drawTable(isCentred: boolean): Float32Array<ArrayBuffer> | undefined {
    const key = `${isCentred}:${this.key}`;
    const table = drawTables.get(key) ?? drawTable(this.options.density, this.options.layout, isCentred) ?? "none";
    drawTables.set(key, table);
    return table === "none" ? undefined : table;
  }

  private nodes(): QuantileNodes {
    let known = nodes.get(this.key);
    if (!known) {
      known = quantileNodes(this.key, this.options.density, this.options.layout);
      nodes.set(this.key, known);
    }
    return known;
  }

  private initializers(b: GraphBuilder, kind: string, build: () => Record<string, Float32Array<ArrayBuffer>>) {
    const key = `${kind}:${this.key}`;
    return sharedValue(b, key, () => {
      let arrays = tables.get(key);
      if (!arrays) {
        arrays = build();
        tables.set(key, arrays);
      }
      return Object.fromEntries(
        Object.entries(arrays).map(([name, data]) => [
          name,
          b.initializer(`${kind}_${name}`, DataType.FLOAT, [data.length], data),
        ]),
      );
    });
  }
}

/** −D where y lies in the support, −∞ outside. */
function withinSupport(
  b: GraphBuilder,
  y: string,
  [low, high]: readonly [number, number],
  divergence: (y: string) => string,
): string {
  const [hasLow, hasHigh] = [Number.isFinite(low), Number.isFinite(high)];
  let nearest = hasLow ? b.max(y, b.f32(low)) : y;
  if (hasHigh) nearest = b.min(nearest, b.f32(high));
  const log = b.neg(divergence(nearest));
  if (nearest === y) return log;
  return b.where(b.equal(nearest, y), log, b.f32(Number.NEGATIVE_INFINITY));
}

/** Which of `count` cells over [−1, 1] holds x, as a float, and where in it. */
function cellOf(b: GraphBuilder, x: string, count: number): { floor: string; fraction: string } {
  // Slightly less than count/2, so that x = 1 falls into the last cell.
  const at = b.add(b.mul(x, b.f32((count / 2) * (1 - 1e-6))), b.f32(count / 2));
  const floor = b.op("Floor", [at]);
  return { floor, fraction: b.sub(at, floor) };
}

/** NaN becomes an index inside the table (for 0, the fraction carries the NaN on) rather than an error of GatherElements. */
function toIndex(b: GraphBuilder, cell: string, least = 0): string {
  return b.max(b.cast(cell, DataType.INT32), b.i32(least));
}
