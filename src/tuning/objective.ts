/** What trials are judged by. */
import { FishyError, UsageError } from "../errors.js";
import { METRICS, type Metric } from "../training/best.js";
import type { TrainOptions, TrainResult } from "../training/train.js";
import type { TrialResult } from "./study.js";

/** The metric that trials are judged by, and of which examples. */
export interface Objective {
  readonly metric: Metric;
  /** Of which examples. */
  readonly of: "held-out" | "training";
}

/**
 * The objective of a search: by default the loss of the held-out examples, without any that of the training examples.
 * @throws UsageError for a metric that does not exist, and held-out examples that do not.
 */
export function objectiveOf(
  { metric = "loss", of }: { readonly metric?: Metric | undefined; readonly of?: Objective["of"] | undefined },
  { heldOut }: Pick<TrainOptions, "heldOut">,
): Objective {
  if (!METRICS.includes(metric)) throw new UsageError(`The metric '${metric}' is none of ${METRICS.join(", ")}.`);
  const isHeldOut = heldOut !== undefined && heldOut !== 0;
  if (of === "held-out" && !isHeldOut) {
    throw new UsageError("The search is to be judged by held-out examples, and nothing is held out (heldOut).");
  }
  return { metric, of: of ?? (isHeldOut ? "held-out" : "training") };
}

/**
 * What a trial is worth: the best evaluation where the run looks for it, since its model is of that step.
 * @throws UsageError when the metric is not measured; FishyError when it is not finite.
 */
export function worthOf(
  { metric, of }: Objective,
  { best, heldOut, train }: Pick<TrainResult, "best" | "heldOut" | "train">,
): number {
  if (of === "held-out" && best?.metric === metric) return best.value;
  const value = (of === "held-out" ? heldOut : train)?.[metric];
  if (value === undefined) throw new UsageError(`The metric '${metric}' is not measured for this model and loss.`);
  if (!Number.isFinite(value)) throw new FishyError(`The ${of} ${metric} is ${value}.`);
  return value;
}

/** A value to be made small: larger accuracies are better, larger losses worse; a trial that failed is the worst. */
export function costOf({ metric }: Objective, value: number | null): number {
  if (value === null) return Number.POSITIVE_INFINITY;
  return metric === "accuracy" || metric === "top5" ? -value : value;
}

/** The furthest result of each trial: those that went furthest first, among them the best; failures last. */
export function rank(results: readonly TrialResult[], objective: Objective): TrialResult[] {
  const furthest = new Map<number, TrialResult>();
  for (const result of results) {
    const other = furthest.get(result.trial);
    if (!other || result.rung >= other.rung) furthest.set(result.trial, result);
  }
  const failed = ({ value }: TrialResult) => Number(value === null);
  const cost = ({ value }: TrialResult) => (value === null ? 0 : costOf(objective, value));
  return [...furthest.values()].sort(
    (a, b) => failed(a) - failed(b) || b.rung - a.rung || cost(a) - cost(b) || a.trial - b.trial,
  );
}
