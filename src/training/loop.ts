/** The training loop: batches in, steps, records out; evaluations and checkpoints at their times; a stop between steps. */
import type { BatchSource } from "../data/source.js";
import { FishyError } from "../errors.js";
import type { Optimizer } from "../optimizers/optimizer.js";
import type { Position } from "./checkpoint.js";
import { chunkLength } from "./chunks.js";
import type { Engine } from "./engine.js";
import type { Evaluation } from "./evaluator.js";
import { heldOutFields, type StepRecord } from "./metrics.js";

export interface LoopOptions {
  readonly engine: Engine;
  readonly source: BatchSource;
  readonly optimizer: Optimizer;
  readonly totalSteps: number;
  readonly start: Position;
  /** Ends after this step with the outcome `paused`. */
  readonly pauseAt?: number | undefined;
  /** Steps between evaluations; 0 for none. The last step is left to the caller. */
  readonly evaluateEvery: number;
  /** Steps between checkpoints; 0 for none. The last step is left to the caller. */
  readonly checkpointEvery: number;
  evaluate(): Promise<Evaluation>;
  /** Learns of an evaluation; true ends the run. */
  evaluated(position: Position, evaluation: Evaluation): boolean;
  checkpoint(position: Position): void;
  record(record: StepRecord): void;
  shouldStop(): boolean;
}

/** How a run ended: at its last step, by the user, by its own evaluations (`patience`), or where it was to pause. */
export type Outcome = "completed" | "interrupted" | "stopped early" | "paused";

export interface LoopResult {
  readonly position: Position;
  readonly outcome: Outcome;
  /** That of the last step, when the run stopped early, or paused after an evaluation. */
  readonly evaluation?: Evaluation;
  /** Seconds of each step. */
  readonly durations: readonly number[];
  readonly losses: readonly number[];
}

/** The loss became NaN or infinite. */
export class DivergenceError extends FishyError {
  constructor(
    readonly position: Position,
    message: string,
  ) {
    super(message);
  }
}

/** Position before the first step. */
export const START: Position = { step: 0, epoch: 0, batch: 0, seconds: 0 };

/**
 * Runs steps until `totalSteps`, `pauseAt` or a stop.
 * @throws DivergenceError when the loss is not finite; the state is then as it was before that step.
 */
export async function runLoop(options: LoopOptions): Promise<LoopResult> {
  const { engine, source, totalSteps, start, optimizer, evaluateEvery, checkpointEvery } = options;
  const { pauseAt = totalSteps } = options;
  const end = Math.min(totalSteps, pauseAt);
  const limits = { stepsPerRun: engine.stepsPerRun, totalSteps: end, intervals: [evaluateEvery, checkpointEvery] };
  let { step, seconds } = start;
  let place: Place = start;
  /** The places after each batch that was filled in and not run yet. */
  let filled: Place[] = [];
  const batchesPerStep = engine.accumulation?.batches ?? 1;
  const examplesPerStep = source.batchSize * batchesPerStep;
  /** Batches that were added to the next step. */
  let added = 0;
  const durations: number[] = [];
  const losses: number[] = [];
  const position = (): Position => ({ step, epoch: place.epoch, batch: place.batch, seconds });
  const result = (outcome: Outcome): LoopResult => ({ position: position(), outcome, durations, losses });

  let epoch = start.epoch;
  let mark = performance.now();
  while (step < end) {
    const skipped = epoch === start.epoch ? start.batch : 0;
    let index = skipped;
    for await (const batch of source.batches(epoch, skipped)) {
      if (added === 0 && options.shouldStop()) {
        await engine.synchronise?.();
        return result("interrupted");
      }
      engine.fill(filled.length, batch);
      index++;
      if (added < batchesPerStep - 1) {
        const loading = performance.now();
        await engine.prepare(step + 1, 1);
        mark += performance.now() - loading;
        await engine.accumulation?.add(step + 1, added++);
        continue;
      }
      added = 0;
      filled.push({ epoch, batch: index });
      const count = chunkLength(step, limits);
      if (filled.length < count) continue;
      const filling = performance.now() - mark;
      await engine.prepare(step + 1, count);
      mark = performance.now();
      const outcomes = await engine.run(step + 1, count);
      const duration = (filling + performance.now() - mark) / 1000 / outcomes.length;
      for (const [slot, { loss, metrics, blockMetrics }] of outcomes.entries()) {
        const { learning_rate } = optimizer.hyperparameters(step + 1);
        if (!Number.isFinite(loss)) {
          await engine.synchronise?.();
          throw new DivergenceError(position(), divergence(step + 1, loss, losses, learning_rate));
        }
        step++;
        place = filled[slot] as Place;
        seconds += duration;
        durations.push(duration);
        losses.push(loss);
        const last = step === totalSteps;
        const due = (every: number) => every > 0 && !last && step % every === 0;
        if (step === end || due(evaluateEvery) || due(checkpointEvery)) await engine.synchronise?.();
        const evaluation = due(evaluateEvery) ? await options.evaluate() : undefined;
        options.record({
          step,
          ...(source.batchesPerEpoch !== undefined && { epoch: (step * batchesPerStep) / source.batchesPerEpoch }),
          examples: step * examplesPerStep,
          loss,
          learning_rate: learning_rate as number,
          seconds,
          examples_per_second: examplesPerStep / duration,
          ...(Object.keys(metrics).length > 0 && { diagnostics: metrics }),
          ...(Object.keys(blockMetrics).length > 0 && { block_diagnostics: blockMetrics }),
          ...(evaluation && heldOutFields(evaluation)),
        });
        const isOver = evaluation !== undefined && options.evaluated(position(), evaluation);
        if (due(checkpointEvery)) options.checkpoint(position());
        if (isOver) return { ...result("stopped early"), evaluation };
        if (last) return result("completed");
        if (step === end) return { ...result("paused"), ...(evaluation && { evaluation }) };
      }
      filled = [];
      mark = performance.now();
    }
    if (index === 0) throw new FishyError(`The data gave no full batch in epoch ${epoch}.`);
    epoch++;
  }
  return result(step < totalSteps ? "paused" : "completed");
}

/** Where the next batch lies: its epoch, from 0, and its place in it. */
type Place = Pick<Position, "epoch" | "batch">;

/** What helps against a run that diverges. */
export const DIVERGENCE_ADVICE =
  "Try a smaller learning rate, a warm-up (schedule.warmup), or a larger batch; for Shampoo and Fishy also a larger ridge or grafting.";

function divergence(step: number, loss: number, losses: readonly number[], learningRate: number | undefined): string {
  const before = losses.at(-1);
  return `The loss is ${loss} at step ${step}${before === undefined ? "" : ` (${before} at the step before)`}, with the learning rate ${learningRate}. Training stopped. ${DIVERGENCE_ADVICE}`;
}
