/** The second device as the first one's thread sees it: messages there, and promises of what comes back. */
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { FishyError } from "../errors.js";
import { encodeModel } from "../onnx/codec.js";
import type { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import type { Optimizer } from "../optimizers/optimizer.js";
import type { PartInput, PartOutput, PartProgram } from "../optimizers/program.js";
import { type Device, prepareEnvironment } from "../runtime/devices.js";

/** A part's model and what its inputs and outputs are. */
export interface SentPart {
  readonly name: "statistics" | "roots";
  readonly model: Uint8Array;
  readonly inputs: readonly { input: string; role: PartInput["role"]; name: string; dims: readonly number[] }[];
  readonly outputs: readonly { output: string; role: PartOutput["role"]; name: string }[];
}

export interface SecondStart {
  readonly device: Device;
  readonly threads: number;
  readonly parts: readonly SentPart[];
  readonly state: readonly { name: string; type: DataType; dims: readonly number[]; data: TensorData }[];
  /** Blocks by block metric. */
  readonly blocks: Readonly<Record<string, number>>;
}

export type ToSecond =
  | {
      readonly kind: "run";
      readonly id: number;
      readonly parts: readonly SentPart["name"][];
      /** Gradients, parameters and hyperparameters by `role:name`. */
      readonly fed: readonly [string, TensorData][];
      /** State to send back. */
      readonly wanted: readonly string[];
    }
  | { readonly kind: "state"; readonly id: number }
  | { readonly kind: "stop" };

export type FromSecond =
  | {
      readonly kind: "done";
      readonly id: number;
      readonly state: readonly [string, TensorData][];
      readonly metrics: readonly [string, number[]][];
    }
  | { readonly kind: "error"; readonly id: number; readonly message: string };

type Done = Extract<FromSecond, { kind: "done" }>;

export function sentPart(
  name: SentPart["name"],
  { model, inputs, outputs }: PartProgram,
  optimizer: Optimizer,
): SentPart {
  const dims = new Map(optimizer.parameters.map((parameter) => [parameter.name, parameter.dims]));
  return {
    name,
    model: encodeModel(model),
    inputs: [...inputs].map(([input, { role, name: of }]) => ({
      ...{ input, role, name: of },
      dims: role === "hyperparameter" ? [] : (dims.get(of) ?? []),
    })),
    outputs: [...outputs].map(([output, { role, name: of }]) => ({ output, role, name: of })),
  };
}

/** The thread. Requests are carried out in order. */
export class SecondDevice {
  private readonly worker: Worker;
  private readonly waiting = new Map<number, { resolve: (done: Done) => void; reject: (error: Error) => void }>();
  private failure: Error | undefined;
  private ids = 0;

  constructor(start: SecondStart) {
    // A thread has a copy of the environment, which libraries do not read.
    prepareEnvironment(start.device);
    const entry = new URL(`./preconditioner-worker${extname(new URL(import.meta.url).pathname)}`, import.meta.url);
    this.worker = new Worker(entry, { workerData: start, env: { ...process.env } });
    this.worker.on("message", (message: FromSecond) => {
      const waiter = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      if (message.kind === "done") waiter?.resolve(message);
      else waiter?.reject(new FishyError(message.message));
    });
    this.worker.on("error", (error) => this.fail(error));
    this.worker.on("exit", () => this.fail(new FishyError("The thread of the second device ended.")));
  }

  /** Refreshes what `parts` refresh. */
  run(request: Omit<Extract<ToSecond, { kind: "run" }>, "kind" | "id">): Promise<Done> {
    return this.ask((id) => ({ kind: "run", id, ...request }));
  }

  /** All state that the device keeps. */
  state(): Promise<Done> {
    return this.ask((id) => ({ kind: "state", id }));
  }

  /** Ends the thread after what it was asked for: ending it within a run would end the process. */
  async stop(): Promise<void> {
    this.worker.removeAllListeners("exit");
    const exit = new Promise((resolve) => this.worker.once("exit", resolve));
    if (this.failure) return;
    this.send({ kind: "stop" });
    await exit;
  }

  private ask(make: (id: number) => ToSecond): Promise<Done> {
    if (this.failure) return Promise.reject(this.failure);
    const id = this.ids++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.send(make(id));
    });
  }

  private send(message: ToSecond): void {
    this.worker.postMessage(message);
  }

  private fail(error: Error): void {
    this.failure ??= error;
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}
