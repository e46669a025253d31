/** The thread that makes batches ahead of time; `prefetch.ts` starts it and takes them. */
import { parentPort, workerData } from "node:worker_threads";
import { FishyError, messageOf } from "../errors.js";
import type { TensorData } from "../onnx/tensor.js";
import { openDataset } from "./load.js";
import type { FromWorker, PrefetchStart, ToWorker } from "./prefetch.js";
import { bindRows } from "./rows.js";
import type { BatchSource } from "./source.js";
import { splitRows } from "./split.js";

const port = parentPort as NonNullable<typeof parentPort>;
const { orders, slots } = workerData as PrefetchStart;
const free: number[] = slots.map((_, i) => i);
let current = -1;
let wake: (() => void) | undefined;

function send(message: FromWorker): void {
  port.postMessage(message);
}

let opening: Promise<BatchSource> | undefined;

async function open(): Promise<BatchSource> {
  const { paths, open, wanted, bind, shuffle, heldOut, splitSeed } = orders;
  const bound = await bindRows(await openDataset(paths, open), wanted, bind);
  return bound.shuffled(splitRows(bound.length, heldOut, splitSeed).train, shuffle);
}

/** Lets messages in, and waits for a free slot. @returns undefined when the epoch is no longer wanted. */
async function freeSlot(id: number): Promise<number | undefined> {
  await new Promise((resolve) => setImmediate(resolve));
  while (free.length === 0 && current === id) {
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
  return current === id ? free.shift() : undefined;
}

async function makeEpoch(id: number, epoch: number, skip: number): Promise<void> {
  opening ??= open();
  const source = await opening;
  for await (const batch of source.batches(epoch, skip)) {
    const slot = await freeSlot(id);
    if (slot === undefined) return;
    batch.fill(slots[slot] as ReadonlyMap<string, TensorData>);
    send({ kind: "batch", id, slot });
  }
  send({ kind: "end", id });
}

port.on("message", (message: ToWorker) => {
  if (message.kind === "free") free.push(message.slot);
  else if (message.kind === "stop") current = current === message.id ? -1 : current;
  else {
    current = message.id;
    makeEpoch(message.id, message.epoch, message.skip).catch((error) => {
      send({
        kind: "error",
        message: messageOf(error),
        ...(error instanceof FishyError && { exitCode: error.exitCode }),
      });
    });
  }
  wake?.();
  wake = undefined;
});
