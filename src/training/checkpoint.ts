/**
 * Checkpoints: `checkpoint-<step>/` with the state as safetensors and a manifest with checksums. A checkpoint is there
 * whole or not at all: it is written to a temporary folder, synced, and renamed.
 */
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { readBytes } from "../data/bytes.js";
import { decodeSafetensors, type NamedTensor, safetensorsPieces } from "../data/safetensors.js";
import { FishyError, messageOf } from "../errors.js";
import { makeFolder } from "../make-folder.js";
import type { Best } from "./best.js";
import { differencesOf, type Fingerprint } from "./fingerprint.js";
import type { TrainingState } from "./state.js";

const CHECKPOINT_VERSION = 2;
const MANIFEST_FILE = "checkpoint.json";
const FILES = { model: "model.safetensors", optimizer: "optimizer.safetensors" } as const;

/** Where a run stands. */
export interface Position {
  /** Steps done. */
  readonly step: number;
  /** The epoch of the next batch, from 0, and its place in it. */
  readonly epoch: number;
  readonly batch: number;
  /** Seconds of training so far. */
  readonly seconds: number;
  /** The best evaluation so far; absent before the first, and when none is looked for. */
  readonly best?: Best;
}

export interface Checkpoint {
  readonly position: Position;
  readonly state: TrainingState;
}

