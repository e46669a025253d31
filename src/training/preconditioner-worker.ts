/** The thread of a second device: it keeps statistics and preconditioners, and refreshes them when told to. */
import { parentPort, workerData } from "node:worker_threads";
import { messageOf } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { elementCount, type TensorData } from "../onnx/tensor.js";
import { allocateBuffer, type Buffer, DoubleBuffer } from "../runtime/buffers.js";
import { loadRuntime, type Tensor, tensorOver } from "../runtime/ort.js";
import { createSession, type Session } from "../runtime/session.js";
import type { FromSecond, SecondStart, SentPart, ToSecond } from "./second-device.js";
import { releaseLoaded } from "./step-sessions.js";

const port = parentPort as NonNullable<typeof parentPort>;
const { device, threads, parts, state: initial, blocks } = workerData as SecondStart;
const ort = await loadRuntime();
const state = new Map(
  initial.map(({ name, type, dims, data }) => [
    name,
    new DoubleBuffer(ort, name, allocateBuffer(ort, type, dims, `optimizer state '${name}'`, data)),
  ]),
);
const sessions = new Map<SentPart["name"], Promise<Session>>();
const metrics = new Map<string, Buffer>();

function metricBuffer(name: string): Buffer {
  let buffer = metrics.get(name);
  if (!buffer) {
    buffer = allocateBuffer(ort, DataType.FLOAT, blocks[name] === undefined ? [] : [blocks[name]], `metric '${name}'`);
    metrics.set(name, buffer);
  }
  return buffer;
}

function load({ name, model }: SentPart): Promise<Session> {
  let session = sessions.get(name);
  if (!session) {
    session = createSession(model, { device, threads, purpose: `the ${name} on the second device` });
    sessions.set(name, session);
  }
  return session;
}

/** Runs a part. @returns its metrics. */
async function runPart(part: SentPart, fed: ReadonlyMap<string, TensorData>): Promise<Map<string, number[]>> {
  const session = await load(part);
  const feeds: Record<string, Tensor> = {};
  for (const { input, role, name, dims } of part.inputs) {
    feeds[input] =
      role === "state"
        ? (state.get(name) as DoubleBuffer).current.tensor
        : tensorOver(ort, DataType.FLOAT, dims, fed.get(`${role}:${name}`) as TensorData, `${role} '${name}'`);
  }
  const fetches: Record<string, Tensor> = {};
  for (const { output, role, name } of part.outputs) {
    fetches[output] = role === "state" ? (state.get(name) as DoubleBuffer).next.tensor : metricBuffer(name).tensor;
  }
  await session.run(feeds, fetches);
  const told = new Map<string, number[]>();
  for (const { role, name } of part.outputs) {
    if (role === "state") state.get(name)?.swap();
    else told.set(name, [...(metricBuffer(name).data as Float32Array)]);
  }
  return told;
}

function copies(names: Iterable<string>): [string, TensorData][] {
  return [...names].map((name) => {
    const { data, dims } = (state.get(name) as DoubleBuffer).current;
    return [name, data.slice(0, elementCount(dims)) as TensorData];
  });
}

async function answer(message: Exclude<ToSecond, { kind: "stop" }>): Promise<FromSecond> {
  if (message.kind === "state") return { kind: "done", id: message.id, state: copies(state.keys()), metrics: [] };
  const told: [string, number[]][] = [];
  for (const part of parts) {
    if (message.parts.includes(part.name)) told.push(...(await runPart(part, new Map(message.fed))));
  }
  return { kind: "done", id: message.id, state: copies(message.wanted), metrics: told };
}

// One after the other, in the order in which they came.
let last: Promise<void> = Promise.resolve();
port.on("message", (message: ToSecond) => {
  last = last.then(async () => {
    if (message.kind === "stop") {
      await releaseLoaded(sessions.values(), (session) => [session]);
      port.close();
      return;
    }
    try {
      port.postMessage(await answer(message));
    } catch (error) {
      const failure: FromSecond = { kind: "error", id: message.id, message: messageOf(error) };
      port.postMessage(failure);
    }
  });
});
