/**
 * WebGPU sessions whose outputs stay in GPU buffers and feed the next run. What onnxruntime-node 1.30 makes of binding
 * has rules of its own (docs/webgpu.md), which these classes keep: a session always fetches all of its outputs; a buffer
 * is read by a session that copies it; whoever takes a tensor disposes of it.
 */
import type { InferenceSession } from "onnxruntime-node";
import { FishyError, messageOf } from "../errors.js";
import { emptyGraph, GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/codec.js";
import { DataType, type ModelProto } from "../onnx/proto.js";
import { PROGRAM_IR, PROGRAM_OPSET } from "../onnx/versions.js";
import { loadRuntime, type Tensor } from "./ort.js";

/** Where an output lies after a run. */
export type OutputLocation = "gpu" | "host";

export interface BoundSessionOptions {
  /** What the session is for, in errors. */
  readonly purpose: string;
  locationOf(output: string): OutputLocation;
  readonly threads?: number;
  /** Refuses a graph with nodes that would run on the CPU. */
  readonly strict?: boolean;
}

export class BoundSession {
  private released = false;

  private constructor(
    private readonly session: InferenceSession,
    private readonly options: BoundSessionOptions,
  ) {}

  /** @throws FishyError when ONNX Runtime has no adapter or refuses the model. */
  static async create(model: ModelProto, options: BoundSessionOptions): Promise<BoundSession> {
    const ort = await loadRuntime();
    const names = model.graph.output.map(({ name }) => name ?? "");
    try {
      const session = await ort.InferenceSession.create(encodeModel(model), {
        executionProviders: ["webgpu"],
        intraOpNumThreads: options.threads ?? 0,
        interOpNumThreads: 1,
        executionMode: "sequential",
        graphOptimizationLevel: "all",
        logSeverityLevel: 3,
        preferredOutputLocation: Object.fromEntries(
          names.map((name) => [name, options.locationOf(name) === "gpu" ? "gpu-buffer" : "cpu"]),
        ),
        // Values of session options are strings here; anything else is ignored.
        ...(options.strict && { extra: { session: { disable_cpu_ep_fallback: "1" } } }),
      });
      return new BoundSession(session, options);
    } catch (error) {
      throw new FishyError(`ONNX Runtime cannot load ${options.purpose} on WebGPU: ${messageOf(error)}`);
    }
  }

  /** Runs the graph. Every output is a new tensor, the caller's to dispose of. */
  async run(feeds: Readonly<Record<string, Tensor>>): Promise<Record<string, Tensor>> {
    try {
      return (await this.session.run(feeds)) as Record<string, Tensor>;
    } catch (error) {
      const message = messageOf(error);
      const remedy = message.includes("requires f16") ? " The adapter has no shader-f16: use precision float32." : "";
      throw new FishyError(`ONNX Runtime failed while running ${this.options.purpose} on WebGPU: ${message}${remedy}`);
    }
  }

  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    await this.session.release();
  }
}

/** Copies float32 tensors to the GPU and back: `getData` of a tensor in a GPU buffer ends the process. */
export class DeviceCopies {
  private constructor(
    private readonly up: BoundSession,
    private readonly down: BoundSession,
  ) {}

  static async create(): Promise<DeviceCopies> {
    const copy = (location: OutputLocation) =>
      BoundSession.create(copyModel(), { purpose: "copies between host and device", locationOf: () => location });
    return new DeviceCopies(await copy("gpu"), await copy("host"));
  }

  /** A copy on the GPU of a float32 tensor of the host. */
  async upload(tensor: Tensor): Promise<Tensor> {
    return (await this.up.run({ x: tensor })).y as Tensor;
  }

  /** The values of a float32 tensor on the GPU. */
  async download(tensor: Tensor): Promise<Float32Array> {
    const { y } = await this.down.run({ x: tensor });
    return (y as Tensor).data as Float32Array;
  }

  async release(): Promise<void> {
    await this.up.release();
    await this.down.release();
  }
}

function copyModel(): ModelProto {
  const b = new GraphBuilder(emptyGraph("copy"));
  b.input("x", { elemType: DataType.FLOAT, shape: undefined });
  b.alias("x", "y");
  b.output("y", { elemType: DataType.FLOAT, shape: undefined });
  return {
    irVersion: PROGRAM_IR,
    producerName: "fishy",
    graph: b.graph,
    opsetImport: [{ domain: "", version: PROGRAM_OPSET }],
    metadataProps: [],
    trainingInfo: [],
    functions: [],
  };
}
