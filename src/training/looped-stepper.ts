/**
 * Several steps a run, in one Loop. For devices across a bus: parameters and state cross it once in a run, and the
 * batches of all its steps together.
 */
import type { Batch } from "../data/source.js";
import { FishyError } from "../errors.js";
import type { ExternalSource } from "../onnx/external.js";
import { DataType } from "../onnx/proto.js";
import { elementCount, newData, type TensorData } from "../onnx/tensor.js";
import type { StepSchedule } from "../optimizers/optimizer.js";
import type { DoubleBuffer } from "../runtime/buffers.js";
import { loadRuntime, type Runtime, type Tensor, tensorOver } from "../runtime/ort.js";
import type { Session } from "../runtime/session.js";
import { checkBatch, deviceOf, type Engine, type EngineOptions, type StepOutcome, stepSeed } from "./engine.js";
import { buildLoopedGraph, type LoopedGraph } from "./looped-graph.js";
import { StateBuffers } from "./state.js";
import { releaseLoaded, stepSession } from "./step-sessions.js";

export interface LoopedOptions extends EngineOptions {
  /** Most steps of one run, at least 1. */
  readonly stepsPerRun: number;
  /** Steps of the training run, whose kinds the graph must hold. */
  readonly totalSteps: number;
}

interface Loaded {
  readonly graph: LoopedGraph;
  readonly session: Session;
}

/** A value for each step, and tensors around the first so many of them. */
class Stack {
  readonly data: TensorData;
  private readonly perStep: number;
  private readonly tensors = new Map<number, Tensor>();

  constructor(
    private readonly ort: Runtime,
    private readonly type: DataType,
    private readonly dims: readonly number[],
    steps: number,
    private readonly what: string,
  ) {
    this.perStep = elementCount(dims);
    this.data = newData(type, steps * this.perStep);
  }

  /** The elements of a step. */
  at(slot: number): TensorData {
    return this.data.subarray(slot * this.perStep, (slot + 1) * this.perStep) as TensorData;
  }

  /** [count, …dims]. */
  first(count: number): Tensor {
    let tensor = this.tensors.get(count);
    if (!tensor) {
      const data = this.data.subarray(0, count * this.perStep) as TensorData;
      tensor = tensorOver(this.ort, this.type, [count, ...this.dims], data, this.what);
      this.tensors.set(count, tensor);
    }
    return tensor;
  }
}

export class LoopedStepper implements Engine {
  readonly stepsPerRun: number;
  private loading: Promise<Loaded> | undefined;
  private readonly batches = new Map<string, Stack>();
  private readonly slots: ReadonlyMap<string, TensorData>[];
  private readonly seeds: Stack;
  private readonly kinds: Stack;
  private readonly hyperparameters = new Map<string, Stack>();
  private readonly loss: Stack;
  private readonly metrics = new Map<string, Stack>();
  private readonly blockMetrics = new Map<string, Stack>();

  private constructor(
    private readonly ort: Runtime,
    private readonly options: LoopedOptions,
    readonly state: StateBuffers,
  ) {
    const { stepsPerRun, inputs, batchSize, optimizer } = options;
    this.stepsPerRun = stepsPerRun;
    for (const { name, type, dims } of inputs) {
      this.batches.set(name, this.stack(type, [batchSize, ...dims], `input '${name}'`));
    }
    this.slots = Array.from(
      { length: stepsPerRun },
      (_, slot) => new Map([...this.batches].map(([name, stack]) => [name, stack.at(slot)])),
    );
    this.seeds = this.stack(DataType.INT64, [], "the seeds");
    this.kinds = this.stack(DataType.INT32, [], "the kinds of steps");
    this.loss = this.stack(DataType.FLOAT, [], "the losses");
    for (const name of Object.keys(optimizer.hyperparameters(1))) {
      this.hyperparameters.set(name, this.stack(DataType.FLOAT, [], `hyperparameter '${name}'`));
    }
  }

  static async create(options: LoopedOptions): Promise<LoopedStepper> {
    const ort = await loadRuntime();
    const source: ExternalSource = { directory: options.directory };
    return new LoopedStepper(ort, options, await StateBuffers.initial(ort, options.program, options.optimizer, source));
  }

  fill(slot: number, batch: Batch): void {
    checkBatch(batch, this.options);
    batch.fill(this.slots[slot] as ReadonlyMap<string, TensorData>);
  }

  async prepare(): Promise<void> {
    await this.load();
  }

