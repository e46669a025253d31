/** What is written down of a run: one line of JSON for each step in `metrics.jsonl`. */
import { closeSync, existsSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { FishyError } from "../errors.js";
import type { Evaluation } from "./evaluator.js";

/** One step. */
export interface StepRecord {
  /** Counts from 1. */
  readonly step: number;
  /** Epochs done after the step: 0.5 is half of the first. Absent when an epoch's length is not known. */
  readonly epoch?: number;
  /** Examples trained on so far, repeated ones counted again. */
  readonly examples: number;
  /** Loss of the step's batch, before its update. */
  readonly loss: number;
  readonly learning_rate: number;
  /** Seconds of training up to this step: data and steps, without evaluations, checkpoints and loading. */
  readonly seconds: number;
  readonly examples_per_second: number;
  /** The optimizer's scalars. */
  readonly diagnostics?: Readonly<Record<string, number>>;
  /** The optimizer's values for each of its blocks. */
  readonly block_diagnostics?: Readonly<Record<string, readonly number[]>>;
  /** Evaluation after this step. */
  readonly held_out_loss?: number;
  readonly held_out_accuracy?: number;
  readonly held_out_top5?: number;
  readonly held_out_perplexity?: number;
  readonly held_out_reconstruction_error?: number;
}

/** An evaluation as it stands in a record. */
export function heldOutFields(evaluation: Evaluation): Partial<StepRecord> {
  const { loss, accuracy, top5, perplexity, reconstructionError } = evaluation;
  return {
    held_out_loss: loss,
    ...(accuracy !== undefined && { held_out_accuracy: accuracy }),
    ...(top5 !== undefined && { held_out_top5: top5 }),
    ...(perplexity !== undefined && { held_out_perplexity: perplexity }),
    ...(reconstructionError !== undefined && { held_out_reconstruction_error: reconstructionError }),
  };
}

/** Lines gathered before they are written, and how long they may wait (milliseconds). */
const MAX_PENDING = 100;
const MAX_WAIT = 1000;

/** Appends records to a file; what is not flushed is lost only when the process is killed. */
export class MetricsWriter {
  private readonly file: number;
  private pending: string[] = [];
  private flushed = Date.now();

  constructor(path: string) {
    this.file = openSync(path, "a");
  }

  write(record: StepRecord): void {
    this.pending.push(`${JSON.stringify(record)}\n`);
    if (this.pending.length >= MAX_PENDING || Date.now() - this.flushed > MAX_WAIT) this.flush();
  }

  flush(): void {
    if (this.pending.length > 0) writeSync(this.file, this.pending.join(""));
    this.pending = [];
    this.flushed = Date.now();
  }

  close(): void {
    this.flush();
    closeSync(this.file);
  }
}

/**
 * Reads the records of a run; a last line that was cut off is left out.
 * @throws FishyError when a line before the last is damaged.
 */
export function readMetrics(path: string): StepRecord[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n").filter(Boolean);
  const records: StepRecord[] = [];
  for (const [index, line] of lines.entries()) {
    try {
      records.push(JSON.parse(line) as StepRecord);
    } catch {
      if (index < lines.length - 1) throw new FishyError(`${path}: line ${index + 1} is not JSON.`);
    }
  }
  return records;
}

/** Forgets the records after `step`, for a run that goes on from there. */
export function truncateMetrics(path: string, step: number): void {
  const kept = readMetrics(path).filter((record) => record.step <= step);
  writeFileSync(path, kept.map((record) => `${JSON.stringify(record)}\n`).join(""));
}
