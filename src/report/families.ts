/** Families as numbers to show: densities and moments in float64, and draws of the very nodes that training programs hold. */
import { UsageError } from "../errors.js";
import type { Family, ScalarFamily } from "../families/family.js";
import { counterRandom } from "../families/random.js";
import { familyByName } from "../families/registry.js";
import { emptyGraph, GraphBuilder } from "../onnx/builder.js";
import { DataType, type ModelProto } from "../onnx/proto.js";
import { PROGRAM_IR, PROGRAM_OPSET } from "../onnx/versions.js";
import { familyLabel } from "../rewrite/inspect.js";
import { loadRuntime, tensorOver } from "../runtime/ort.js";
import { createSession } from "../runtime/session.js";

export interface FamilyRequest {
  readonly name: string;
  readonly parameters?: Readonly<Record<string, number>>;
}

export interface FamiliesOptions {
  /** Pre-activations to show each family at. Default −2, −1, 0, 1, 2. */
  readonly at?: readonly number[];
  /** Activations to show each family at, instead of pre-activations. */
  readonly yhat?: readonly number[];
  /** Draws at each of them. Default 20,000. */
  readonly samples?: number;
  /** Seeds the draws. Default 0. */
  readonly seed?: number;
}

export interface FamilyCurve {
  /** The pre-activation, and ŷ = f(a). */
  readonly a: number;
  readonly yhat: number;
  /** E[y] and Var[y] by quadrature. */
  readonly mean: number;
  readonly variance: number;
  /** The same as the family's ONNX nodes give them, in float32. */
  readonly graph: { readonly mean: number; readonly variance: number };
  /** The same of the draws, and the standard error of their mean. */
  readonly sampled: { readonly mean: number; readonly variance: number; readonly meanError: number };
  /** p(y|ŷ) over the grid; a probability for each point of a discrete family. */
  readonly density: readonly number[];
  /** The draws' density in each bin of the grid; a frequency for each point of a discrete family. */
  readonly histogram: readonly number[];
}

export interface FamilyPicture {
  readonly name: string;
  readonly parameters: Readonly<Record<string, number>>;
  /** Such as `leaky_relu(alpha=0.1)`. */
  readonly label: string;
  /** Null stands for infinity. */
  readonly support: readonly [number | null, number | null];
  readonly isDiscrete: boolean;
  /** Where the densities are: equally spaced, or the points of a discrete family. */
  readonly grid: readonly number[];
  /** Edges of the histograms' bins, one more than bins; the points of a discrete family. */
  readonly edges: readonly number[];
  readonly curves: readonly FamilyCurve[];
}

const DEFAULT_AT: readonly number[] = [-2, -1, 0, 1, 2];
const DEFAULT_SAMPLES = 20_000;
const GRID_POINTS = 361;
const BINS = 60;
/** What of a family's mass the picture may leave out at either end. */
const TAIL = 0.002;
/** Softmax is shown by its first class, with the logits (a, 0, 0, 0). */
const CLASSES = 4;

/**
 * Computes what a picture of families shows.
 * @throws FishyError for an unknown family; UsageError for a ŷ outside its range.
 */
export async function pictureFamilies(
  requests: readonly FamilyRequest[],
  options: FamiliesOptions = {},
): Promise<FamilyPicture[]> {
  const pictures: FamilyPicture[] = [];
  for (const request of requests) pictures.push(await pictureFamily(request, options));
  return pictures;
}

async function pictureFamily({ name, parameters }: FamilyRequest, options: FamiliesOptions): Promise<FamilyPicture> {
  const family = familyByName(name, name === "softmax" ? { axis: -1 } : parameters);
  const scalar = scalarOf(family);
  const label = name === "softmax" ? `softmax (one of ${CLASSES} classes)` : familyLabel(family);
  const at = options.yhat
    ? options.yhat.map((yhat) => preActivationOf(scalar, yhat, label))
    : [...(options.at ?? DEFAULT_AT)];
  const { samples = DEFAULT_SAMPLES, seed = 0 } = options;
  const drawn = await draw(family, at, samples, seed);
  const { grid, edges } = gridsOf(scalar, at);
  const [low, high] = scalar.support;
  return {
    name: family.name,
    parameters: family.parameters,
    label,
    support: [Number.isFinite(low) ? low : null, Number.isFinite(high) ? high : null],
    isDiscrete: scalar.points !== undefined,
    grid,
    edges,
    curves: at.map((a, i): FamilyCurve => {
      const { residuals, mean, variance } = drawn[i] as Drawn;
      const yhat = scalar.activation(a);
      const draws = residuals.map((residual) => yhat + residual);
      return {
        a,
        yhat,
        mean: scalar.mean(a),
        variance: scalar.variance(a),
        graph: { mean, variance },
        sampled: momentsOf(draws),
        density: grid.map((y) => Math.exp(scalar.logDensity(y, a))),
        histogram: scalar.points ? frequencies(draws, scalar.points) : histogram(draws, edges),
      };
    }),
  };
}

function scalarOf(family: Family): ScalarFamily {
  if (family.scalar) return family.scalar;
  if (family.name !== "softmax") throw new Error(`the family '${family.name}' has no scalar form`);
  const one = familyByName("bernoulli").scalar as ScalarFamily;
  const shift = Math.log(CLASSES - 1);
  return {
    support: one.support,
    points: one.points as readonly number[],
    activation: (a) => one.activation(a - shift),
    logDensity: (y, a) => one.logDensity(y, a - shift),
    mean: (a) => one.mean(a - shift),
    variance: (a) => one.variance(a - shift),
    quantile: (u, a) => one.quantile(u, a - shift),
  };
}

