import { describe, expect, test } from "vitest";
import type { StepRecord } from "../../src/training/metrics.js";
import { formatCount, formatLoss, formatSeconds, Progress } from "../../src/training/progress.js";

const plan = {
  totalSteps: 10,
  startStep: 0,
  batchSize: 50,
  trainExamples: 8000,
  heldOutExamples: 0,
  parameters: 12345,
};
const record = (step: number, extra: Partial<StepRecord> = {}): StepRecord => ({
  step,
  examples: 50 * step,
  loss: 1 / step,
  learning_rate: 0.001,
  seconds: step / 2,
  examples_per_second: 100,
  ...extra,
});

function progressOn(
  stream: { isTTY?: boolean; columns?: number },
  options: { color?: boolean; label?: string; verbose?: boolean } = {},
) {
  const written: string[] = [];
  let now = 0;
  const progress = new Progress({
    ...options,
    now: () => now,
    stream: { ...stream, write: (text) => written.push(text) },
  });
  return {
    hooks: progress.hooks,
    finish: () => progress.finish(),
    wait: (ms: number) => {
      now += ms;
    },
    text: () => written.join(""),
  };
}

describe("on a terminal", () => {
  test("one line is drawn anew: step of total, smoothed loss, rate, speed, time left", () => {
    const { hooks, text, wait, finish } = progressOn({ isTTY: true, columns: 120 }, { color: false });
    hooks.onPlan(plan);
    for (let step = 1; step <= 4; step++) {
      wait(200);
      hooks.onStep(record(step));
    }
    const lines = text().split("\r\x1b[K");
    expect(lines[0]).toBe("12,345 parameters · 8,000 examples · batch 50 · 10 steps\n");
    // The mean of 1, 1/2, 1/3, 1/4 is 0.5208; 6 steps of half a second are left.
    expect(lines[4]).toBe(
      `${"█".repeat(10)}${"░".repeat(14)} 4/10 · loss 0.5208 · lr 0.001 · 100 examples/s · 3.0 s left`,
    );
    finish();
    expect(text().endsWith("left\n")).toBe(true);
  });

  test("diagnostics are lines of their own above it, seconds apart, when asked for", () => {
    const run = (verbose: boolean) => {
      const { hooks, text, wait } = progressOn({ isTTY: true, columns: 120 }, { color: false, verbose });
      hooks.onPlan(plan);
      for (let step = 1; step <= 8; step++) {
        wait(1000);
        hooks.onStep(record(step, step % 2 === 0 ? { diagnostics: { norm: step / 3, failed: 0 } } : {}));
      }
      return text()
        .split("\n")
        .map((line) => line.split("\r\x1b[K").at(-1))
        .filter((line) => line?.includes("norm"));
    };
    expect(run(false)).toEqual([]);
    expect(run(true)).toEqual(["step 2 · norm 0.6667 · failed 0", "step 8 · norm 2.667 · failed 0"]);
  });

  test("draws at most ten times a second, but always the last step", () => {
    const { hooks, text, wait } = progressOn({ isTTY: true, columns: 120 }, { color: false });
    hooks.onPlan(plan);
    for (let step = 1; step <= 10; step++) {
      wait(30);
      hooks.onStep(record(step));
    }
    const drawn = text().split("\r\x1b[K").slice(1);
    expect(drawn.map((line) => /(\d+)\/10/.exec(line)?.[1])).toEqual(["1", "5", "9", "10"]);
    expect(drawn.at(-1)).toContain("5.0 s");
  });

  test("stopping is said once, above the line", () => {
    const { hooks, text, wait } = progressOn({ isTTY: true, columns: 120 }, { color: false });
    hooks.onPlan(plan);
    hooks.onStep(record(1));
    hooks.onActivity("stopping after this step");
    wait(200);
    hooks.onStep(record(2));
    const lines = text().split("\r\x1b[K");
    expect(lines.slice(2)).toEqual(["stopping after this step\n", expect.stringContaining(" 2/10 ")]);
  });

  test("a terminal that does not know its width (columns 0) counts as one of 80", () => {
    const { hooks, text } = progressOn({ isTTY: true, columns: 0 }, { color: false });
    hooks.onPlan(plan);
    hooks.onStep(record(1));
    expect(text().split("\r\x1b[K")[1]).toMatch(/1\/10 · loss 1\.000/);
  });

  test("a narrow terminal loses the bar, then the end of the line, never its width", () => {
    for (const columns of [30, 60, 80]) {
      const { hooks, text } = progressOn({ isTTY: true, columns }, { color: true, label: "fishy" });
      hooks.onPlan(plan);
      hooks.onStep(record(1));
      // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is looked for.
      const line = (text().split("\r\x1b[K")[1] as string).replace(/\x1b\[\d+m/g, "");
      expect(line.length).toBeLessThan(columns);
      expect(line).toContain("1/10");
    }
  });

  test("colours follow NO_COLOR", () => {
    const escapes = (color?: boolean) => {
      const { hooks, text } = progressOn({ isTTY: true, columns: 120 }, color === undefined ? {} : { color });
      hooks.onPlan(plan);
      hooks.onStep(record(1));
      return text().includes("\x1b[1m");
    };
    const before = process.env.NO_COLOR;
    process.env.NO_COLOR = "1";
    expect(escapes()).toBe(false);
    delete process.env.NO_COLOR;
    expect(escapes()).toBe(true);
    if (before !== undefined) process.env.NO_COLOR = before;
  });
});

describe("elsewhere", () => {
  test("plain lines, seconds apart, and each evaluation", () => {
    const { hooks, text, wait, finish } = progressOn({}, { label: "adam" });
    hooks.onPlan(plan);
    for (let step = 1; step <= 10; step++) {
      wait(2000);
      hooks.onActivity("evaluating");
      hooks.onStep(record(step, step === 5 ? { held_out_loss: 0.25, held_out_accuracy: 0.875 } : {}));
    }
    finish();
    expect(text().split("\n")).toEqual([
      "adam  12,345 parameters · 8,000 examples · batch 50 · 10 steps",
      "adam  step 1/10 · loss 1.000 · lr 0.001 · 100 examples/s · 4.5 s left",
      "adam  step 4/10 · loss 0.5208 · lr 0.001 · 100 examples/s · 3.0 s left",
      "adam  step 5 · held-out loss 0.2500 · accuracy 87.50 %",
      "adam  step 7/10 · loss 0.3704 · lr 0.001 · 100 examples/s · 1.5 s left",
      "adam  step 10/10 · loss 0.2929 · lr 0.001 · 100 examples/s · 5.0 s",
      "",
    ]);
    expect(text()).not.toContain("\x1b");
  });

  test("a resumed run counts its own steps for the time left", () => {
    const { hooks, text } = progressOn({});
    hooks.onPlan({ ...plan, startStep: 6 });
    hooks.onStep(record(7, { seconds: 100.5, examples_per_second: 100 }));
    expect(text()).toContain("steps 7 to 10");
    expect(text()).toContain("1.5 s left");
    const done = progressOn({});
    done.hooks.onPlan({ ...plan, startStep: 10 });
    expect(done.text()).toContain("all 10 steps are done");
  });
});

test("numbers", () => {
  expect([0.123456, 1234.5, 1e-5, 123456, 0, Number.NaN].map(formatLoss)).toEqual([
    "0.1235",
    "1235",
    "1.000e-5",
    "1.235e+5",
    "0.000",
    "NaN",
  ]);
  expect([3.2, 100, 1234, 12_345, 234_567].map(formatCount)).toEqual(["3.2", "100", "1234", "12.3k", "235k"]);
  expect([0.04, 42, 187, 3723, Number.POSITIVE_INFINITY].map(formatSeconds)).toEqual([
    "0.0 s",
    "42 s",
    "3:07 min",
    "1:02:03 h",
    "?",
  ]);
});
