/**
 * Steps over several batches (gradient accumulation), and steps whose statistics come from a batch of their own. A step
 * is several runs: each batch but the last adds to the accumulators, the statistics' batch updates the statistics, and the
 * last batch's run does the rest.
 */
import type { ExternalSource } from "../onnx/external.js";
import { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import { allocateBuffer, type Buffer, DoubleBuffer } from "../runtime/buffers.js";
import { loadRuntime, type Tensor } from "../runtime/ort.js";
import type { Session } from "../runtime/session.js";
import { type AccumulationGraph, accumulatedOutputs, buildAccumulationGraph, WEIGHT } from "./accumulation.js";
import { type Accumulation, deviceOf, type EngineOptions, type StepOutcome } from "./engine.js";
import { StateBuffers } from "./state.js";
import type { StatisticsBatches } from "./statistics-batches.js";
import { releaseLoaded, stepSession } from "./step-sessions.js";
import { diagnosticsOf, type LoadedStep, Stepper } from "./stepper.js";

export interface AccumulatingOptions extends EngineOptions {
  /** Batches in a step. */
  readonly batches: number;
  /** Where the statistics come from, if not from the gradient's batches. */
  readonly statistics?: StatisticsBatches | undefined;
}

interface LoadedAccumulation {
  readonly graph: AccumulationGraph;
  readonly session: Session;
}

/** Parts of a step that draw for its statistics' own batch, beyond those of any accumulated one. */
const STATISTICS_PART = 0x5747;

export class AccumulatingStepper extends Stepper {
  private readonly adding = new Map<boolean, Promise<LoadedAccumulation>>();
  private readonly accumulators = new Map<string, DoubleBuffer>();
  /** Running statistics between the batches of a step: the state keeps those from before it, until it is taken. */
  private readonly running = new Map<string, DoubleBuffer>();
  private readonly ownBatch: ReadonlyMap<string, Buffer>;
  private readonly lossWeight: Buffer;
  private lossSum = 0;
  private weightSum = 0;

  private constructor(
    ort: Awaited<ReturnType<typeof loadRuntime>>,
    private readonly accumulating: AccumulatingOptions,
    state: StateBuffers,
  ) {
    super(ort, accumulating, state);
    const { program, inputs, statistics, batches } = accumulating;
    this.lossWeight = allocateBuffer(ort, DataType.FLOAT, [], "the weight of the loss");
    this.ownBatch = new Map(
      (statistics ? inputs : []).map(({ name, type, dims }) => [
        name,
        allocateBuffer(ort, type, [statistics?.batchSize ?? 0, ...dims], `input '${name}' of the statistics`),
      ]),
    );
    if (batches === 1) return;
    const add = (name: string, dims: readonly number[]) => {
      const what = `the accumulator of '${name}'`;
      this.accumulators.set(name, new DoubleBuffer(ort, what, allocateBuffer(ort, DataType.FLOAT, dims, what)));
    };
    for (const [output, dims] of accumulatedOutputs(program.manifest, this.takesSampled)) add(output, dims);
    if (program.manifest.loss.reduction === "weighted") add(WEIGHT, []);
    for (const { name } of program.manifest.runningStatistics) {
      const { type, dims } = (state.model.get(name) as DoubleBuffer).current;
      this.running.set(name, new DoubleBuffer(ort, name, allocateBuffer(ort, type, dims, name)));
    }
  }

  static override async create(options: AccumulatingOptions): Promise<AccumulatingStepper> {
    const ort = await loadRuntime();
    const source: ExternalSource = { directory: options.directory };
    const state = await StateBuffers.initial(ort, options.program, options.optimizer, source);
    return new AccumulatingStepper(ort, options, state);
  }

  get accumulation(): Accumulation {
    return { batches: this.accumulating.batches, add: (step, part) => this.add(step, part) };
  }

  override async prepare(step: number): Promise<void> {
    const { batches } = this.accumulating;
    await Promise.all(this.graphsOf(step));
    if (batches > 1) await this.loadAdding(this.addsSampled(step));
  }

  /** Adds the batch that was filled to the accumulators. */
  private async add(step: number, part: number): Promise<void> {
    const { program } = this.options;
    const { lossOutput, loss } = program.manifest;
    if (part === 0) this.startStep();
    const { graph, session } = await this.loadAdding(this.addsSampled(step));
    this.fed.setStep(step, part);
    const feeds: Record<string, Tensor> = {};
    for (const name of graph.inputs) feeds[name] = this.runningTensor(name, part) ?? this.inputTensor(name);
    const fetches: Record<string, Tensor> = { [lossOutput]: this.loss.tensor };
    const written: DoubleBuffer[] = [];
    for (const [key, { input, output }] of graph.accumulators) {
      const buffer = this.accumulators.get(key) as DoubleBuffer;
      feeds[input] = buffer.current.tensor;
      fetches[output] = buffer.next.tensor;
      written.push(buffer);
    }
    for (const [name, output] of graph.carried) {
      const buffer = this.running.get(name) as DoubleBuffer;
      fetches[output] = buffer.next.tensor;
      written.push(buffer);
    }
    await session.run(feeds, fetches);
    for (const buffer of written) buffer.swap();
    const weight = loss.reduction === "weighted" ? this.accumulated(WEIGHT) - this.weightSum : 1;
    this.addLoss(weight);
  }

  override async run(step: number): Promise<[StepOutcome]> {
    const { program } = this.options;
    const { batches } = this.accumulating;
    const { lossOutput, loss: lossForm } = program.manifest;
    if (batches === 1) this.startStep();
    const [own, last] = await Promise.all(this.graphsOf(step));
    const taken = own ? await this.takeStatistics(step, own) : [];

    const { graph, session } = last;
    this.fed.setStep(step, batches - 1);
    const feeds = this.feedsOf(graph);
    for (const [key, input] of graph.accumulators)
      feeds[input] = (this.accumulators.get(key) as DoubleBuffer).current.tensor;
    for (const name of graph.inputs) feeds[name] = this.runningTensor(name, batches - 1) ?? (feeds[name] as Tensor);
    const isWeighted = lossForm.reduction === "weighted" && batches > 1;
    const fetches: Record<string, Tensor> = { [lossOutput]: this.loss.tensor, ...this.fetchesOf(last) };
    if (isWeighted) fetches[graph.lossWeight as string] = this.lossWeight.tensor;
    await session.run(feeds, fetches);
    this.addLoss(isWeighted ? ((this.lossWeight.data as Float32Array)[0] as number) : 1);
    const loss = lossForm.reduction === "sum" ? this.lossSum : this.lossSum / this.weightSum;
    // A step whose loss is no number is not taken, nor are its statistics.
    const changed = Number.isFinite(loss) ? this.writtenBy(graph).map(({ buffer }) => buffer) : taken;
    for (const buffer of changed) buffer.swap();
    return [{ loss, ...diagnosticsOf(own ? [own, last] : [last]) }];
  }

  override async release(): Promise<void> {
    await super.release();
    await releaseLoaded(this.adding.values(), ({ session }) => [session]);
    this.adding.clear();
    await this.accumulating.statistics?.close();
  }

  /** Updates the statistics from their own batch. @returns the state that changed, whose buffers were swapped. */
  private async takeStatistics(step: number, own: LoadedStep): Promise<DoubleBuffer[]> {
    const { statistics } = this.accumulating;
    const arrays = new Map([...this.ownBatch].map(([name, { data }]): [string, TensorData] => [name, data]));
    await statistics?.fill(step, arrays);
    this.fed.setStep(step, STATISTICS_PART);
    const feeds = this.feedsOf(own.graph);
    for (const name of own.graph.inputs) feeds[name] = this.ownBatch.get(name)?.tensor ?? (feeds[name] as Tensor);
    await own.session.run(feeds, this.fetchesOf(own));
    const written = this.writtenBy(own.graph).map(({ buffer }) => buffer);
    for (const buffer of written) buffer.swap();
    return written;
  }

  private startStep(): void {
    for (const { current } of this.accumulators.values()) (current.data as Float32Array).fill(0);
    this.lossSum = 0;
    this.weightSum = 0;
  }

  /** Takes the loss of the batch that ran into the step's; the mean over no labels is not a number, and counts nothing. */
  private addLoss(weight: number): void {
    if (weight > 0) this.lossSum += weight * ((this.loss.data as Float32Array)[0] as number);
    this.weightSum += weight;
  }

  private accumulated(key: string): number {
    return ((this.accumulators.get(key) as DoubleBuffer).current.data as Float32Array)[0] as number;
  }

  /** A running statistic as the batches of this step before the `part`-th left it. */
  private runningTensor(name: string, part: number): Tensor | undefined {
    return part === 0 ? undefined : this.running.get(name)?.current.tensor;
  }

  private get takesSampled(): boolean {
    const { optimizer, statistics } = this.accumulating;
    return optimizer.statisticsSource === "sampled" && statistics === undefined;
  }

  private addsSampled(step: number): boolean {
    return this.takesSampled && this.options.optimizer.schedule(step).statistics;
  }

  /** The graph of the statistics' own batch, where the step has one, and that of the last batch. */
  private graphsOf(step: number): [Promise<LoadedStep> | undefined, Promise<LoadedStep>] {
    const { optimizer, batches, statistics } = this.accumulating;
    const parts = optimizer.schedule(step);
    const variant = batches > 1 ? { batches } : {};
    if (!statistics || !parts.statistics) return [undefined, this.load(parts, variant)];
    const { batchSize } = statistics;
    return [
      this.load({ statistics: true, roots: false }, { statisticsOnly: true, batchSize }),
      this.load({ statistics: false, roots: parts.roots }, variant),
    ];
  }

  private loadAdding(sampled: boolean): Promise<LoadedAccumulation> {
    let loading = this.adding.get(sampled);
    if (!loading) {
      loading = this.buildAdding(sampled);
      this.adding.set(sampled, loading);
    }
    return loading;
  }

  private async buildAdding(sampled: boolean): Promise<LoadedAccumulation> {
    const { kind } = deviceOf(this.options);
    const graph = buildAccumulationGraph(this.options.program, this.shapesOf(), sampled, kind);
    return { graph, session: await stepSession(graph.model, "the accumulation of gradients", this.options) };
  }
}
