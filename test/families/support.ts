/** Running a family's nodes, and the golden file. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import * as ort from "onnxruntime-node";
import type { Draw, Family, RandomSource, Score } from "../../src/families/family.js";
import { pooledRandom } from "../../src/families/pool.js";
import { counterRandom } from "../../src/families/random.js";
import { familyByName } from "../../src/families/registry.js";
import type { Dim, GraphBuilder } from "../../src/onnx/builder.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import { modelOf, newBuilder } from "../support/run.js";

export interface GoldenRow {
  readonly family: string;
  readonly params: Readonly<Record<string, number>>;
  readonly a: number;
  readonly yhat: number;
  readonly mean: number;
  readonly bias: number;
  readonly variance: number;
  readonly logZ: number;
  readonly quantiles: Readonly<Record<string, number>>;
  readonly residual_quantiles: Readonly<Record<string, number>>;
}

/** Our names of the families that the golden file calls otherwise. */
const NAMES: Readonly<Record<string, string>> = { identity: "gaussian", sigmoid_bernoulli: "bernoulli" };

export interface GoldenFamily {
  readonly label: string;
  readonly rows: readonly GoldenRow[];
  make(): Family;
}

/** The golden rows (mpmath, 34 digits) by family and parameters. */
export function goldenFamilies(): GoldenFamily[] {
  const file = resolve(import.meta.dirname, "../golden/bregman_golden.json");
  const groups = new Map<string, GoldenRow[]>();
  for (const row of JSON.parse(readFileSync(file, "utf8")) as GoldenRow[]) {
    const key = `${row.family} ${JSON.stringify(row.params)}`;
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return [...groups].map(([label, rows]) => {
    const [{ family, params }] = rows as [GoldenRow];
    return { label, rows, make: () => familyByName(NAMES[family] ?? family, params) };
  });
}

/** Yields the given value everywhere. */
export function constantRandom(value: number): RandomSource {
  return {
    uniform: (b, shape) => b.expand(b.f32(value), shape),
    integers: (b, shape, bits) => b.expand(b.u32(Math.floor(value * 2 ** bits)), shape),
  };
}

/** A session around a graph with the inputs `a` and `seed`. */
export class Runner {
  private constructor(
    private readonly session: ort.InferenceSession,
    private readonly outputs: readonly string[],
  ) {}

  /** @param shape of `a` in the model @param build emits the values to read */
  static async create(shape: readonly Dim[], build: (b: GraphBuilder, a: string, seed: string) => readonly string[]) {
    const b = newBuilder();
    const a = b.input("a", { elemType: DataType.FLOAT, shape });
    const seed = b.input("seed", { elemType: DataType.INT64, shape: [] });
    const outputs = build(b, a, seed);
    for (const output of outputs) b.output(output, { elemType: DataType.FLOAT, shape: undefined });
    const session = await ort.InferenceSession.create(encodeModel(modelOf(b.graph)), { logSeverityLevel: 3 });
    return new Runner(session, outputs);
  }

  async run(a: Float32Array, dims: readonly number[], seed = 1n): Promise<Float32Array[]> {
    const results = await this.session.run({
      a: new ort.Tensor("float32", a, [...dims]),
      seed: new ort.Tensor("int64", [seed], []),
    });
    return this.outputs.map((name) => results[name]?.data as Float32Array);
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

export interface SampleOptions {
  readonly score?: Score;
  readonly draw?: Draw;
  readonly random?: (seed: string) => RandomSource;
}

/** A runner whose only output is the family's residual. */
export function residualRunner(family: Family, options: SampleOptions = {}, shape: readonly Dim[] = ["rows", "n"]) {
  const { score = "paper", draw = "exact", random = (seed) => counterRandom(seed, 0) } = options;
  return Runner.create(shape, (b, a, seed) => {
    const pool = draw === "fast" && !options.random ? pooledRandom(b, seed, [{ shape: b.shape(a) }])[0] : undefined;
    const type = { elemType: DataType.FLOAT, shape };
    return [family.residual(b, { a, type, random: random(seed), ...(pool && { pool }), score, draw })];
  });
}

/** Every value of `a` repeated `n` times, one row each. */
export function rowsOf(values: readonly number[], n: number): Float32Array {
  const a = new Float32Array(values.length * n);
  values.forEach((value, i) => {
    a.fill(value, i * n, (i + 1) * n);
  });
  return a;
}

export interface Sums {
  readonly mean: number;
  readonly variance: number;
  /** Standard errors of the two. */
  readonly meanError: number;
  readonly varianceError: number;
}

/** Sample mean and variance with their standard errors, from power sums about zero of values scaled near one. */
export class Accumulator {
  private count = 0;
  private readonly powers = [0, 0, 0, 0] as [number, number, number, number];

  constructor(
    private readonly centre: number,
    private readonly scale: number,
  ) {}

  add(values: Float32Array): void {
    let [s1, s2, s3, s4] = [0, 0, 0, 0];
    for (let i = 0; i < values.length; i++) {
      const x = ((values[i] as number) - this.centre) / this.scale;
      const square = x * x;
      s1 += x;
      s2 += square;
      s3 += square * x;
      s4 += square * square;
    }
    this.count += values.length;
    this.powers[0] += s1;
    this.powers[1] += s2;
    this.powers[2] += s3;
    this.powers[3] += s4;
  }

  sums(): Sums {
    const { count, centre, scale } = this;
    const [m1, m2, m3, m4] = this.powers.map((sum) => sum / count) as [number, number, number, number];
    const variance = m2 - m1 * m1;
    const fourth = m4 - 4 * m1 * m3 + 6 * m1 * m1 * m2 - 3 * m1 ** 4;
    return {
      mean: centre + scale * m1,
      variance: scale ** 2 * variance,
      meanError: scale * Math.sqrt(variance / count),
      varianceError: scale ** 2 * Math.sqrt(Math.max(fourth - variance * variance, 0) / count),
    };
  }
}
