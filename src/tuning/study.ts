/** The folder of a search: what is searched, the results so far, and a run for each trial. */
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { FishyError, messageOf, UsageError } from "../errors.js";
import { makeFolder } from "../make-folder.js";
import { writeFileAtomically } from "../training/checkpoint.js";
import type { RunSummary } from "../training/run-directory.js";
import { lockRun, type RunLock } from "../training/run-lock.js";
import type { Objective } from "./objective.js";
import type { SearchSpace, Values } from "./space.js";

/** What `tune.json` holds: everything that decides which trials there are and how they are judged, but their number. */
export interface StudyOptions {
  readonly search: SearchSpace;
  readonly seed: number;
  readonly objective: Objective;
  /** Steps at which trials are compared, ascending; null for the end of a run whose steps are not known beforehand. */
  readonly rungs: readonly (number | null)[];
  readonly factor: number;
  /** The options that all trials share, as the user wrote them. */
  readonly base: unknown;
}

/** A line of `results.jsonl`: a trial that reached a rung, or failed on its way. */
export interface TrialResult {
  /** Counts from 0. */
  readonly trial: number;
  readonly rung: number;
  readonly values: Values;
  readonly outcome: "completed" | "paused" | "stopped early" | "failed";
  /** The objective; null for a trial that failed. */
  readonly value: number | null;
  /** Steps done. */
  readonly steps: number;
  /** Seconds of training. */
  readonly seconds: number;
  /** The run's folder, relative to that of the search. */
  readonly directory: string;
  readonly train?: RunSummary["train"];
  readonly heldOut?: RunSummary["heldOut"];
  /** Why a trial failed. */
  readonly error?: string;
}

export class Study {
  private lock: RunLock | undefined;

  constructor(readonly path: string) {}

  get optionsFile(): string {
    return join(this.path, "tune.json");
  }
  get resultsFile(): string {
    return join(this.path, "results.jsonl");
  }
  get pageFile(): string {
    return join(this.path, "report.html");
  }

  /** A trial's folder, relative to that of the search. */
  trialFolder(trial: number): string {
    return join("trials", String(trial).padStart(4, "0"));
  }

  /**
   * Takes the folder for this process, making it or going on with what is in it.
   * @returns the results so far.
   * @throws UsageError when it holds a search with other options; FishyError while another process searches in it.
   */
  async open(options: StudyOptions): Promise<TrialResult[]> {
    makeFolder(this.path);
    this.lock = await lockRun(this.path, 0);
    try {
      // As it is read back, without what JSON does not hold.
      const written: StudyOptions = JSON.parse(JSON.stringify(options));
      if (existsSync(this.optionsFile)) {
        this.compare(this.readOptions(), written);
      } else {
        writeFileAtomically(this.optionsFile, `${JSON.stringify(written, null, 2)}\n`);
      }
      const results = readResults(this.resultsFile);
      // A line that a kill cut off would swallow the next one.
      const text = results.map((result) => `${JSON.stringify(result)}\n`).join("");
      if (existsSync(this.resultsFile)) writeFileAtomically(this.resultsFile, text);
      return results;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  append(result: TrialResult): void {
    appendFileSync(this.resultsFile, `${JSON.stringify(result)}\n`);
  }

  /** Gives the folder free. */
  close(): void {
    this.lock?.release();
  }

  private readOptions(): StudyOptions {
    try {
      return JSON.parse(readFileSync(this.optionsFile, "utf8"));
    } catch (error) {
      throw new FishyError(
        `${this.optionsFile} cannot be read: ${messageOf(error)}. Take another folder for the search (--out).`,
      );
    }
  }

  private compare(stored: StudyOptions, given: StudyOptions): void {
    const differing = (Object.keys(given) as (keyof StudyOptions)[]).filter(
      (name) => !isDeepStrictEqual(stored[name], given[name]),
    );
    if (differing.length === 0) return;
    const shown = differing.map(
      (name) => `${name}: ${JSON.stringify(stored[name])}, now ${JSON.stringify(given[name])}`,
    );
    throw new UsageError(
      `${this.path} holds a search with other options. They differ in ${shown.join("; ")}. Only the number of trials and of jobs may change: take another folder (--out).`,
    );
  }
}

/**
 * Reads `results.jsonl`; a last line that was cut off is left out.
 * @throws FishyError when a line before the last is damaged.
 */
export function readResults(path: string): TrialResult[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n").filter(Boolean);
  return lines.flatMap((line, index) => {
    try {
      return [JSON.parse(line) as TrialResult];
    } catch (error) {
      if (index === lines.length - 1) return [];
      throw new FishyError(`${path}: line ${index + 1} is not JSON: ${messageOf(error)}.`);
    }
  });
}
