/** The folder of a run: which files it holds and what is in them. */
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { decodeSafetensors, encodeSafetensors } from "../data/safetensors.js";
import { FishyError, messageOf } from "../errors.js";
import { makeFolder } from "../make-folder.js";
import type { ExternalSource } from "../onnx/external.js";
import { loadModel, saveModel } from "../onnx/model-file.js";
import type { ModelProto } from "../onnx/proto.js";
import { readManifest, type TrainingProgram } from "../rewrite/manifest.js";
import type { RewriteOptions } from "../rewrite/rewrite.js";
import type { Best } from "./best.js";
import { checkpointPath, listCheckpoints, loadCheckpoint, writeFileAtomically } from "./checkpoint.js";
import type { Evaluation, LocatedModel } from "./evaluator.js";
import type { Outcome } from "./loop.js";
import type { Moments } from "./moments.js";
import type { RunOptions } from "./options.js";
import { parseOptionsJson, stringifyOptions } from "./options-json.js";

/** A program and the folder of its external data. */
export interface LocatedProgram extends TrainingProgram, ExternalSource {}

/** What `options.json` holds. */
export interface StoredOptions {
  /** The version of fishy that made the run. */
  readonly fishy: string;
  /** The source model's path as it was given; null when it came from memory. */
  readonly model: string | null;
  readonly rewrite: RewriteOptions;
  readonly run: RunOptions;
}

/** What `result.json` holds when a run has ended. */
export interface RunSummary {
  /** Steps done. */
  readonly steps: number;
  readonly outcome: Outcome;
  /** The training examples after the last step (10,000 of a larger set, chosen at random); absent after an interruption. */
  readonly train?: Evaluation;
  readonly heldOut?: Evaluation;
  /** The best evaluation, when the run looked for it; `model.onnx` is of that step when the best is kept. */
  readonly best?: Pick<Best, "metric" | "step" | "value">;
  /** Loss of the last step's batch. */
  readonly lastLoss: number | null;
  /** Seconds of training, without evaluations, checkpoints and loading. */
  readonly seconds: number;
  /** Mean and median over the steps of the last start. */
  readonly secondsPerStep: number;
  readonly medianSecondsPerStep: number;
}

/**
 * The run in `root` that was last written to.
 * @throws FishyError when there is none.
 */
export function latestRun(root: string): string {
  const names = existsSync(root) ? readdirSync(root) : [];
  const runs = names.map((name) => new RunDirectory(join(root, name))).filter((run) => run.exists);
  const timeOf = ({ metricsFile, optionsFile }: RunDirectory) =>
    statSync(existsSync(metricsFile) ? metricsFile : optionsFile).mtimeMs;
  const [latest] = runs.sort((a, b) => timeOf(b) - timeOf(a));
  if (!latest) throw new FishyError(`There is no run in the folder ${root}. Name one: --resume DIR.`);
  return latest.path;
}

export class RunDirectory {
  constructor(readonly path: string) {}

  get optionsFile(): string {
    return join(this.path, "options.json");
  }
  get programFile(): string {
    return join(this.path, "program.onnx");
  }
  /** The source model as it was; absent when a program was trained without one. */
  get sourceFile(): string {
    return join(this.path, "source.onnx");
  }
  get metricsFile(): string {
    return join(this.path, "metrics.jsonl");
  }
  get resultFile(): string {
    return join(this.path, "result.json");
  }
  /** What the entries of each block metric in `metrics.jsonl` stand for; absent without such metrics. */
  get blocksFile(): string {
    return join(this.path, "blocks.json");
  }
  /** Moments of the gradient that the run starts from; absent when it starts from none. */
  get momentsFile(): string {
    return join(this.path, "moments.safetensors");
  }
  /** The trained inference model. */
  get modelFile(): string {
    return join(this.path, "model.onnx");
  }

  get exists(): boolean {
    return existsSync(this.optionsFile);
  }