interface CheckpointManifest {
  readonly version: number;
  readonly run: Fingerprint;
  readonly position: Position;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

/** Writes `checkpoint-<step>` into `folder` and returns its path. */
export function saveCheckpoint(folder: string, checkpoint: Checkpoint, run: Fingerprint): string {
  const target = checkpointPath(folder, checkpoint.position.step);
  const temporary = join(folder, `.${basename(target)}.${process.pid}.tmp`);
  try {
    makeFolder(folder);
    rmSync(temporary, { recursive: true, force: true });
    mkdirSync(temporary);
    const files: Record<string, { bytes: number; sha256: string }> = {};
    for (const [part, name] of Object.entries(FILES) as [keyof typeof FILES, string][]) {
      const pieces = safetensorsPieces(checkpoint.state[part], { format: "fishy" });
      writeSynced(join(temporary, name), pieces);
      files[name] = { bytes: pieces.reduce((sum, piece) => sum + piece.length, 0), sha256: sha256(...pieces) };
    }
    const manifest: CheckpointManifest = { version: CHECKPOINT_VERSION, run, position: checkpoint.position, files };
    writeSynced(join(temporary, MANIFEST_FILE), [Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`)]);
    syncFolder(temporary);
    // A run that went on from an earlier checkpoint reaches this step again.
    rmSync(target, { recursive: true, force: true });
    renameSync(temporary, target);
    syncFolder(folder);
  } catch (error) {
    if (existsSync(temporary)) rmSync(temporary, { recursive: true, force: true });
    throw new FishyError(
      `The checkpoint ${target} cannot be written: ${messageOf(error)}. The run's earlier checkpoints are whole.`,
    );
  }
  return target;
}

/**
 * Reads a checkpoint.
 * @param run the fingerprint of the run that goes on from it; undefined to read a checkpoint of any.
 * @throws FishyError when it is damaged, cut off, of another version, or of another program or other options.
 */
export function loadCheckpoint(path: string, run?: Fingerprint): Checkpoint {
  const damaged = (what: string) => new FishyError(`The checkpoint ${path} is damaged: ${what}. Use another one.`);
  if (!existsSync(path)) throw new FishyError(`There is no checkpoint ${path}.`);
  let manifest: CheckpointManifest;
  try {
    manifest = JSON.parse(readFileSync(join(path, MANIFEST_FILE), "utf8")) as CheckpointManifest;
  } catch (error) {
    throw damaged(`its ${MANIFEST_FILE} cannot be read (${messageOf(error)})`);
  }
  if (manifest.version !== CHECKPOINT_VERSION) {
    throw new FishyError(
      `The checkpoint ${path} has version ${manifest.version}; this fishy reads version ${CHECKPOINT_VERSION}.`,
    );
  }
  const differences = run ? differencesOf(manifest.run, run) : [];
  if (differences.length > 0) {
    throw new FishyError(
      `The checkpoint ${path} was made with other options, so that the run would not go on as if it had never stopped. They differ in ${differences.join("; ")}. Go on all the same with --accept-changes.`,
    );
  }
  const read = (name: string): ReadonlyMap<string, NamedTensor> => {
    let bytes: Uint8Array;
    try {
      bytes = readBytes(join(path, name));
    } catch (error) {
      throw damaged(`its ${name} cannot be read (${messageOf(error)})`);
    }
    const expected = manifest.files[name];
    if (bytes.length !== expected?.bytes)
      throw damaged(`its ${name} has ${bytes.length} bytes instead of ${expected?.bytes}`);
    if (sha256(bytes) !== expected.sha256) throw damaged(`the checksum of its ${name} is wrong`);
    return decodeSafetensors(bytes, join(path, name)).tensors;
  };
  return { position: manifest.position, state: { model: read(FILES.model), optimizer: read(FILES.optimizer) } };
}

/** Paths of the checkpoints in a run's folder, oldest first. */
export function listCheckpoints(folder: string): string[] {
  return checkpointsOf(folder).map(({ path }) => path);
}

function checkpointsOf(folder: string): { path: string; step: number }[] {
  return readdirSync(folder)
    .flatMap((name) => {
      const step = /^checkpoint-(\d+)$/.exec(name)?.[1];
      return step === undefined ? [] : [{ path: join(folder, name), step: Number(step) }];
    })
    .sort((a, b) => a.step - b.step);
}

/** The folder of a step's checkpoint. */
export function checkpointPath(folder: string, step: number): string {
  return join(folder, `checkpoint-${step}`);
}

/** Deletes all but the newest `keep` checkpoints and that of the step `spared`. */
export function pruneCheckpoints(folder: string, keep: number, spared?: number): void {
  const paths = listCheckpoints(folder);
  const best = spared === undefined ? undefined : checkpointPath(folder, spared);
  for (const path of paths.slice(0, Math.max(0, paths.length - keep))) {
    if (path !== best) rmSync(path, { recursive: true, force: true });
  }
}

/** Deletes the checkpoints after `step`, which a run that goes on from there writes anew; at step 0 that of step 0 too. */
export function removeCheckpointsAfter(folder: string, step: number): void {
  for (const checkpoint of checkpointsOf(folder)) {
    if (checkpoint.step > step || step === 0) rmSync(checkpoint.path, { recursive: true, force: true });
  }
}

/** Deletes what processes that were killed while they saved left behind. */
export function removeUnfinished(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (/^\..+\.\d+\.tmp$/.test(name)) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

/** Whether a folder is a checkpoint. */
export function isCheckpoint(path: string): boolean {
  return existsSync(join(path, MANIFEST_FILE));
}

/** Hexadecimal SHA-256. */
export function sha256(...parts: readonly (Uint8Array | string)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}

/** Writes a file so that it survives a crash of the machine: under a temporary name, synced, renamed. */
export function writeFileAtomically(path: string, content: string | Uint8Array): void {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
  writeSynced(temporary, [typeof content === "string" ? Buffer.from(content) : content]);
  renameSync(temporary, path);
}

/** One write call takes at most 2 GiB. */
const WRITE_BYTES = 2 ** 30;

function writeSynced(path: string, pieces: readonly Uint8Array[]): void {
  const file = openSync(path, "w");
  try {
    for (const piece of pieces) {
      for (let done = 0; done < piece.length; ) {
        done += writeSync(file, piece, done, Math.min(WRITE_BYTES, piece.length - done));
      }
    }
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function syncFolder(path: string): void {
  // Windows cannot open folders; its renames are durable without.
  if (process.platform === "win32") return;
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
