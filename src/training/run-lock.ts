/**
 * One run at a time trains in a folder. A run whose parent was killed ends its step and saves before it ends; who
 * goes on with it meanwhile waits.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { FishyError } from "../errors.js";

/** How long to wait for the process that trains in the folder (milliseconds). */
const PATIENCE = 30_000;
const EVERY = 50;

/** The locks of this process. */
const held = new Set<string>();

interface Holder {
  readonly pid: number;
  /** When the process started, in the system's own units; tells it from another that got its number later. */
  readonly started: string | null;
}

/** A folder that belongs to one run of this process. */
export interface RunLock {
  release(): void;
}

/**
 * Takes a folder for a run of this process, waiting for another run, here or in another process, to end.
 * @throws FishyError when the other does not.
 */
export async function lockRun(directory: string, patience = PATIENCE): Promise<RunLock> {
  const file = resolve(directory, "run.lock");
  const end = Date.now() + patience;
  for (;;) {
    const holder = read(file);
    // A lock with this process's number that is not its own is that of a process before it.
    const isFree = holder === undefined || holder.pid === process.pid || !lives(holder);
    if (isFree && !held.has(file)) break;
    if (Date.now() > end) {
      throw new FishyError(
        `The process ${holder?.pid ?? process.pid} trains in ${directory}. Stop it, or wait for its end; if it does not train, delete ${file}.`,
      );
    }
    await new Promise((wake) => setTimeout(wake, EVERY));
  }
  const own: Holder = { pid: process.pid, started: startOf(process.pid) };
  writeFileSync(file, JSON.stringify(own));
  held.add(file);
  return {
    release() {
      held.delete(file);
      rmSync(file, { force: true });
    },
  };
}

function read(file: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    // None, or one that a kill cut off.
    return undefined;
  }
}

function lives({ pid, started }: Holder): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // Another user's process is there as well.
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return false;
  }
  return started === null || startOf(pid) === started;
}

/** Linux tells when a process started (proc(5): field 22 of stat, in ticks since boot); null elsewhere, and for none. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field, the name, may hold anything but ends with the last parenthesis.
    const [state, ...fields] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return state === "Z" ? null : (fields[18] ?? null);
  } catch {
    return null;
  }
}
