/**
 * Runs training steps: feeds a batch and the state, receives the next state. The graph of a step follows the
 * optimizer's schedule; graphs are built and loaded when a step first needs them.
 */
import { hashWords } from "../data/random.js";
import type { Batch, BatchInput } from "../data/source.js";
import { FishyError } from "../errors.js";
import type { ExternalSource } from "../onnx/external.js";
import { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import type { Optimizer, StepSchedule } from "../optimizers/optimizer.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { allocateBuffer, type Buffer } from "../runtime/buffers.js";
import { loadRuntime, type Runtime, type Tensor } from "../runtime/ort.js";
import { createSession, type Session } from "../runtime/session.js";
import { StateBuffers } from "./state.js";
import { buildStepGraph, type StepGraph } from "./step-graph.js";

export interface StepperOptions {
  readonly program: TrainingProgram;
  readonly optimizer: Optimizer;
  /** Data inputs as batches fill them. */
  readonly inputs: readonly BatchInput[];
  readonly batchSize: number;
  /** Seeds sampling and dropout. */
  readonly seed: number;
  readonly threads?: number;
  /** Folder of the program's external data. */
  readonly directory?: string | undefined;
}

export interface StepOutcome {
  readonly loss: number;
  /** The optimizer's diagnostics of this step. */
  readonly metrics: Readonly<Record<string, number>>;
  /** The same, with a value for each block that the optimizer lists. */
  readonly blockMetrics: Readonly<Record<string, readonly number[]>>;
}

interface LoadedStep {
  readonly graph: StepGraph;
  readonly session: Session;
  readonly metrics: ReadonlyMap<string, Buffer>;
  readonly blockMetrics: ReadonlyMap<string, Buffer>;
}

/** Marks the seeds of steps off from those of the data's order. */
const STEP_STREAM = 0x57e9;

/** The value of the program's `seed` input at a step: it depends on (seed, step) alone, so that a resumed run draws the same samples. */
export function stepSeed(seed: number, step: number): bigint {
  return BigInt.asIntN(64, hashWords(STEP_STREAM, seed, step));
}

export class Stepper {
  private readonly loaded = new Map<string, Promise<LoadedStep>>();
  private readonly batch = new Map<string, Buffer>();
  private readonly batchData: ReadonlyMap<string, TensorData>;
  private readonly seedBuffer: Buffer;
  private readonly scalars = new Map<string, Buffer>();
  private readonly loss: Buffer;

  private constructor(
    private readonly ort: Runtime,
    private readonly options: StepperOptions,
    readonly state: StateBuffers,
  ) {
    for (const { name, type, dims } of options.inputs) {
      this.batch.set(name, allocateBuffer(ort, type, [options.batchSize, ...dims], `input '${name}'`));
    }
    this.batchData = new Map([...this.batch].map(([name, { data }]) => [name, data]));
    this.seedBuffer = allocateBuffer(ort, DataType.INT64, [], "the seed");
    this.loss = allocateBuffer(ort, DataType.FLOAT, [], "the loss");
    for (const name of Object.keys(options.optimizer.hyperparameters(1))) {
      this.scalars.set(name, allocateBuffer(ort, DataType.FLOAT, [], `hyperparameter '${name}'`));
    }
  }

  static async create(options: StepperOptions): Promise<Stepper> {
    const ort = await loadRuntime();
    const source: ExternalSource = { directory: options.directory };
    return new Stepper(ort, options, await StateBuffers.initial(ort, options.program, options.optimizer, source));
  }

  /**
   * Runs one step.
   * @param step counts from 1.
   */
  async step(step: number, batch: Batch): Promise<StepOutcome> {
    const { optimizer, program, seed, batchSize } = this.options;
    if (batch.size !== batchSize) throw new Error(`a batch of ${batch.size} for steps of ${batchSize}`);
    const { graph, session, metrics, blockMetrics } = await this.load(optimizer.schedule(step));
    batch.fill(this.batchData);
    (this.seedBuffer.data as BigInt64Array)[0] = stepSeed(seed, step);
    for (const [name, value] of Object.entries(optimizer.hyperparameters(step))) {
      (this.scalars.get(name)?.data as Float32Array)[0] = value;
    }

    const feeds: Record<string, Tensor> = {};
    for (const name of graph.inputs) feeds[name] = this.inputTensor(name);
    for (const [name, input] of graph.stateInputs) feeds[input] = this.stateBuffer(name).current.tensor;
    for (const [name, input] of graph.hyperparameters) feeds[input] = (this.scalars.get(name) as Buffer).tensor;
    const written = [
      ...[...graph.carried].map(([name, output]) => ({ output, buffer: this.modelBuffer(name) })),
      ...[...graph.state].map(([name, output]) => ({ output, buffer: this.stateBuffer(name) })),
    ];
    const fetches: Record<string, Tensor> = { [program.manifest.lossOutput]: this.loss.tensor };
    for (const { output, buffer } of written) fetches[output] = buffer.next.tensor;
    for (const [name, output] of graph.metrics) fetches[output] = (metrics.get(name) as Buffer).tensor;
    for (const [name, output] of graph.blockMetrics) fetches[output] = (blockMetrics.get(name) as Buffer).tensor;

    await session.run(feeds, fetches);
    const loss = (this.loss.data as Float32Array)[0] as number;
    // A step whose loss is no number is not taken: the state stays as it was before.
    if (Number.isFinite(loss)) for (const { buffer } of written) buffer.swap();
    return {
      loss,
      metrics: Object.fromEntries([...metrics].map(([name, { data }]) => [name, (data as Float32Array)[0] as number])),
      blockMetrics: Object.fromEntries(
        [...blockMetrics].map(([name, { data }]) => [name, [...(data as Float32Array)]]),
      ),
    };
  }

  /** Builds and loads the graph of a step ahead of its time, so that the step's own time is that of its work. */
  async prepare(step: number): Promise<void> {
    await this.load(this.options.optimizer.schedule(step));
  }

  /** Feeds for a forward pass with the state as it is; without data inputs. */
  carriedTensor(name: string): Tensor | undefined {
    return this.state.model.get(name)?.current.tensor ?? this.state.frozen.get(name);
  }

  async release(): Promise<void> {
    for (const step of this.loaded.values()) await (await step).session.release();
    this.loaded.clear();
  }

  private inputTensor(name: string): Tensor {
    const tensor =
      this.batch.get(name)?.tensor ??
      this.carriedTensor(name) ??
      (name === this.options.program.manifest.seed ? this.seedBuffer.tensor : undefined);
    if (!tensor) throw new FishyError(`Nothing feeds the program's input '${name}'.`);
    return tensor;
  }

  private modelBuffer(name: string) {
    const buffer = this.state.model.get(name);
    if (!buffer) throw new Error(`the step writes '${name}', which is not carried`);
    return buffer;
  }

  private stateBuffer(name: string) {
    const buffer = this.state.optimizer.get(name);
    if (!buffer) throw new Error(`the optimizer declares no state '${name}'`);
    return buffer;
  }

  private load(parts: StepSchedule): Promise<LoadedStep> {
    const key = `${parts.statistics}/${parts.roots}`;
    let loading = this.loaded.get(key);
    if (!loading) {
      loading = this.build(parts);
      this.loaded.set(key, loading);
    }
    return loading;
  }

  private async build(parts: StepSchedule): Promise<LoadedStep> {
    const { program, optimizer, inputs, batchSize, threads } = this.options;
    const graph = buildStepGraph(program, optimizer, {
      parts,
      shapes: new Map(inputs.map(({ name, dims }) => [name, [batchSize, ...dims]])),
    });
    const doing = ["the training step", parts.statistics && "statistics", parts.roots && "roots"].filter(Boolean);
    const session = await createSession(graph.model, {
      purpose: doing.join(" with "),
      ...(threads !== undefined && { threads }),
    });
    const buffers = (names: Iterable<string>, dimsOf: (name: string) => readonly number[]) =>
      new Map(
        [...names].map((name) => [name, allocateBuffer(this.ort, DataType.FLOAT, dimsOf(name), `metric '${name}'`)]),
      );
    return {
      graph,
      session,
      metrics: buffers(graph.metrics.keys(), () => []),
      blockMetrics: buffers(graph.blockMetrics.keys(), (name) => [optimizer.blocks?.get(name)?.length ?? 0]),
    };
  }
}
