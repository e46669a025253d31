/** The sessions of an engine: loaded with its options, and given back. */
import type { ModelProto } from "../onnx/proto.js";
import { createSession, type Session } from "../runtime/session.js";
import { deviceOf, type EngineOptions } from "./engine.js";

/** A session on the engine's device. */
export function stepSession(model: ModelProto, purpose: string, options: EngineOptions): Promise<Session> {
  const { threads } = options;
  return createSession(model, { device: deviceOf(options), purpose, ...(threads !== undefined && { threads }) });
}

interface Releasable {
  release(): Promise<void>;
}

/** Releases the sessions of all that was loaded. What failed to load has told so where it was wanted. */
export async function releaseLoaded<T>(
  loading: Iterable<Promise<T>>,
  sessionsOf: (loaded: T) => Iterable<Releasable | undefined>,
): Promise<void> {
  for (const loaded of await Promise.allSettled(loading)) {
    if (loaded.status === "rejected") continue;
    for (const session of sessionsOf(loaded.value)) await session?.release();
  }
}
