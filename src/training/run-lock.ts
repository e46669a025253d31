/**
 * One run at a time trains in a folder. A run whose parent was killed ends its step and saves before it ends; who
 * goes on with it meanwhile waits.
 *
 * The lock is a file with the number of the process. That of a process that is gone is not deleted, for it may be another
 * one's by then, but followed by the next number: `run.lock`, `run.lock.2`, and so on. Each is made whole or not at all
 * and by one process alone; it counts when it is the last and the one before it, if any, still stands and is nobody's.
 */
import { randomInt } from "node:crypto";
import { linkSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { FishyError, messageOf } from "../errors.js";

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

interface Lock {
  readonly file: string;
  readonly number: number;
  /** Undefined for one that a kill cut off, or that is gone since. */
  readonly holder: Holder | undefined;
}

/**
 * Takes a folder for a run of this process, waiting for another run, here or in another process, to end.
 * @throws FishyError when the other does not, or the folder cannot be written to.
 */
export async function lockRun(directory: string, patience = PATIENCE): Promise<RunLock> {
  const folder = resolve(directory);
  const end = Date.now() + patience;
  for (;;) {
    const file = take(folder, directory);
    if (file !== undefined) {
      held.add(file);
      return {
        release() {
          held.delete(file);
          rmSync(file, { force: true });
        },
      };
    }
    if (Date.now() > end) {
      const last = locksIn(folder).at(-1);
      const [who, what] = last?.holder
        ? [`The process ${last.holder.pid}`, last.file]
        : ["Another process", join(folder, "run.lock")];
      throw new FishyError(
        `${who} trains in ${directory}. Stop it, or wait for its end; if it does not train, delete ${what}.`,
      );
    }
    await new Promise((wake) => setTimeout(wake, EVERY));
  }
}

/** Takes the lock; undefined while it is another's. */
function take(folder: string, shown: string): string | undefined {
  try {
    const last = locksIn(folder).at(-1);
    if (last && !isFree(last)) return undefined;
    const number = (last?.number ?? 0) + 1;
    const file = join(folder, number === 1 ? "run.lock" : `run.lock.${number}`);
    if (!make(file, folder)) return undefined;
    const locks = locksIn(folder);
    const own = locks.pop();
    const before = locks.at(-1);
    // Since the look at the last one, others may have taken the lock, and given it back as well.
    const follows = number === 1 || (before?.number === number - 1 && isFree(before));
    if (own?.file !== file || !follows) {
      rmSync(file, { force: true });
      return undefined;
    }
    // One of a process that lives is deleted by that process, which is about to see that it comes too late.
    for (const lock of locks.filter(isFree)) rmSync(lock.file, { force: true });
    return file;
  } catch (error) {
    throw new FishyError(`The run's folder ${shown} cannot be locked: ${messageOf(error)}. It must be writable.`);
  }
}

/** Makes a lock of this process, whole at once; false where there is one. */
function make(file: string, folder: string): boolean {
  const own: Holder = { pid: process.pid, started: startOf(process.pid) };
  const temporary = join(folder, `.run.lock.${randomInt(2 ** 32)}.${process.pid}.tmp`);
  try {
    writeFileSync(temporary, JSON.stringify(own));
    try {
      linkSync(temporary, file);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? "";
      // ENOENT: the run that goes on here has tidied up.
      if (code === "EEXIST" || code === "ENOENT") return false;
      if (!["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"].includes(code)) throw error;
      // A file system without links, such as FAT.
      writeFileSync(file, JSON.stringify(own), { flag: "wx" });
    }
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** The locks in a folder, the one that counts last. */
function locksIn(folder: string): Lock[] {
  return readdirSync(folder)
    .flatMap((name) => {
      const [found, number = 1] = /^run\.lock(?:\.(\d+))?$/.exec(name) ?? [];
      const file = join(folder, name);
      return found === undefined ? [] : [{ file, number: Number(number), holder: read(file) }];
    })
    .sort((a, b) => a.number - b.number);
}

function read(file: string): Holder | undefined {
  try {
    const holder = JSON.parse(readFileSync(file, "utf8"));
    return typeof holder?.pid === "number" ? holder : undefined;
  } catch {
    // None, or one that a kill cut off.
    return undefined;
  }
}

function isFree({ file, holder }: Lock): boolean {
  if (held.has(file)) return false;
  if (holder === undefined) return true;
  // Where no start is told, one with this process's number that is not its own is that of a process before it.
  return (holder.pid === process.pid && holder.started === null) || !lives(holder);
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
