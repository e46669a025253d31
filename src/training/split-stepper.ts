/**
 * Steps on two devices: the second keeps the statistics and refreshes the roots. Statistics run beside the steps that
 * follow; a step with roots waits for them, so that numbers are those of one device.
 */
import type { Batch } from "../data/source.js";
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import type { StepSchedule } from "../optimizers/optimizer.js";
import type { PartInput } from "../optimizers/program.js";
import { allocateBuffer, type Buffer, type DoubleBuffer } from "../runtime/buffers.js";
import type { Device } from "../runtime/devices.js";
import { loadRuntime, type Runtime, type Tensor } from "../runtime/ort.js";
import { createSession, type Session } from "../runtime/session.js";
import { checkBatch, deviceOf, type Engine, type EngineOptions, type StepOutcome, stepSeed } from "./engine.js";
import { type PreconditionerParts, sentName, splitOptimizer } from "./preconditioner-parts.js";
import { SecondDevice, type SentPart, sentPart } from "./second-device.js";
import { StateBuffers } from "./state.js";
import { buildStepGraph, type StepGraph } from "./step-graph.js";

export interface SplitOptions extends EngineOptions {
  readonly preconditionerDevice: Device;
}

/** Statistics that the second device may be behind: each holds a copy of all gradients. */
const MOST_AHEAD = 2;

interface Loaded {
  readonly graph: StepGraph;
  readonly session: Session;
}

export class SplitStepper implements Engine {
  readonly stepsPerRun = 1;
  private readonly graphs = new Map<string, Promise<Loaded>>();
  private updating: Promise<Session> | undefined;
  private second: SecondDevice | undefined;
  /** What the second device has been asked for and nobody has waited for, oldest first. */
  private readonly inFlight: Promise<unknown>[] = [];
  private readonly buffers = new Map<string, Buffer>();
  private readonly batchData: ReadonlyMap<string, TensorData>;

  private constructor(
    private readonly ort: Runtime,
    private readonly options: SplitOptions,
    private readonly parts: PreconditionerParts,
    readonly state: StateBuffers,
  ) {
    const { inputs, batchSize, program, optimizer } = options;
    const data = new Map<string, TensorData>();
    for (const { name, type, dims } of inputs) {
      data.set(name, this.buffer(`input:${name}`, type, [batchSize, ...dims]).data);
    }
    this.batchData = data;
    this.buffer(`input:${program.manifest.seed}`, DataType.INT64, []);
    this.buffer("loss", DataType.FLOAT, []);
    for (const name of Object.keys(optimizer.hyperparameters(1)))
      this.buffer(`hyperparameter:${name}`, DataType.FLOAT, []);
    for (const { name, dims } of parts.whole.state) {
      if (name.startsWith("sent/")) this.buffer(name, DataType.FLOAT, dims);
    }
  }

  /** @throws UsageError where the optimizer's statistics cannot be taken on another device. */
  static async create(options: SplitOptions): Promise<SplitStepper> {
    const ort = await loadRuntime();
    const { program, optimizer, directory } = options;
    const parts = splitOptimizer(program, optimizer);
    return new SplitStepper(ort, options, parts, await StateBuffers.initial(ort, program, optimizer, { directory }));
  }

  fill(_slot: number, batch: Batch): void {
    checkBatch(batch, this.options);
    batch.fill(this.batchData);
  }

  async prepare(step: number): Promise<void> {
    const schedule = this.options.optimizer.schedule(step);
    await this.load(schedule);
    if (schedule.roots) await this.loadUpdate();
  }

  async run(step: number): Promise<[StepOutcome]> {
    const { optimizer, program, seed } = this.options;
    const schedule = optimizer.schedule(step);
    const { graph, session } = await this.load(schedule);
    (this.known(`input:${program.manifest.seed}`).data as BigInt64Array)[0] = stepSeed(seed, step);
    for (const [name, value] of Object.entries(optimizer.hyperparameters(step))) {
      (this.known(`hyperparameter:${name}`).data as Float32Array)[0] = value;
    }
    const feeds: Record<string, Tensor> = {};
    for (const name of graph.inputs) feeds[name] = this.buffers.get(`input:${name}`)?.tensor ?? this.carried(name);
    for (const [name, input] of graph.stateInputs) feeds[input] = this.stateBuffer(name).current.tensor;
    for (const [name, input] of graph.hyperparameters) feeds[input] = this.known(`hyperparameter:${name}`).tensor;
    const written: DoubleBuffer[] = [];
    const fetches: Record<string, Tensor> = { [program.manifest.lossOutput]: this.known("loss").tensor };
    const write = (output: string, buffer: DoubleBuffer) => {
      fetches[output] = buffer.next.tensor;
      written.push(buffer);
    };
    for (const [name, output] of graph.carried) write(output, this.modelBuffer(name));
    for (const [name, output] of graph.state) {
      if (name.startsWith("sent/")) fetches[output] = this.known(name).tensor;
      else write(output, this.stateBuffer(name));
    }
    const metrics = this.fetchMetrics(graph.metrics, graph.blockMetrics, fetches);
    // Statistics with weight decay read the parameters as they are before the step.
    const before = schedule.statistics ? this.sentParameters() : [];
    await session.run(feeds, fetches);
    const loss = (this.known("loss").data as Float32Array)[0] as number;
    if (!Number.isFinite(loss)) return [{ loss, metrics: {}, blockMetrics: {} }];
    for (const buffer of written) buffer.swap();
    if (schedule.statistics || schedule.roots) {
      await this.settle(MOST_AHEAD - 1);
      const done = this.ask(schedule, before);
      if (schedule.roots || this.tells(schedule)) {
        const { state, metrics: told } = await done;
        for (const [name, data] of state)
          (this.stateBuffer(name).current.data as Float32Array).set(data as Float32Array);
        for (const [name, values] of told) metrics.add(name, values);
      }
    }
    if (schedule.roots) await this.update(metrics);
    return [{ loss, ...metrics.read() }];
  }