/** The largest pre-activation that is looked for. */
const FARTHEST = 1e4;

/** The a with f(a) = ŷ, by bisection: f is non-decreasing. */
function preActivationOf(scalar: ScalarFamily, yhat: number, label: string): number {
  let [low, high] = [-FARTHEST, FARTHEST];
  for (let step = 0; step < 200 && low < high; step++) {
    const middle = (low + high) / 2;
    if (scalar.activation(middle) < yhat) low = middle;
    else high = middle;
  }
  const a = Math.abs(low + high) / 2 < 1e-12 ? 0 : (low + high) / 2;
  if (Math.abs(scalar.activation(a) - yhat) > 1e-6 * (1 + Math.abs(yhat))) {
    throw new UsageError(
      `ŷ = ${yhat} is no value of the activation of ${label}, or its limit. Choose others, or --at.`,
    );
  }
  return a;
}

function gridsOf(scalar: ScalarFamily, at: readonly number[]): { grid: number[]; edges: number[] } {
  if (scalar.points) return { grid: [...scalar.points], edges: [...scalar.points] };
  const [least, most] = scalar.support;
  const low = Math.min(...at.map((a) => scalar.quantile(TAIL, a)));
  const high = Math.max(...at.map((a) => scalar.quantile(1 - TAIL, a)));
  // A support that is nearly filled is shown whole.
  const width = high - low;
  const start = Number.isFinite(least) && low - least < 0.1 * width ? least : low;
  const end = Number.isFinite(most) && most - high < 0.1 * width ? most : high;
  const spread = (count: number) => Array.from({ length: count + 1 }, (_, i) => start + ((end - start) * i) / count);
  return { grid: spread(GRID_POINTS - 1), edges: spread(BINS) };
}

interface Drawn {
  readonly residuals: number[];
  readonly mean: number;
  readonly variance: number;
}

/** Draws y − ŷ, and evaluates the moments, with the family's ONNX nodes. */
async function draw(family: Family, at: readonly number[], samples: number, seed: number): Promise<Drawn[]> {
  const isVector = family.name === "softmax";
  const inner = isVector ? [samples, CLASSES] : [samples];
  const b = new GraphBuilder(emptyGraph("families"));
  const type = { elemType: DataType.FLOAT, shape: [at.length, ...inner] };
  const a = b.input("a", type);
  const seedInput = b.input("seed", { elemType: DataType.INT64, shape: [] });
  const random = counterRandom(seedInput, 0);
  const residual = family.residual(b, { a, type, random, score: "paper", draw: "exact" });
  const moments = family.moments(b, { a, type });
  const outputs = [residual, moments.mean, moments.variance].map((value, i) => b.alias(value, `output_${i}`));
  for (const output of outputs) b.output(output, { elemType: DataType.FLOAT, shape: type.shape });
  const model: ModelProto = {
    ...{ irVersion: PROGRAM_IR, producerName: "fishy", graph: b.graph },
    ...{ opsetImport: [{ domain: "", version: PROGRAM_OPSET }], metadataProps: [], trainingInfo: [], functions: [] },
  };
  const ort = await loadRuntime();
  const stride = inner.reduce((product, dim) => product * dim, 1);
  const values = new Float32Array(at.length * stride);
  const step = isVector ? CLASSES : 1;
  at.forEach((value, row) => {
    for (let i = 0; i < stride; i += step) values[row * stride + i] = value;
  });
  const session = await createSession(model, { purpose: `the samples of the family '${family.name}'` });
  try {
    const result = await session.fetch(
      {
        a: tensorOver(ort, DataType.FLOAT, type.shape, values, "a"),
        seed: tensorOver(ort, DataType.INT64, [], BigInt64Array.of(BigInt(seed)), "seed"),
      },
      outputs,
    );
    const [residuals, means, variances] = outputs.map((name) => result[name]?.data as Float32Array) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    return at.map((_, row) => ({
      residuals: Array.from({ length: samples }, (_, i) => residuals[row * stride + i * step] as number),
      mean: means[row * stride] as number,
      variance: variances[row * stride] as number,
    }));
  } finally {
    await session.release();
  }
}

function momentsOf(draws: readonly number[]): FamilyCurve["sampled"] {
  const mean = draws.reduce((sum, y) => sum + y, 0) / draws.length;
  const variance = draws.reduce((sum, y) => sum + (y - mean) ** 2, 0) / Math.max(1, draws.length - 1);
  return { mean, variance, meanError: Math.sqrt(variance / draws.length) };
}

/** The share of the draws in each bin over the bin's width; draws beyond the edges count in the total. */
function histogram(draws: readonly number[], edges: readonly number[]): number[] {
  const [first, last] = [edges[0] as number, edges[edges.length - 1] as number];
  const width = (last - first) / (edges.length - 1);
  const counts = new Array<number>(edges.length - 1).fill(0);
  for (const y of draws) {
    const bin = Math.min(Math.floor((y - first) / width), counts.length - 1);
    // A float32 draw at the end of the support may lie an ulp beyond it.
    if (y >= first - 1e-5 * width && y <= last + 1e-5 * width)
      counts[Math.max(bin, 0)] = (counts[Math.max(bin, 0)] ?? 0) + 1;
  }
  return counts.map((count) => count / draws.length / width);
}

function frequencies(draws: readonly number[], points: readonly number[]): number[] {
  const nearest = (y: number) =>
    points.reduce((best, point, i) => (Math.abs(point - y) < Math.abs((points[best] as number) - y) ? i : best), 0);
  const counts = new Array<number>(points.length).fill(0);
  for (const y of draws) {
    const i = nearest(y);
    counts[i] = (counts[i] as number) + 1;
  }
  return counts.map((count) => count / draws.length);
}
