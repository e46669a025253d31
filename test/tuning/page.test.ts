/** The picture of a search: what is drawn where, and the page in a real browser. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { renderTuning } from "../../src/tuning/page.js";
import type { SearchSpace } from "../../src/tuning/space.js";
import type { TrialResult } from "../../src/tuning/study.js";
import type { TuneResult } from "../../src/tuning/tune.js";
import { CHROMIUM, launch, openPage, overflow } from "../support/browser.js";
import { temporaryFolder } from "../support/temporary.js";

const search: SearchSpace = {
  "optimizer.learningRate": { logUniform: [1e-4, 1e-2] },
  optimizer: { choice: [{ name: "adam" }, { name: "fishy", rootInterval: 20 }] },
  "<b>": { integer: [1, 3] },
};

function trial(index: number, rate: number, value: number | null, more: Partial<TrialResult> = {}): TrialResult {
  return {
    ...{ trial: index, rung: 1, outcome: value === null ? "failed" : "completed", value, steps: 90, seconds: 12.34 },
    values: { "optimizer.learningRate": rate, optimizer: { name: index % 2 ? "fishy" : "adam" }, "<b>": 2 },
    directory: `trials/000${index}`,
    ...(value === null && { error: "The loss is NaN at step <3>." }),
    ...more,
  };
}

const results = [
  trial(2, 1e-3, 0.5),
  trial(0, 1e-4, 0.75),
  trial(3, 1e-2, 1, { rung: 0, steps: 30, outcome: "paused" }),
  trial(1, 3e-3, null),
];
const result: TuneResult = {
  outcome: "completed",
  objective: { metric: "loss", of: "held-out" },
  rungs: [30, 90],
  results,
  best: results[0] as TrialResult,
};
const html = renderTuning(search, result);

describe("the page of a search", () => {
  it("puts dots where values and objectives lie", () => {
    const panels = html.split("<svg ").slice(1);
    expect(panels).toHaveLength(3);
    const marks = [
      ...(panels[0] as string).matchAll(/<circle class="(\w+)" data-trial="(\d)" cx="([\d.]+)" cy="([\d.]+)"/g),
    ];
    const at = new Map(marks.map(([, kind, index, x, y]) => [Number(index), { kind, x: Number(x), y: Number(y) }]));
    expect([...at].map(([index, { kind }]) => [index, kind])).toEqual([
      [3, "early"],
      [0, "dot"],
      [2, "best"],
    ]);
    const [left, middle, right] = [at.get(0), at.get(2), at.get(3)] as { x: number; y: number }[];
    // 1e-3 lies midway between 1e-4 and 1e-2, and 0.75 between 0.5 and 1; downwards is better.
    expect(middle?.x).toBeCloseTo(((left?.x as number) + (right?.x as number)) / 2, 0);
    expect(left?.y).toBeCloseTo(((middle?.y as number) + (right?.y as number)) / 2, 0);
    expect(middle?.y).toBeGreaterThan(right?.y as number);
    expect(panels[0]?.match(/<path class="failed"/g)).toHaveLength(1);
  });

  it("escapes names and messages, and fetches nothing", () => {
    expect(html).not.toContain("<b>");
    expect(html).toContain("The loss is NaN at step &lt;3&gt;.");
    expect(html).not.toMatch(/<(script|link|img|iframe)[^>]*(src|href)=(?!"data:)/i);
    expect(html).toMatch(/4 trials · 1 failed · best held-out loss 0\.5 in trial 2/);
  });

  it("is drawn without a trial that came to its end", () => {
    const { best: _, ...none } = result;
    const page = renderTuning(search, { ...none, results: results.slice(3) });
    expect(page).not.toContain("NaN,");
    expect(page).not.toMatch(/"(NaN|Infinity|undefined)/);
  });

  it.skipIf(!CHROMIUM).each([
    [1200, false],
    [390, true],
  ])("in Chromium, %i pixels wide, dark: %s, marks a trial everywhere", async (width, dark) => {
    const file = join(temporaryFolder(), "search.html");
    writeFileSync(file, html);
    const browser = await launch();
    try {
      const { page, errors, requests } = await openPage(browser, file, { width, dark });
      expect(await overflow(page)).toBeLessThanOrEqual(0);
      await page.locator('circle[data-trial="0"]').first().hover();
      expect(await page.locator(".near").count()).toBe(4);
      expect(await page.locator("#trial").innerText()).toMatch(/Trial 0: .*learningRate 0\.0001.* held-out loss 0\.75/);
      const colours = await page.evaluate(
        "[getComputedStyle(document.querySelector('circle.best')).fill, getComputedStyle(document.body).backgroundColor]",
      );
      expect(colours).toEqual(
        dark ? ["rgb(255, 138, 76)", "rgb(20, 23, 26)"] : ["rgb(213, 94, 0)", "rgb(255, 255, 255)"],
      );
      expect(errors).toEqual([]);
      expect(requests).toEqual([]);
    } finally {
      await browser.close();
    }
  });
});