  async run(first: number, count: number): Promise<readonly StepOutcome[]> {
    const { graph, session } = await this.load();
    const { optimizer, seed } = this.options;
    const kindOf = (step: number) => kindIndex(graph, optimizer.schedule(step));
    for (let slot = 0; slot < count; slot++) {
      (this.seeds.data as BigInt64Array)[slot] = stepSeed(seed, first + slot);
      (this.kinds.data as Int32Array)[slot] = kindOf(first + slot);
      for (const [name, value] of Object.entries(optimizer.hyperparameters(first + slot))) {
        (this.hyperparameters.get(name)?.data as Float32Array)[slot] = value;
      }
    }
    const written = await this.runSteps(graph, session, count);
    const losses = [...(this.loss.data.subarray(0, count) as Float32Array)];
    const outcomes = losses.map((loss, slot): StepOutcome => {
      const kind = graph.kinds[kindOf(first + slot)];
      return {
        loss,
        metrics: Object.fromEntries(
          [...(kind?.metrics ?? [])].map((name) => [name, Number((this.metrics.get(name) as Stack).at(slot)[0])]),
        ),
        blockMetrics: Object.fromEntries(
          [...(kind?.blockMetrics ?? [])].map((name) => [
            name,
            [...((this.blockMetrics.get(name) as Stack).at(slot) as Float32Array)],
          ]),
        ),
      };
    });
    const diverged = losses.findIndex((loss) => !Number.isFinite(loss));
    if (diverged < 0) for (const buffer of written) buffer.swap();
    // The state before the run is still there: once more, up to the step whose loss is no number.
    else if (diverged > 0) for (const buffer of await this.runSteps(graph, session, diverged)) buffer.swap();
    return diverged < 0 ? outcomes : outcomes.slice(0, diverged + 1);
  }

  carriedTensor(name: string): Tensor | undefined {
    return this.state.carriedTensor(name);
  }

  async release(): Promise<void> {
    if (this.loading) await releaseLoaded([this.loading], ({ session }) => [session]);
    this.loading = undefined;
  }

  /** @returns the buffers whose next value is that after the steps. */
  private async runSteps(graph: LoopedGraph, session: Session, count: number): Promise<DoubleBuffer[]> {
    const feeds: Record<string, Tensor> = {
      [graph.steps]: tensorOver(this.ort, DataType.INT64, [], BigInt64Array.of(BigInt(count)), "the number of steps"),
    };
    if (graph.kind !== undefined) feeds[graph.kind] = this.kinds.first(count);
    for (const [name, input] of graph.stacked) feeds[input] = this.stacked(name).first(count);
    for (const [name, input] of graph.hyperparameters) feeds[input] = known(this.hyperparameters, name).first(count);
    for (const name of graph.fixed) feeds[name] = this.carriedTensor(name) as Tensor;
    for (const [name, input] of graph.fixedState) feeds[input] = known(this.state.optimizer, name).current.tensor;
    const fetches: Record<string, Tensor> = { [graph.loss]: this.loss.first(count) };
    const written: DoubleBuffer[] = [];
    for (const [buffers, carried] of [
      [this.state.model, graph.carried],
      [this.state.optimizer, graph.state],
    ] as const) {
      for (const [name, { input, output }] of carried) {
        const buffer = known(buffers, name);
        feeds[input] = buffer.current.tensor;
        fetches[output] = buffer.next.tensor;
        written.push(buffer);
      }
    }
    for (const [name, output] of graph.metrics) fetches[output] = known(this.metrics, name).first(count);
    for (const [name, output] of graph.blockMetrics) fetches[output] = known(this.blockMetrics, name).first(count);
    await session.run(feeds, fetches);
    return written;
  }

  private stacked(name: string): Stack {
    const stack = this.batches.get(name) ?? (name === this.options.program.manifest.seed ? this.seeds : undefined);
    if (!stack) throw new FishyError(`Nothing feeds the program's input '${name}'.`);
    return stack;
  }

  private stack(type: DataType, dims: readonly number[], what: string): Stack {
    return new Stack(this.ort, type, dims, this.options.stepsPerRun, what);
  }

  private load(): Promise<Loaded> {
    this.loading ??= this.build();
    return this.loading;
  }

  private async build(): Promise<Loaded> {
    const { program, optimizer, inputs, batchSize, totalSteps } = this.options;
    const device = deviceOf(this.options);
    const graph = buildLoopedGraph(program, optimizer, {
      kinds: kindsOf(optimizer.schedule, totalSteps),
      shapes: new Map(inputs.map(({ name, dims }) => [name, [batchSize, ...dims]])),
      device: device.kind,
    });
    for (const name of graph.metrics.keys()) this.metrics.set(name, this.stack(DataType.FLOAT, [], `metric '${name}'`));
    for (const name of graph.blockMetrics.keys()) {
      const blocks = optimizer.blocks?.get(name)?.length ?? 0;
      this.blockMetrics.set(name, this.stack(DataType.FLOAT, [blocks], `metric '${name}'`));
    }
    return { graph, session: await stepSession(graph.model, "the training steps", this.options) };
  }
}

/** The kinds of steps that a run has, in the order in which they first come. */
function kindsOf(schedule: (step: number) => StepSchedule, totalSteps: number): StepSchedule[] {
  const kinds = new Map<string, StepSchedule>();
  for (let step = 1; step <= totalSteps && kinds.size < 4; step++) {
    const parts = schedule(step);
    kinds.set(`${parts.statistics}/${parts.roots}`, parts);
  }
  return [...kinds.values()];
}

function kindIndex({ kinds }: LoopedGraph, parts: StepSchedule): number {
  return kinds.findIndex((kind) => kind.parts.statistics === parts.statistics && kind.parts.roots === parts.roots);
}

function known<T>(values: ReadonlyMap<string, T>, name: string): T {
  const value = values.get(name);
  if (value === undefined) throw new Error(`the steps' graph names '${name}', which is unknown`);
  return value;
}
