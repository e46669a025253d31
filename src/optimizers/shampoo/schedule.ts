/** When Shampoo's statistics are updated and its roots refreshed. Steps count from 1. */
import type { StepSchedule } from "../optimizer.js";
import type { ShampooOptions } from "./options.js";

type Intervals = Pick<ShampooOptions, "statisticsInterval" | "rootInterval" | "rootSchedule" | "startStep">;

function isRootStep(options: Intervals, step: number): boolean {
  const { rootInterval, startStep } = options;
  switch (options.rootSchedule) {
    case "from-start":
      return step >= startStep && (step - startStep) % rootInterval === 0;
    case "multiples":
      return step === startStep || (step > startStep && step % rootInterval === 0);
    case "from-first-step": {
      // A refresh that another one overtakes before the first preconditioned step would be wasted.
      const due = (step - 1) % rootInterval === 0;
      return due && step + rootInterval > startStep;
    }
  }
}

export function stepSchedule(options: Intervals, step: number): StepSchedule {
  if (options.startStep === Number.POSITIVE_INFINITY) return { statistics: false, roots: false };
  return { statistics: (step - 1) % options.statisticsInterval === 0, roots: isRootStep(options, step) };
}

/** How often the statistics have been updated once step `step` is over. */
export function statisticsUpdates(options: Intervals, step: number): number {
  return Math.floor((step - 1) / options.statisticsInterval) + 1;
}
