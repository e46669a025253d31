/**
 * Gradient accumulation: the gradient of one step over several batches, as of one batch of all their examples. Each batch
 * adds its gradient to accumulators; the step's own graph takes them with the last batch's.
 *
 *     mean losses: g = (g₁ + … + g_N)/N        sums: g = g₁ + … + g_N        weighted means: g = Σ w_k g_k / Σ w_k
 *
 * w_k being the sum of the weights of the labels that batch k counts. Sampled gradients are means over examples, each
 * batch drawing its own samples.
 */
import { UsageError } from "../errors.js";
import { GraphBuilder, type ValueType, valueInfo } from "../onnx/builder.js";
import { DataType, type GraphProto, type ModelProto } from "../onnx/proto.js";
import { tensorType } from "../onnx/types.js";
import type { Optimizer } from "../optimizers/optimizer.js";
import type { Manifest, TrainingProgram } from "../rewrite/manifest.js";
import { copyProgramGraph, finishGraph, modelAround } from "./program-graph.js";
import type { StepGraphOptions } from "./step-graph.js";

const SCALAR: ValueType = { elemType: DataType.FLOAT, shape: [] };

/** The accumulator of the weights of a weighted mean. */
export const WEIGHT = "loss_weight";

/**
 * @throws UsageError where the gradient of the whole cannot be put together from those of its parts.
 */
export function checkAccumulation(manifest: Manifest, optimizer: Optimizer, separateStatistics: boolean): void {
  if (manifest.loss.reduction === undefined && manifest.loss.name === "in-graph") {
    throw new UsageError(
      `The loss '${manifest.loss.value}' in the graph is neither a mean nor a sum over the examples that fishy recognises, so that gradients of several batches cannot be added up to that of one (accumulation). Take a larger batch, or export the model without its loss and use --loss.`,
    );
  }
  if (manifest.draw === "expected" && optimizer.statisticsSource === "sampled" && !separateStatistics) {
    throw new UsageError(
      "Expected statistics (--draw expected) are of one batch and cannot be added up over several (accumulation). Take them on a batch of their own (--statistics-batch separate), or draw samples (--draw exact).",
    );
  }
}

/** What is accumulated, by the program's output, and the shape. */
export function accumulatedOutputs(manifest: Manifest, sampled: boolean): Map<string, readonly number[]> {
  const outputs = new Map<string, readonly number[]>();
  for (const { gradient, sampledGradient, dims } of manifest.parameters) {
    outputs.set(gradient, dims);
    if (sampled && sampledGradient !== undefined) outputs.set(sampledGradient, dims);
  }
  return outputs;
}

/** A graph that adds a batch's gradients to the accumulators. */
export interface AccumulationGraph {
  readonly model: ModelProto;
  /** Graph inputs under their own names: data, seed, parameters, running statistics. */
  readonly inputs: ReadonlySet<string>;
  /** Graph input and output by accumulator: an output of the program, or `WEIGHT`. */
  readonly accumulators: ReadonlyMap<string, { readonly input: string; readonly output: string }>;
  /** Graph output by running statistic. */
  readonly carried: ReadonlyMap<string, string>;
}

/**
 * Builds the graph of all batches of a step but the last.
 * @param sampled whether sampled gradients are accumulated as well.
 */
export function buildAccumulationGraph(
  program: TrainingProgram,
  shapes: ReadonlyMap<string, readonly number[]>,
  sampled: boolean,
  device: StepGraphOptions["device"] = "cpu",
): AccumulationGraph {
  const { manifest } = program;
  const graph = copyProgramGraph(program, shapes);
  const b = new GraphBuilder(graph);
  const sums = new Accumulators(b, manifest);
  graph.output = [];
  const accumulators = new Map<string, { input: string; output: string }>();
  const declare = (key: string, total: string, type: ValueType) => {
    const output = b.op("Identity", [total], {}, `accumulated_next/${key}`);
    b.output(output, type);
    accumulators.set(key, { input: sums.inputs.get(key) as string, output });
  };
  for (const [output, dims] of accumulatedOutputs(manifest, sampled)) {
    declare(output, sums.total(output, dims), { elemType: DataType.FLOAT, shape: dims });
  }
  if (manifest.loss.reduction === "weighted") declare(WEIGHT, sums.weight(), SCALAR);
  b.output(manifest.lossOutput, SCALAR);
  const carried = new Map<string, string>();
  for (const { name, next } of manifest.runningStatistics) {
    const tensor = program.model.graph.initializer.find((initializer) => initializer.name === name);
    if (!tensor) throw new Error(`the program has no initializer '${name}'`);
    const output = b.op("Identity", [next], {}, `next/${name}`);
    b.output(output, tensorType(tensor));
    carried.set(name, output);
  }
  finishGraph(graph, program, device);
  const own = new Set([...accumulators.values()].map(({ input }) => input));
  const inputs = graph.input.map((info) => info.name ?? "").filter((name) => !own.has(name));
  return { model: modelAround(graph, program), inputs: new Set(inputs), accumulators, carried };
}

/** The nodes that add a batch's gradients to what was accumulated before it. Inputs are declared when first asked for. */
export class Accumulators {
  /** Graph input by accumulator. */
  readonly inputs = new Map<string, string>();
  private readonly made = new Map<string, string>();

  constructor(
    private readonly b: GraphBuilder,
    private readonly manifest: Manifest,
  ) {}

  /** accumulated + weight · g, for an output of the program. */
  total(output: string, dims: readonly number[]): string {
    const before = this.input(output, { elemType: DataType.FLOAT, shape: dims });
    return this.b.add(before, this.isWeighted(output) ? this.weighted(output) : output);
  }

  /** The gradient of the whole step of `batches` batches: a mean of all of them, or their sum. */
  mean(output: string, dims: readonly number[], batches: number): string {
    return this.once(`mean/${output}`, () => {
      const { b } = this;
      const total = this.total(output, dims);
      if (this.isWeighted(output)) return b.div(total, this.weight());
      const isSum = this.manifest.loss.reduction === "sum" && this.isGradient(output);
      return isSum ? total : b.mul(total, b.f32(1 / batches));
    });
  }

  /** Accumulated weights and this batch's. */
  weight(): string {
    return this.once(WEIGHT, () => this.b.add(this.input(WEIGHT, SCALAR), this.manifest.loss.weight as string));
  }

  private once(key: string, make: () => string): string {
    const value = this.made.get(key) ?? make();
    this.made.set(key, value);
    return value;
  }

  /** weight · g; zero for a batch that counts no label, whose mean is not a number. */
  private weighted(output: string): string {
    const { b } = this;
    const weight = this.manifest.loss.weight as string;
    return b.where(b.equal(weight, b.f32(0)), b.f32(0), b.mul(output, weight));
  }

  private isWeighted(output: string): boolean {
    return this.manifest.loss.reduction === "weighted" && this.isGradient(output);
  }

  private isGradient(output: string): boolean {
    return this.manifest.parameters.some(({ gradient }) => gradient === output);
  }

  private input(key: string, type: ValueType): string {
    const known = this.inputs.get(key);
    if (known) return known;
    const name = this.b.unique(`accumulated/${key}`);
    (this.b.graph as GraphProto).input.push(valueInfo(name, type));
    this.inputs.set(key, name);
    return name;
  }
}
