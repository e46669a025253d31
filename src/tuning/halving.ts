/**
 * What to run next: every trial up to the first rung, and of those that reach a rung the best part on to the next one.
 * The rule is asynchronous successive halving (ASHA): L. Li et al., "A System for Massively Parallel Hyperparameter
 * Tuning", arXiv:1810.05934, algorithm 2. With one rung it is a plain search.
 */

/** A trial's value at a rung: smaller is better; infinity for a trial that failed. */
export type RungValues = ReadonlyMap<number, number>;

export interface HalvingState {
  /** For each rung, what the trials that reached it are worth there. */
  readonly reached: readonly RungValues[];
  /** For each rung, the trials on their way to it. */
  readonly running: readonly ReadonlySet<number>[];
  /** Trials that were started, finished or not. */
  readonly started: number;
  /** Trials to start in all. */
  readonly trials: number;
  /** One of how many goes on. */
  readonly factor: number;
}

/** A trial and the rung that it is to reach. */
export interface Job {
  readonly trial: number;
  readonly rung: number;
}

/** The next job; undefined when there is none until a running one ends, or none at all. */
export function nextJob(state: HalvingState): Job | undefined {
  const { reached, running, factor } = state;
  for (let rung = reached.length - 2; rung >= 0; rung--) {
    const here = reached[rung] as RungValues;
    const best = [...here].sort(([i, a], [j, b]) => a - b || i - j).slice(0, Math.floor(here.size / factor));
    const isPromoted = (trial: number) => reached[rung + 1]?.has(trial) || running[rung + 1]?.has(trial);
    const next = best.find(([trial, value]) => Number.isFinite(value) && !isPromoted(trial));
    if (next) return { trial: next[0], rung: rung + 1 };
  }
  return state.started < state.trials ? { trial: state.started, rung: 0 } : undefined;
}

/**
 * The steps of each rung: `steps` and the fractions of it by powers of the factor, down to `minSteps`.
 * @returns ascending.
 */
export function rungsOf(steps: number, minSteps: number, factor: number): number[] {
  const rungs = [steps];
  for (let size = steps / factor; Math.round(size) >= minSteps; size /= factor) rungs.unshift(Math.round(size));
  return rungs;
}
