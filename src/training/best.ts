/** Following a metric over evaluations: which was the best, and when waiting for a better one is over. */
import { UsageError } from "../errors.js";
import type { Evaluation } from "./evaluator.js";

/** What an evaluation measures, by the names of `Evaluation`. */
export const METRICS = ["loss", "accuracy", "top5", "perplexity", "reconstructionError"] as const;
/** What an evaluation measures, by its name in `Evaluation`. */
export type Metric = (typeof METRICS)[number];

/** The best evaluation so far. */
export interface Best {
  readonly metric: Metric;
  readonly step: number;
  readonly value: number;
  /** Evaluations since then, none of which was better, and the step of the newest. */
  readonly waited: number;
  readonly lastStep: number;
}

export interface BestOptions {
  readonly metric: Metric;
  /** By how much an evaluation must be better to count as better. */
  readonly minDelta: number;
  /** Evaluations that may follow the best without a better one; undefined for any number. */
  readonly patience?: number | undefined;
}

export class BestFollower {
  /** @param best where a resumed run stood. */
  constructor(
    private readonly options: BestOptions,
    public best?: Best,
  ) {}

  /**
   * Takes an evaluation into account.
   * @returns whether it is the best so far.
   * @throws UsageError when it does not measure the metric.
   */
  update(step: number, evaluation: Evaluation): boolean {
    const { metric, minDelta } = this.options;
    const value = evaluation[metric];
    if (value === undefined) {
      const known = METRICS.filter((name) => evaluation[name] !== undefined);
      throw new UsageError(
        `The metric '${metric}' is not measured for this model and loss. Measured: ${known.join(", ")}.`,
      );
    }
    // A resumed run may judge the same step again.
    if (this.best && step <= this.best.lastStep) return false;
    const gain = this.best === undefined ? Number.POSITIVE_INFINITY : gainOf(metric, value, this.best.value);
    const isBest = Number.isFinite(value) && gain > minDelta;
    if (isBest) this.best = { metric, step, value, waited: 0, lastStep: step };
    else if (this.best) this.best = { ...this.best, waited: this.best.waited + 1, lastStep: step };
    return isBest;
  }

  /** Whether the patience is used up. */
  get isOver(): boolean {
    const { patience } = this.options;
    return patience !== undefined && this.best !== undefined && this.best.waited >= patience;
  }
}

/** How much better `value` is than `other`; negative when it is worse. */
function gainOf(metric: Metric, value: number, other: number): number {
  return metric === "accuracy" || metric === "top5" ? value - other : other - value;
}
