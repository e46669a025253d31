/**
 * Runs training steps: feeds a batch and the state, receives the next state. The graph of a step follows the
 * optimizer's schedule; graphs are built and loaded when a step first needs them.
 */
import type { Batch } from "../data/source.js";
import type { ExternalSource } from "../onnx/external.js";
import { DataType } from "../onnx/proto.js";
import type { StepSchedule } from "../optimizers/optimizer.js";
import { keepsFreedMemory } from "../runtime/allocator.js";
import { allocateBuffer, type Buffer, type DoubleBuffer } from "../runtime/buffers.js";
import { loadRuntime, type Runtime, type Tensor } from "../runtime/ort.js";
import { createSession, type Session } from "../runtime/session.js";
import { deviceOf, type Engine, type EngineOptions, type StepOutcome } from "./engine.js";
import { FedValues, requireFed } from "./fed-values.js";
import { StateBuffers } from "./state.js";
import { buildStepGraph, type StepGraph, type StepGraphOptions } from "./step-graph.js";
import { releaseLoaded } from "./step-sessions.js";

/** The graph of a step in a session, with buffers for its diagnostics. */
export interface LoadedStep {
  readonly graph: StepGraph;
  readonly session: Session;
  readonly metrics: ReadonlyMap<string, Buffer>;
  readonly blockMetrics: ReadonlyMap<string, Buffer>;
}

/** One step a run; the state crosses between the runtime and this process at every step. */
export class Stepper implements Engine {
  readonly stepsPerRun = 1;
  private readonly loaded = new Map<string, Promise<LoadedStep>>();
  protected readonly fed: FedValues;
  protected readonly loss: Buffer;

  protected constructor(
    protected readonly ort: Runtime,
    protected readonly options: EngineOptions,
    readonly state: StateBuffers,
  ) {
    this.fed = new FedValues(ort, options);
    this.loss = allocateBuffer(ort, DataType.FLOAT, [], "the loss");
  }

  static async create(options: EngineOptions): Promise<Stepper> {
    const ort = await loadRuntime();
    const source: ExternalSource = { directory: options.directory };
    return new Stepper(ort, options, await StateBuffers.initial(ort, options.program, options.optimizer, source));
  }

  /** Runs one step on a batch. */
  async step(step: number, batch: Batch): Promise<StepOutcome> {
    this.fill(0, batch);
    return (await this.run(step))[0] as StepOutcome;
  }

  fill(_slot: number, batch: Batch): void {
    this.fed.fill(batch);
  }

  async run(step: number): Promise<[StepOutcome]> {
    const { optimizer, program } = this.options;
    const loaded = await this.load(optimizer.schedule(step));
    const { graph, session } = loaded;
    this.fed.setStep(step);
    const written = this.writtenBy(graph);
    const fetches = { [program.manifest.lossOutput]: this.loss.tensor, ...this.fetchesOf(loaded) };
    await session.run(this.feedsOf(graph), fetches);
    const loss = (this.loss.data as Float32Array)[0] as number;
    // A step whose loss is no number is not taken: the state stays as it was before.
    if (Number.isFinite(loss)) for (const { buffer } of written) buffer.swap();
    return [{ loss, ...diagnosticsOf([loaded]) }];
  }

  /** What a step's graph is fed: the batch, the state as it is, the seed, the hyperparameters. */
  protected feedsOf(graph: StepGraph): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const name of graph.inputs) feeds[name] = this.inputTensor(name);
    for (const [name, input] of graph.stateInputs) feeds[input] = this.state.optimizerBuffer(name).current.tensor;
    for (const [name, input] of graph.hyperparameters) feeds[input] = this.fed.hyperparameter(name).tensor;
    return feeds;
  }

  /** The part of the state that a step's graph writes, by output. */
  protected writtenBy(graph: StepGraph): { output: string; buffer: DoubleBuffer }[] {
    return [
      ...[...graph.carried].map(([name, output]) => ({ output, buffer: this.state.modelBuffer(name) })),
      ...[...graph.state].map(([name, output]) => ({ output, buffer: this.state.optimizerBuffer(name) })),
    ];
  }

  /** Where the outputs of a step's graph go, but for the loss. */
  protected fetchesOf({ graph, metrics, blockMetrics }: LoadedStep): Record<string, Tensor> {
    const fetches: Record<string, Tensor> = {};
    for (const { output, buffer } of this.writtenBy(graph)) fetches[output] = buffer.next.tensor;
    for (const [name, output] of graph.metrics) fetches[output] = (metrics.get(name) as Buffer).tensor;
    for (const [name, output] of graph.blockMetrics) fetches[output] = (blockMetrics.get(name) as Buffer).tensor;
    return fetches;
  }

  async prepare(step: number): Promise<void> {
    await this.load(this.options.optimizer.schedule(step));
  }

  carriedTensor(name: string): Tensor | undefined {
    return this.state.carriedTensor(name);
  }

  async release(): Promise<void> {
    await releaseLoaded(this.loaded.values(), ({ session }) => [session]);
    this.loaded.clear();
  }

  protected inputTensor(name: string): Tensor {
    return requireFed(this.fed.input(name) ?? this.carriedTensor(name), name);
  }

  protected load(parts: StepSchedule, options: StepVariant = {}): Promise<LoadedStep> {
    const key = JSON.stringify([parts.statistics, parts.roots, options]);
    let loading = this.loaded.get(key);
    if (!loading) {
      loading = this.build(parts, options);
      this.loaded.set(key, loading);
    }
    return loading;
  }

  private async build(parts: StepSchedule, { batchSize, ...variant }: StepVariant): Promise<LoadedStep> {
    const { program, optimizer, threads } = this.options;
    const device = deviceOf(this.options);
    const graph = buildStepGraph(program, optimizer, {
      parts,
      shapes: this.shapesOf(batchSize),
      device: device.kind,
      ...variant,
    });
    const step = variant.statisticsOnly ? "the statistics' own batch" : "the training step";
    const doing = [step, parts.statistics && "statistics", parts.roots && "roots"].filter(Boolean);
    const session = await createSession(graph.model, {
      device,
      purpose: doing.join(" with "),
      // Steps of several kinds take turns, and share what memory they can.
      arena: optimizer.emitStatistics === undefined || !keepsFreedMemory(),
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

  /** Static shapes of the data inputs. */
  protected shapesOf(batchSize = this.options.batchSize): Map<string, readonly number[]> {
    return new Map(this.options.inputs.map(({ name, dims }) => [name, [batchSize, ...dims]]));
  }
}

/** What else a step's graph may differ in. */
type StepVariant = Pick<StepGraphOptions, "batches" | "statisticsOnly"> & { readonly batchSize?: number };

/** The diagnostics of the graphs that ran. */
export function diagnosticsOf(loaded: readonly LoadedStep[]): Pick<StepOutcome, "metrics" | "blockMetrics"> {
  const numbers = ({ data }: Buffer) => data as Float32Array;
  return {
    metrics: Object.fromEntries(
      loaded.flatMap(({ metrics }) => [...metrics].map(([name, buffer]) => [name, numbers(buffer)[0] as number])),
    ),
    blockMetrics: Object.fromEntries(
      loaded.flatMap(({ blockMetrics }) => [...blockMetrics].map(([name, buffer]) => [name, [...numbers(buffer)]])),
    ),
  };
}
