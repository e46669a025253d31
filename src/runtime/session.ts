/** Sessions of onnxruntime-node: created with fishy's defaults, run with checked feeds, errors that say what failed. */
import type { InferenceSession } from "onnxruntime-node";
import { FishyError, messageOf } from "../errors.js";
import { encodeModel } from "../onnx/codec.js";
import type { ModelProto } from "../onnx/proto.js";
import { CPU, type Device, executionProviders, prepareEnvironment } from "./devices.js";
import { loadRuntime, type Tensor } from "./ort.js";
import { type UncopiedModel, uncopied } from "./uncopied.js";

export interface SessionOptions {
  /** Where the graph runs; default the CPU. */
  readonly device?: Device;
  /** Threads inside one operator; 0 (default) lets ONNX Runtime take one for each physical core. */
  readonly threads?: number;
  /** What the session is for, in errors: `the training step`. */
  readonly purpose?: string;
  /** 0 verbose … 4 fatal; 3 (errors) by default. */
  readonly logLevel?: 0 | 1 | 2 | 3 | 4;
  /**
   * Whether the session keeps an arena on the CPU, where runs find memory again; default true. Without one it takes memory
   * from the process's allocator at every run, and shares it with other sessions.
   */
  readonly arena?: boolean;
  /** Bytes of external data by the location that the model names. */
  readonly externalData?: readonly { readonly path: string; readonly data: Uint8Array }[];
  /** Configuration entries of the session, nested names; all values are texts. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

/** A loaded graph. */
export interface Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  /** Runs the graph; every output is written into its preallocated tensor of `fetches`. */
  run(feeds: Readonly<Record<string, Tensor>>, fetches: Readonly<Record<string, Tensor>>): Promise<void>;
  /** Runs the graph and returns new tensors, for outputs whose shape is not known before. */
  fetch(feeds: Readonly<Record<string, Tensor>>, outputs: readonly string[]): Promise<Record<string, Tensor>>;
  release(): Promise<void>;
}

/**
 * Loads a model.
 * @param model the message, its bytes, or a path (external data is found beside it).
 * @throws FishyError when ONNX Runtime refuses it.
 */
export async function createSession(
  model: ModelProto | Uint8Array | string,
  options: SessionOptions = {},
): Promise<Session> {
  const device = options.device ?? CPU;
  prepareEnvironment(device);
  const ort = await loadRuntime();
  const purpose = options.purpose ?? "the model";
  const settings: InferenceSession.SessionOptions = {
    executionProviders: executionProviders(device),
    intraOpNumThreads: options.threads ?? 0,
    interOpNumThreads: 1,
    executionMode: "sequential",
    graphOptimizationLevel: "all",
    // Patterns plan a run's memory as one block, beside the pieces that the first run left in the arena: measured, they
    // save no time, and cost a sixth to a half more memory.
    enableMemPattern: device.kind !== "cpu",
    enableCpuMemArena: options.arena ?? true,
    logSeverityLevel: options.logLevel ?? 3,
    ...(options.externalData && { externalData: options.externalData }),
    ...(options.extra && { extra: { ...options.extra } }),
  };
  const isMessage = typeof model !== "string" && !(model instanceof Uint8Array);
  const ending = isMessage && device.kind === "cpu" ? await uncopied(model) : undefined;
  let session: InferenceSession;
  try {
    if (typeof model === "string") session = await ort.InferenceSession.create(model, settings);
    else {
      session = await ort.InferenceSession.create(isMessage ? encodeModel(ending?.model ?? model) : model, settings);
    }
  } catch (error) {
    throw new FishyError(`ONNX Runtime cannot load ${purpose}: ${messageOf(error)}`);
  }
  return new NativeSession(session, purpose, ending);
}

class NativeSession implements Session {
  private released = false;

  constructor(
    private readonly session: InferenceSession,
    private readonly purpose: string,
    /** How a run ends without copies of its outputs, where it can. */
    private readonly ending: UncopiedModel | undefined,
  ) {}

  get inputNames(): readonly string[] {
    return this.session.inputNames;
  }

  get outputNames(): readonly string[] {
    return this.session.outputNames.filter((name) => name !== this.ending?.marker);
  }

  async run(feeds: Readonly<Record<string, Tensor>>, fetches: Readonly<Record<string, Tensor>>): Promise<void> {
    const { ending } = this;
    try {
      await this.session.run(feeds, ending ? { [ending.marker]: null, ...fetches } : fetches);
    } catch (error) {
      if (messageOf(error) !== ending?.refusal) throw this.failure(error);
    }
  }

  async fetch(feeds: Readonly<Record<string, Tensor>>, outputs: readonly string[]): Promise<Record<string, Tensor>> {
    try {
      return (await this.session.run(feeds, outputs)) as Record<string, Tensor>;
    } catch (error) {
      throw this.failure(error);
    }
  }

  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    await this.session.release();
  }

  private failure(error: unknown): FishyError {
    return new FishyError(`ONNX Runtime failed while running ${this.purpose}: ${messageOf(error)}`);
  }
}
