/**
 * Batches made by a thread beside the one that trains: reading, decoding and augmenting go on while ONNX Runtime, whose
 * `run` blocks its thread, takes a step. Batches come in memory that both threads share.
 */
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { FishyError, UsageError } from "../errors.js";
import { elementCount, newData, type TensorData } from "../onnx/tensor.js";
import type { BindOptions, WantedInput } from "./bind.js";
import type { OpenOptions } from "./load.js";
import type { ShuffleOptions } from "./shuffled.js";
import type { Batch, BatchSource } from "./source.js";

/** Everything that another thread needs to make the same batches. */
export interface PrefetchOrders {
  readonly paths: readonly string[];
  readonly open: OpenOptions;
  readonly wanted: readonly WantedInput[];
  readonly bind: BindOptions;
  readonly shuffle: ShuffleOptions;
  /** What is held out: `splitRows`. */
  readonly heldOut: number;
  readonly splitSeed: number;
}

/** The arrays of one batch, by input, in shared memory. */
export type Slot = ReadonlyMap<string, TensorData>;

export interface PrefetchStart {
  readonly orders: PrefetchOrders;
  readonly slots: readonly Slot[];
}

export type ToWorker =
  | { readonly kind: "epoch"; readonly id: number; readonly epoch: number; readonly skip: number }
  | { readonly kind: "free"; readonly slot: number }
  | { readonly kind: "stop"; readonly id: number };

export type FromWorker =
  | { readonly kind: "batch"; readonly id: number; readonly slot: number }
  | { readonly kind: "end"; readonly id: number }
  | { readonly kind: "error"; readonly message: string; readonly exitCode?: number };

/**
 * The same batches as `source`, `ahead` of them made before they are asked for.
 * @param source what the orders describe, bound in this thread.
 */
export function prefetched(source: BatchSource, orders: PrefetchOrders, ahead: number): BatchSource {
  const { inputs, batchSize, batchesPerEpoch } = source;
  const slots = Array.from({ length: ahead }, (): Slot => {
    return new Map(inputs.map(({ name, type, dims }) => [name, shared(newData(type, batchSize * elementCount(dims)))]));
  });
  let thread: Thread | undefined;
  let ids = 0;
  return {
    inputs,
    batchSize,
    batchesPerEpoch,
    async *batches(epoch, skip) {
      thread ??= new Thread({ orders, slots });
      const id = ids++;
      thread.send({ kind: "epoch", id, epoch, skip });
      try {
        for (;;) {
          const slot = await thread.next(id);
          if (slot === undefined) return;
          yield batchOf(slots[slot] as Slot, batchSize);
          thread.send({ kind: "free", slot });
        }
      } finally {
        thread.send({ kind: "stop", id });
      }
    },
    async close() {
      await thread?.close();
      thread = undefined;
    },
  };
}

function batchOf(slot: Slot, size: number): Batch {
  return {
    size,
    fill(into) {
      for (const [name, data] of slot) (into.get(name) as Float32Array | undefined)?.set(data as Float32Array);
    },
  };
}

/** An array of the same length and kind over memory that threads share. */
function shared(data: TensorData): TensorData {
  const Kind = data.constructor as new (buffer: SharedArrayBuffer) => TensorData;
  return new Kind(new SharedArrayBuffer(data.byteLength));
}

class Thread {
  private readonly worker: Worker;
  private readonly arrived: FromWorker[] = [];
  private wake: (() => void) | undefined;

  constructor(start: PrefetchStart) {
    const entry = new URL(`./prefetch-worker${extname(new URL(import.meta.url).pathname)}`, import.meta.url);
    this.worker = new Worker(entry, { workerData: start, env: { ...process.env } });
    // A run that is over does not wait for batches that nobody wants.
    this.worker.unref();
    this.worker.on("message", (message: FromWorker) => this.arrive(message));
    this.worker.on("error", (error: Error) => this.arrive({ kind: "error", message: error.message }));
    this.worker.on("exit", () => this.arrive({ kind: "error", message: "The thread that reads the data ended." }));
  }

  send(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  /** The slot of the next batch of the epoch with this id; undefined at its end. @throws what the thread reports. */
  async next(id: number): Promise<number | undefined> {
    this.worker.ref();
    try {
      for (;;) {
        const message = this.arrived.shift();
        if (!message) {
          await new Promise<void>((resolve) => {
            this.wake = resolve;
          });
        } else if (message.kind === "error") {
          const { exitCode } = message;
          throw exitCode === 2 ? new UsageError(message.message) : new FishyError(message.message);
        } else if (message.id === id) {
          return message.kind === "batch" ? message.slot : undefined;
        } else if (message.kind === "batch") {
          // Of an epoch that was left before its end.
          this.send({ kind: "free", slot: message.slot });
        }
      }
    } finally {
      this.worker.unref();
    }
  }

  async close(): Promise<void> {
    this.worker.removeAllListeners("exit");
    await this.worker.terminate();
  }

  private arrive(message: FromWorker): void {
    this.arrived.push(message);
    this.wake?.();
    this.wake = undefined;
  }
}
