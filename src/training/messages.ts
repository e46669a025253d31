/** What the training process and its parent tell each other. */
import type { StepRecord } from "./metrics.js";
import type { RunOptions } from "./options.js";
import type { RunPlan, RunResult } from "./run.js";

export type ToParent =
  | { readonly kind: "plan"; readonly plan: RunPlan }
  | { readonly kind: "steps"; readonly records: readonly StepRecord[] }
  | { readonly kind: "activity"; readonly activity: string }
  | { readonly kind: "done"; readonly result: Omit<RunResult, "state"> }
  | { readonly kind: "error"; readonly message: string; readonly exitCode?: number; readonly stack?: string };

/** What the process does with the run's folder. */
export interface ChildOrders {
  /** A checkpoint to go on from. */
  readonly from?: string | undefined;
  /** Options in place of those in the folder. */
  readonly options: RunOptions;
  readonly acceptChanges?: boolean | undefined;
  /** The step to end after, before the last. */
  readonly pauseAt?: number | undefined;
}

export type ToChild = { readonly kind: "stop" };