  async synchronise(): Promise<void> {
    if (!this.second) return;
    await this.settle(0);
    const { state } = await this.second.state();
    for (const [name, data] of state) (this.stateBuffer(name).current.data as Float32Array).set(data as Float32Array);
  }

  carriedTensor(name: string): Tensor | undefined {
    return this.state.model.get(name)?.current.tensor ?? this.state.frozen.get(name);
  }

  async release(): Promise<void> {
    await this.second?.stop();
    this.second = undefined;
    for (const loading of this.graphs.values()) await (await loading).session.release();
    await (await this.updating)?.release();
    this.graphs.clear();
    this.updating = undefined;
  }

  /** Waits until at most `left` requests are unanswered. */
  private async settle(left: number): Promise<void> {
    while (this.inFlight.length > left) await this.inFlight.shift();
  }

  /** Asks the second device for what is due. */
  private ask(schedule: StepSchedule, before: [string, TensorData][]) {
    this.second ??= this.start();
    const fed: [string, TensorData][] = [...before];
    if (schedule.statistics) {
      for (const { role, name } of this.parts.statistics.inputs.values()) {
        if (role === "gradient" || role === "statisticsGradient") {
          fed.push([`${role}:${name}`, this.known(sentName(role, name)).data.slice() as TensorData]);
        }
      }
    }
    for (const name of Object.keys(this.options.optimizer.hyperparameters(1))) {
      fed.push([`hyperparameter:${name}`, this.known(`hyperparameter:${name}`).data.slice() as TensorData]);
    }
    const parts: SentPart["name"][] = [
      ...(schedule.statistics ? (["statistics"] as const) : []),
      ...(schedule.roots ? (["roots"] as const) : []),
    ];
    const done = this.second.run({ parts, fed, wanted: schedule.roots ? this.parts.returned : [] });
    // A failure is thrown where it is waited for.
    done.catch(() => {});
    this.inFlight.push(done);
    return done;
  }

  private start(): SecondDevice {
    const { optimizer, preconditionerDevice, threads = 0 } = this.options;
    const { statistics, roots, owned } = this.parts;
    return new SecondDevice({
      device: preconditionerDevice,
      threads,
      parts: [sentPart("statistics", statistics, optimizer), ...(roots ? [sentPart("roots", roots, optimizer)] : [])],
      state: [...owned].map((name) => {
        const { type, dims, data } = this.stateBuffer(name).current;
        return { name, type, dims, data };
      }),
      blocks: Object.fromEntries([...(optimizer.blocks ?? [])].map(([name, blocks]) => [name, blocks.length])),
    });
  }

  /** The update by itself, from gradients that the step has sent. */
  private async update(metrics: Metrics): Promise<void> {
    const { update } = this.parts;
    const session = await this.loadUpdate();
    const feeds: Record<string, Tensor> = {};
    for (const [input, part] of update.inputs) feeds[input] = this.updateInput(part);
    const fetches: Record<string, Tensor> = {};
    const written: DoubleBuffer[] = [];
    const [scalars, blocks] = [new Map<string, string>(), new Map<string, string>()];
    for (const [output, { role, name }] of update.outputs) {
      if (role === "metric") scalars.set(name, output);
      else if (role === "blockMetric") blocks.set(name, output);
      else {
        const buffer = role === "parameter" ? this.modelBuffer(name) : this.stateBuffer(name);
        fetches[output] = buffer.next.tensor;
        written.push(buffer);
      }
    }
    metrics.fetch(scalars, blocks, fetches);
    await session.run(feeds, fetches);
    for (const buffer of written) buffer.swap();
  }

