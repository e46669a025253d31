/**
 * Steps on WebGPU. Parameters and optimizer state lie in GPU buffers from step to step; the host hands over a batch, the
 * seed and the hyperparameters, and receives the loss and the diagnostics. `synchronise` brings the state back.
 */
import type { Batch } from "../data/source.js";
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import { BoundSession, DeviceCopies } from "../runtime/bound-session.js";
import { allocateBuffer, type Buffer, type DoubleBuffer } from "../runtime/buffers.js";
import { loadRuntime, type Runtime, type Tensor } from "../runtime/ort.js";
import { createSession, type Session } from "../runtime/session.js";
import { type BoundGraph, buildBoundGraph } from "./bound-graph.js";
import type { Engine, EngineOptions, StepOutcome } from "./engine.js";
import { FedValues, requireFed } from "./fed-values.js";
import { StateBuffers } from "./state.js";
import { releaseLoaded } from "./step-sessions.js";

interface LoadedStep extends BoundGraph {
  readonly session: BoundSession;
  /** Computes `host.outputs` on the CPU. */
  readonly hostSession: Session | undefined;
}

const INT32_MAX = 2n ** 31n - 1n;

export interface BoundStepperOptions extends EngineOptions {
  /** Refuses graphs with nodes that would run on the CPU, for tests. */
  readonly strict?: boolean;
}

export class BoundStepper implements Engine {
  readonly stepsPerRun = 1;
  private readonly loaded = new Map<string, readonly Promise<LoadedStep>[]>();
  private readonly fed: FedValues;
  /** The int32 twins of int64 inputs. */
  private readonly narrow = new Map<string, Buffer>();
  /** The state in GPU buffers, under `model:` and `state:` names; empty until the first step. */
  private readonly device = new Map<string, Tensor>();
  private isHostNewer = true;
  private isDeviceNewer = false;

  private constructor(
    ort: Runtime,
    private readonly options: BoundStepperOptions,
    private readonly copies: DeviceCopies,
    readonly state: StateBuffers,
  ) {
    this.fed = new FedValues(ort, options);
    for (const { name, type, dims } of options.inputs) {
      if (type !== DataType.INT64) continue;
      this.narrow.set(name, allocateBuffer(ort, DataType.INT32, [options.batchSize, ...dims], `input '${name}'`));
    }
  }

  /** @throws FishyError where WebGPU finds no adapter. */
  static async create(options: BoundStepperOptions): Promise<BoundStepper> {
    const ort = await loadRuntime();
    const { program, optimizer, directory } = options;
    const state = await StateBuffers.initial(ort, program, optimizer, { directory });
    return new BoundStepper(ort, options, await DeviceCopies.create(), state);
  }

  fill(_slot: number, batch: Batch): void {
    this.fed.fill(batch);
    for (const [name, { data }] of this.narrow) narrowInto(data as Int32Array, this.fed.batchData.get(name), name);
  }

  async run(step: number): Promise<[StepOutcome]> {
    const { program } = this.options;
    const loaded = await this.load(step);
    const { graph, session } = loaded;
    this.fed.setStep(step);
    if (this.isHostNewer) await this.upload();
    const outputs = await session.run(await this.feedsOf(loaded));
    const numbers = (output: string) => (outputs[output] as Tensor).data as Float32Array;
    const number = (output: string) => numbers(output)[0] as number;
    const loss = number(program.manifest.lossOutput);
    const written = [
      ...[...graph.carried].map(([name, output]) => ({ key: `model:${name}`, output })),
      ...[...graph.state].map(([name, output]) => ({ key: `state:${name}`, output })),
    ];
    // A step whose loss is no number is not taken: the state stays as it was before.
    const isTaken = Number.isFinite(loss);
    for (const { key, output } of written) {
      const tensor = outputs[output] as Tensor;
      if (isTaken) {
        this.device.get(key)?.dispose();
        this.device.set(key, tensor);
      } else tensor.dispose();
    }
    this.isDeviceNewer ||= isTaken;
    return [
      {
        loss,
        metrics: Object.fromEntries([...graph.metrics].map(([name, output]) => [name, number(output)])),
        blockMetrics: Object.fromEntries([...graph.blockMetrics].map(([name, output]) => [name, [...numbers(output)]])),
      },
    ];
  }

  async prepare(step: number): Promise<void> {
    await this.load(step);
  }

  async synchronise(): Promise<void> {
    if (!this.isDeviceNewer) return;
    for (const [key, buffer] of this.buffers()) {
      const tensor = this.device.get(key);
      if (tensor) (buffer.current.data as Float32Array).set(await this.copies.download(tensor));
    }
    this.isDeviceNewer = false;
  }

