/** Training in a process of its own, so that progress and Ctrl-C live while the runtime blocks its thread. */
import { type ChildProcess, fork } from "node:child_process";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { FishyError, UsageError } from "../errors.js";
import { ALLOCATOR } from "../runtime/allocator.js";
import type { ChildOrders, ToChild, ToParent } from "./messages.js";
import { stringifyOptions } from "./options-json.js";
import type { RunEvents, RunResult } from "./run.js";

export interface IsolateOptions {
  /** The run's folder, with everything that the process needs. */
  readonly directory: string;
  readonly orders: ChildOrders;
  readonly hooks: RunEvents;
  /** Aborted: end the step, save, and return. */
  readonly signal?: AbortSignal | undefined;
}

/** A handle on the process, for those who must end it at once. */
export interface IsolatedRun {
  readonly result: Promise<Omit<RunResult, "state">>;
  /** Ends the step, saves, and ends. */
  stop(): void;
  /** Ends the process at once; what was not saved is lost. */
  kill(): void;
}

/** Starts the process. */
export function startIsolated(options: IsolateOptions): IsolatedRun {
  const entry = fileURLToPath(new URL(`./child${extname(import.meta.url)}`, import.meta.url));
  const child = fork(entry, [options.directory, stringifyOptions(options.orders)], {
    serialization: "advanced",
    env: { ...ALLOCATOR, ...process.env },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const stop = () => {
    const message: ToChild = { kind: "stop" };
    if (child.connected) child.send(message);
  };
  const result = follow(child, options).finally(() => options.signal?.removeEventListener("abort", stop));
  if (options.signal?.aborted) stop();
  options.signal?.addEventListener("abort", stop, { once: true });
  return { result, stop, kill: () => child.kill("SIGKILL") };
}

function follow(child: ChildProcess, { directory, hooks }: IsolateOptions): Promise<Omit<RunResult, "state">> {
  return new Promise((resolve, reject) => {
    let outcome: Omit<RunResult, "state"> | undefined;
    let failure: Error | undefined;
    let lastStep = 0;
    child.on("message", (message: ToParent) => {
      switch (message.kind) {
        case "plan":
          hooks.onPlan?.(message.plan);
          break;
        case "steps":
          for (const record of message.records) hooks.onStep?.(record);
          lastStep = message.records.at(-1)?.step ?? lastStep;
          break;
        case "activity":
          hooks.onActivity?.(message.activity);
          break;
        case "done":
          outcome = message.result;
          break;
        case "error":
          failure = errorFrom(message);
          break;
      }
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (outcome) resolve(outcome);
      else reject(failure ?? new FishyError(deathMessage(directory, lastStep, code, signal)));
    });
  });
}

function errorFrom(message: Extract<ToParent, { kind: "error" }>): Error {
  if (message.exitCode === 2) return new UsageError(message.message);
  if (message.exitCode !== undefined) return new FishyError(message.message);
  const error = new Error(message.message);
  if (message.stack) error.stack = message.stack;
  return error;
}

function deathMessage(directory: string, step: number, code: number | null, signal: string | null): string {
  const how = signal ? `was ended by ${signal}` : `ended with code ${code}`;
  const cause = signal === "SIGKILL" ? " The system does that when memory runs out: try a smaller batch." : "";
  return `The training process ${how} after step ${step}.${cause} What it saved is in ${directory}; go on from there with --resume.`;
}
