/**
 * Steps on two devices: the second keeps the statistics and refreshes the roots. Statistics run beside the steps that
 * follow; a step with roots waits for them, so that numbers are those of one device.
 */
import type { Batch } from "../data/source.js";
import { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import type { StepSchedule } from "../optimizers/optimizer.js";
import type { PartInput } from "../optimizers/program.js";
import { allocateBuffer, type Buffer, type DoubleBuffer } from "../runtime/buffers.js";
import type { Device } from "../runtime/devices.js";
import { loadRuntime, type Runtime, type Tensor } from "../runtime/ort.js";
import type { Session } from "../runtime/session.js";
import { deviceOf, type Engine, type EngineOptions, type StepOutcome } from "./engine.js";
import { FedValues, requireFed } from "./fed-values.js";
import { isSent, type PreconditionerParts, sentName, splitOptimizer } from "./preconditioner-parts.js";
import { SecondDevice, type SentPart, sentPart } from "./second-device.js";
import { MetricBuffers, SplitMetrics } from "./split-metrics.js";
import { StateBuffers } from "./state.js";
import { buildStepGraph, type StepGraph } from "./step-graph.js";
import { releaseLoaded, stepSession } from "./step-sessions.js";

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
  private readonly fed: FedValues;
  private readonly loss: Buffer;
  private readonly metrics: MetricBuffers;
  /** Gradients that leave the step, by their names in the state. */
  private readonly sent = new Map<string, Buffer>();

  private constructor(
    ort: Runtime,
    private readonly options: SplitOptions,
    private readonly parts: PreconditionerParts,
    readonly state: StateBuffers,
  ) {
    this.fed = new FedValues(ort, options);
    this.loss = allocateBuffer(ort, DataType.FLOAT, [], "the loss");
    this.metrics = new MetricBuffers(ort, options.optimizer);
    for (const { name, dims } of parts.whole.state) {
      if (isSent(name)) this.sent.set(name, allocateBuffer(ort, DataType.FLOAT, dims, `'${name}'`));
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
    this.fed.fill(batch);
  }

  async prepare(step: number): Promise<void> {
    const schedule = this.options.optimizer.schedule(step);
    await this.load(schedule);
    if (schedule.roots) await this.loadUpdate();
  }

  async run(step: number): Promise<[StepOutcome]> {
    const { optimizer, program } = this.options;
    const schedule = optimizer.schedule(step);
    const { graph, session } = await this.load(schedule);
    this.fed.setStep(step);
    const feeds: Record<string, Tensor> = {};
    for (const name of graph.inputs) feeds[name] = requireFed(this.fed.input(name) ?? this.carriedTensor(name), name);
    for (const [name, input] of graph.stateInputs) feeds[input] = this.state.optimizerBuffer(name).current.tensor;
    for (const [name, input] of graph.hyperparameters) feeds[input] = this.fed.hyperparameter(name).tensor;
    const written: DoubleBuffer[] = [];
    const fetches: Record<string, Tensor> = { [program.manifest.lossOutput]: this.loss.tensor };
    const write = (output: string, buffer: DoubleBuffer) => {
      fetches[output] = buffer.next.tensor;
      written.push(buffer);
    };
    for (const [name, output] of graph.carried) write(output, this.state.modelBuffer(name));
    for (const [name, output] of graph.state) {
      if (isSent(name)) fetches[output] = this.sentBuffer(name).tensor;
      else write(output, this.state.optimizerBuffer(name));
    }
    const metrics = new SplitMetrics(this.metrics, optimizer);
    for (const outputs of [graph.metrics, graph.blockMetrics]) metrics.fetch(outputs, fetches);
    // Statistics with weight decay read the parameters as they are before the step.
    const before = schedule.statistics ? this.sentParameters() : [];
    await session.run(feeds, fetches);
    const loss = (this.loss.data as Float32Array)[0] as number;
    if (!Number.isFinite(loss)) return [{ loss, metrics: {}, blockMetrics: {} }];
    for (const buffer of written) buffer.swap();
    if (schedule.statistics || schedule.roots) {
      await this.settle(MOST_AHEAD - 1);
      const done = this.ask(schedule, before);
      if (schedule.roots || this.tells(schedule)) {
        const { state, metrics: told } = await done;
        this.receive(state);
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
    this.receive(state);
  }

  carriedTensor(name: string): Tensor | undefined {
    return this.state.carriedTensor(name);
  }

  async release(): Promise<void> {
    await this.second?.stop();
    this.second = undefined;
    await releaseLoaded(this.graphs.values(), ({ session }) => [session]);
    if (this.updating) await releaseLoaded([this.updating], (session) => [session]);
    this.graphs.clear();
    this.updating = undefined;
  }

  /** Takes state that the second device sends. */
  private receive(state: readonly [string, TensorData][]): void {
    for (const [name, data] of state) {
      (this.state.optimizerBuffer(name).current.data as Float32Array).set(data as Float32Array);
    }
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
          fed.push([`${role}:${name}`, this.sentBuffer(sentName(role, name)).data.slice() as TensorData]);
        }
      }
    }
    for (const name of Object.keys(this.options.optimizer.hyperparameters(1))) {
      fed.push([`hyperparameter:${name}`, this.fed.hyperparameter(name).data.slice() as TensorData]);
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
        const { type, dims, data } = this.state.optimizerBuffer(name).current;
        return { name, type, dims, data };
      }),
      blocks: Object.fromEntries([...(optimizer.blocks ?? [])].map(([name, blocks]) => [name, blocks.length])),
    });
  }

  /** The update by itself, from gradients that the step has sent. */
  private async update(metrics: SplitMetrics): Promise<void> {
    const { update } = this.parts;
    const session = await this.loadUpdate();
    const feeds: Record<string, Tensor> = {};
    for (const [input, part] of update.inputs) feeds[input] = this.updateInput(part);
    const fetches: Record<string, Tensor> = {};
    const written: DoubleBuffer[] = [];
    const told = new Map<string, string>();
    for (const [output, { role, name }] of update.outputs) {
      if (role === "metric" || role === "blockMetric") told.set(name, output);
      else {
        const buffer = role === "parameter" ? this.state.modelBuffer(name) : this.state.optimizerBuffer(name);
        fetches[output] = buffer.next.tensor;
        written.push(buffer);
      }
    }
    metrics.fetch(told, fetches);
    await session.run(feeds, fetches);
    for (const buffer of written) buffer.swap();
  }

  private updateInput({ role, name }: PartInput): Tensor {
    if (role === "parameter") return this.state.modelBuffer(name).current.tensor;
    if (role === "state") return this.state.optimizerBuffer(name).current.tensor;
    return (role === "hyperparameter" ? this.fed.hyperparameter(name) : this.sentBuffer(sentName(role, name))).tensor;
  }

  private sentParameters(): [string, TensorData][] {
    return [...this.parts.statistics.inputs.values()]
      .filter(({ role }) => role === "parameter")
      .map(({ name }) => [`parameter:${name}`, this.state.modelBuffer(name).current.data.slice() as TensorData]);
  }

  /** Whether the statistics of a step have something to tell. */
  private tells({ statistics }: StepSchedule): boolean {
    return statistics && [...this.parts.statistics.outputs.values()].some(({ role }) => role !== "state");
  }

  private sentBuffer(name: string): Buffer {
    const buffer = this.sent.get(name);
    if (!buffer) throw new Error(`no gradient is sent as '${name}'`);
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
    return { graph, session: await stepSession(graph.model, "the training step", this.options) };
  }

  private loadUpdate(): Promise<Session> {
    this.updating ??= stepSession(this.parts.update.model, "the update", this.options);
    return this.updating;
  }
}