  carriedTensor(name: string): Tensor | undefined {
    if (this.isDeviceNewer) throw new Error("the state on the device is newer; synchronise first");
    return this.state.carriedTensor(name);
  }

  async release(): Promise<void> {
    for (const tensor of this.device.values()) tensor.dispose();
    this.device.clear();
    await releaseLoaded([...this.loaded.values()].flat(), ({ session, hostSession }) => [session, hostSession]);
    this.loaded.clear();
    await this.copies.release();
  }

  /** Everything that steps carry. */
  private buffers(): [string, DoubleBuffer][] {
    return [
      ...[...this.state.model].map(([name, buffer]): [string, DoubleBuffer] => [`model:${name}`, buffer]),
      ...[...this.state.optimizer].map(([name, buffer]): [string, DoubleBuffer] => [`state:${name}`, buffer]),
    ];
  }

  private async upload(): Promise<void> {
    for (const [key, { current }] of this.buffers()) {
      if (current.type !== DataType.FLOAT) throw new FishyError(`WebGPU carries float32 alone, and ${key} is not.`);
      this.device.set(key, await this.copies.upload(current.tensor));
    }
    for (const [name, tensor] of this.state.frozen) {
      if (tensor.type === "float32") this.device.set(`frozen:${name}`, await this.copies.upload(tensor));
    }
    this.isHostNewer = false;
  }

  private async feedsOf({ graph, model, host, hostSession }: LoadedStep): Promise<Record<string, Tensor>> {
    const known = new Map<string, Tensor>();
    for (const [name, input] of graph.stateInputs) known.set(input, this.device.get(`state:${name}`) as Tensor);
    for (const [name, input] of graph.hyperparameters) known.set(input, this.fed.hyperparameter(name).tensor);
    const feedsFor = ({ graph: { input } }: typeof model) =>
      Object.fromEntries(input.map(({ name = "" }) => [name, known.get(name) ?? this.inputTensor(name)]));
    if (host && hostSession) {
      const names = host.graph.output.map(({ name }) => name ?? "");
      for (const [name, tensor] of Object.entries(await hostSession.fetch(feedsFor(host), names))) {
        known.set(name, tensor);
      }
    }
    return feedsFor(model);
  }

  private inputTensor(name: string): Tensor {
    const tensor =
      this.narrow.get(name)?.tensor ??
      this.fed.input(name) ??
      this.device.get(`model:${name}`) ??
      this.device.get(`frozen:${name}`) ??
      this.state.frozen.get(name);
    return requireFed(tensor, name);
  }

  /** The graph of a step: of its parts, and of the branches that its hyperparameters choose. */
  private async load(step: number): Promise<LoadedStep> {
    const { optimizer } = this.options;
    const { statistics, roots } = optimizer.schedule(step);
    const values = optimizer.hyperparameters(step);
    const key = `${statistics}/${roots}`;
    const variants = this.loaded.get(key) ?? [];
    for (const variant of variants) {
      const loaded = await variant;
      if ([...loaded.fixed].every(([name, value]) => values[name] === value)) return loaded;
    }
    const loading = this.build(step);
    this.loaded.set(key, [...variants, loading]);
    return loading;
  }

  private async build(step: number): Promise<LoadedStep> {
    const { program, optimizer, inputs, batchSize, threads, strict = false } = this.options;
    const parts = optimizer.schedule(step);
    const shapes = new Map(inputs.map(({ name, dims }) => [name, [batchSize, ...dims]]));
    const hyperparameters = optimizer.hyperparameters(step);
    const bound = await buildBoundGraph(program, optimizer, { parts, shapes, hyperparameters });
    const purpose = ["the training step", parts.statistics && "statistics", parts.roots && "roots"]
      .filter(Boolean)
      .join(" with ");
    const carried = new Set([...bound.graph.carried.values(), ...bound.graph.state.values()]);
    const session = await BoundSession.create(bound.model, {
      ...{ purpose, strict },
      locationOf: (output) => (carried.has(output) ? "gpu" : "host"),
      ...(threads !== undefined && { threads }),
    });
    const hostSession = bound.host && (await createSession(bound.host, { purpose: `${purpose} (host)`, threads: 1 }));
    return { ...bound, session, hostSession };
  }
}

/** @throws FishyError for a value beyond int32. */
function narrowInto(target: Int32Array, source: TensorData | undefined, name: string): void {
  const wide = source as BigInt64Array;
  for (let i = 0; i < target.length; i++) {
    const value = wide[i] as bigint;
    if (value > INT32_MAX || value < -INT32_MAX - 1n) {
      throw new FishyError(`Input '${name}' holds ${value}, which int32 does not: WebGPU has no int64 arithmetic.`);
    }
    target[i] = Number(value);
  }
}