  /**
   * Makes the folder of a new run.
   * @throws FishyError when the folder already holds a run.
   */
  async create(
    options: StoredOptions,
    program: LocatedProgram,
    source: ({ readonly proto: ModelProto } & ExternalSource) | undefined,
    moments?: Moments,
  ): Promise<void> {
    // A run that failed before its first step, over its data say, leaves nothing to lose.
    if (this.exists && existsSync(this.metricsFile)) {
      throw new FishyError(
        `${this.path} already holds a run. Take another folder, go on with it (--resume), or delete it.`,
      );
    }
    makeFolder(this.path);
    await saveModel({ proto: program.model, directory: program.directory }, this.programFile);
    if (source) await saveModel(source, this.sourceFile);
    if (moments) {
      writeFileAtomically(this.momentsFile, encodeSafetensors(moments.tensors, { steps: String(moments.steps) }));
    }
    // Last: a folder with options is a whole run.
    writeFileAtomically(this.optionsFile, `${stringifyOptions(options, 2)}\n`);
  }

  /** Replaces the run's own options, for a run that goes on with others. */
  writeRunOptions(run: RunOptions): void {
    const stored = this.readOptions();
    writeFileAtomically(this.optionsFile, `${stringifyOptions({ ...stored, run }, 2)}\n`);
  }

  readOptions(): StoredOptions {
    return this.readJson<StoredOptions>(this.optionsFile);
  }

  async readProgram(): Promise<LocatedProgram> {
    const { proto, directory } = await loadModel(this.programFile);
    const manifest = readManifest(proto, this.programFile);
    if (!manifest) throw new FishyError(`${this.programFile} is no training program: it has no fishy manifest.`);
    return { model: proto, manifest, directory };
  }

  /** The source model as it was; undefined for a program that was trained without one. */
  async readSource(): Promise<LocatedModel | undefined> {
    return existsSync(this.sourceFile) ? loadModel(this.sourceFile) : undefined;
  }

  readMoments(): Moments | undefined {
    if (!existsSync(this.momentsFile)) return undefined;
    const { tensors, metadata } = decodeSafetensors(readFileSync(this.momentsFile), this.momentsFile);
    return { steps: Number(metadata.steps), tensors };
  }

  /**
   * The checkpoint that an export or evaluation takes: that of the best evaluation when the run keeps it, otherwise the
   * newest.
   * @throws FishyError when there is none yet.
   */
  bestCheckpoint(): string {
    const newest = listCheckpoints(this.path).at(-1);
    if (newest === undefined) throw new FishyError(`The run ${this.path} has no checkpoint yet.`);
    if (!this.readOptions().run.keepBest) return newest;
    const { best } = loadCheckpoint(newest).position;
    const path = best && checkpointPath(this.path, best.step);
    return path !== undefined && existsSync(path) ? path : newest;
  }

  writeBlocks(blocks: ReadonlyMap<string, readonly string[]>): void {
    writeFileAtomically(this.blocksFile, `${JSON.stringify(Object.fromEntries(blocks), null, 2)}\n`);
  }

  /** What the entries of each block metric stand for; empty without such metrics. */
  readBlocks(): Map<string, readonly string[]> {
    if (!existsSync(this.blocksFile)) return new Map();
    return new Map(Object.entries(this.readJson<Record<string, readonly string[]>>(this.blocksFile)));
  }

  writeResult(summary: RunSummary): void {
    writeFileAtomically(this.resultFile, `${JSON.stringify(summary, null, 2)}\n`);
  }

  removeResult(): void {
    rmSync(this.resultFile, { force: true });
  }

  /** The summary; undefined while the run goes on, or when it was killed. */
  readResult(): RunSummary | undefined {
    return existsSync(this.resultFile) ? this.readJson<RunSummary>(this.resultFile) : undefined;
  }

  private readJson<T>(file: string): T {
    let content: string;
    try {
      content = readFileSync(file, "utf8");
    } catch {
      throw new FishyError(`${this.path} holds no run: there is no ${file}.`);
    }
    try {
      return parseOptionsJson<T>(content);
    } catch (error) {
      throw new FishyError(`${file} is not JSON: ${messageOf(error)}.`);
    }
  }
}