  private updateInput({ role, name }: PartInput): Tensor {
    if (role === "parameter") return this.modelBuffer(name).current.tensor;
    if (role === "state") return this.stateBuffer(name).current.tensor;
    return this.known(role === "hyperparameter" ? `hyperparameter:${name}` : sentName(role, name)).tensor;
  }

  private sentParameters(): [string, TensorData][] {
    return [...this.parts.statistics.inputs.values()]
      .filter(({ role }) => role === "parameter")
      .map(({ name }) => [`parameter:${name}`, this.modelBuffer(name).current.data.slice() as TensorData]);
  }

  /** Whether the statistics of a step have something to tell. */
  private tells({ statistics }: StepSchedule): boolean {
    return statistics && [...this.parts.statistics.outputs.values()].some(({ role }) => role !== "state");
  }

  private fetchMetrics(
    scalars: ReadonlyMap<string, string>,
    blocks: ReadonlyMap<string, string>,
    fetches: Record<string, Tensor>,
  ): Metrics {
    const metrics = new Metrics((name, dims) => this.buffer(`metric:${name}`, DataType.FLOAT, dims), this.options);
    metrics.fetch(scalars, blocks, fetches);
    return metrics;
  }

  private buffer(name: string, type: DataType, dims: readonly number[]): Buffer {
    let buffer = this.buffers.get(name);
    if (!buffer) {
      buffer = allocateBuffer(this.ort, type, dims, `'${name}'`);
      this.buffers.set(name, buffer);
    }
    return buffer;
  }

  private known(name: string): Buffer {
    const buffer = this.buffers.get(name);
    if (!buffer) throw new Error(`there is no buffer '${name}'`);
    return buffer;
  }

  private carried(name: string): Tensor {
    const tensor = this.carriedTensor(name);
    if (!tensor) throw new FishyError(`Nothing feeds the program's input '${name}'.`);
    return tensor;
  }

  private modelBuffer(name: string): DoubleBuffer {
    const buffer = this.state.model.get(name);
    if (!buffer) throw new Error(`the step writes '${name}', which is not carried`);
    return buffer;
  }

  private stateBuffer(name: string): DoubleBuffer {
    const buffer = this.state.optimizer.get(name);
    if (!buffer) throw new Error(`the optimizer declares no state '${name}'`);
    return buffer;
  }

  private load({ statistics, roots }: StepSchedule): Promise<Loaded> {
    const key = `${statistics}/${roots}`;
    let loading = this.graphs.get(key);
    if (!loading) {
      loading = this.build(statistics, roots);
      this.graphs.set(key, loading);
    }
    return loading;
  }

  private async build(statistics: boolean, roots: boolean): Promise<Loaded> {
    const { program, inputs, batchSize } = this.options;
    const device = deviceOf(this.options);
    const graph = buildStepGraph(program, roots ? this.parts.gradients : this.parts.whole, {
      parts: { statistics, roots: false },
      shapes: new Map(inputs.map(({ name, dims }) => [name, [batchSize, ...dims]])),
      device: device.kind,
    });
    return { graph, session: await this.session(graph.model, "the training step") };
  }

  private loadUpdate(): Promise<Session> {
    this.updating ??= this.session(this.parts.update.model, "the update");
    return this.updating;
  }

  private session(model: StepGraph["model"], purpose: string): Promise<Session> {
    const { threads } = this.options;
    return createSession(model, { device: deviceOf(this.options), purpose, ...(threads !== undefined && { threads }) });
  }
}

/** The metrics of a step, from both devices. */
class Metrics {
  private readonly buffers = new Map<string, Buffer>();
  private readonly told = new Map<string, readonly number[]>();

  constructor(
    private readonly bufferOf: (name: string, dims: readonly number[]) => Buffer,
    private readonly options: EngineOptions,
  ) {}

  fetch(
    scalars: ReadonlyMap<string, string>,
    blocks: ReadonlyMap<string, string>,
    fetches: Record<string, Tensor>,
  ): void {
    for (const [name, output] of [...scalars, ...blocks]) {
      const count = this.options.optimizer.blocks?.get(name)?.length;
      const buffer = this.bufferOf(name, count === undefined ? [] : [count]);
      this.buffers.set(name, buffer);
      fetches[output] = buffer.tensor;
    }
  }

  add(name: string, values: readonly number[]): void {
    this.told.set(name, values);
  }

  read(): Pick<StepOutcome, "metrics" | "blockMetrics"> {
    const all = new Map(this.told);
    for (const [name, { data }] of this.buffers) all.set(name, [...(data as Float32Array)]);
    const { blocks } = this.options.optimizer;
    const [metrics, blockMetrics] = [{} as Record<string, number>, {} as Record<string, readonly number[]>];
    for (const [name, values] of all) {
      if (blocks?.has(name)) blockMetrics[name] = values;
      else metrics[name] = values[0] as number;
    }
    return { metrics, blockMetrics };
  }
}
