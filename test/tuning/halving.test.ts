import { describe, expect, test } from "vitest";
import { type Job, nextJob, rungsOf } from "../../src/tuning/halving.js";

/** Runs a whole search in which trial `i` is worth `values[i]` at every rung, `workers` at a time, first in first out. */
function search(values: readonly number[], rungs: number, factor: number, workers: number): Job[] {
  const reached = Array.from({ length: rungs }, () => new Map<number, number>());
  const running = Array.from({ length: rungs }, () => new Set<number>());
  const done: Job[] = [];
  const active: Job[] = [];
  let started = 0;
  for (;;) {
    const job =
      active.length < workers ? nextJob({ reached, running, started, trials: values.length, factor }) : undefined;
    if (job) {
      if (job.rung === 0) started++;
      running[job.rung]?.add(job.trial);
      active.push(job);
      continue;
    }
    const ended = active.shift();
    if (!ended) return done;
    running[ended.rung]?.delete(ended.trial);
    reached[ended.rung]?.set(ended.trial, values[ended.trial] as number);
    done.push(ended);
  }
}

const trialsAt = (done: readonly Job[], rung: number) =>
  done
    .filter((job) => job.rung === rung)
    .map((job) => job.trial)
    .sort((a, b) => a - b);

describe("successive halving", () => {
  test("takes the best third on, and their best third", () => {
    const done = search([9, 1, 8, 7, 2, 6, 5, 3, 4], 3, 3, 1);
    expect(trialsAt(done, 0)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(trialsAt(done, 1)).toEqual([1, 4, 7]);
    expect(trialsAt(done, 2)).toEqual([1]);
    // Asynchronous: the first of three goes on before the fourth begins.
    expect(done.slice(0, 4)).toEqual([
      { trial: 0, rung: 0 },
      { trial: 1, rung: 0 },
      { trial: 2, rung: 0 },
      { trial: 1, rung: 1 },
    ]);
  });

  test.each([1, 2, 4, 16])("never runs a trial twice to a rung, and ends, with %i at a time", (workers) => {
    const values = Array.from({ length: 27 }, (_, i) => (i * 11) % 27);
    const done = search(values, 4, 3, workers);
    expect(new Set(done.map(({ trial, rung }) => `${trial} ${rung}`)).size).toBe(done.length);
    expect(trialsAt(done, 0)).toHaveLength(27);
    // The best is never left behind.
    expect(trialsAt(done, 3)).toContain(values.indexOf(0));
  });

  test("trials that failed do not go on", () => {
    const infinity = Number.POSITIVE_INFINITY;
    expect(trialsAt(search([infinity, infinity, infinity, 1], 2, 2, 1), 1)).toEqual([3]);
    expect(trialsAt(search([infinity, infinity], 2, 2, 1), 1)).toEqual([]);
  });

  test("one rung is a plain search", () => {
    expect(search([3, 1, 2], 1, 3, 2)).toEqual([0, 1, 2].map((trial) => ({ trial, rung: 0 })));
  });
});

test("rungs are the steps and their fractions down to the least", () => {
  expect(rungsOf(90, 10, 3)).toEqual([10, 30, 90]);
  expect(rungsOf(90, 11, 3)).toEqual([30, 90]);
  expect(rungsOf(100, 100, 3)).toEqual([100]);
  expect(rungsOf(100, 10, 4)).toEqual([25, 100]);
});
