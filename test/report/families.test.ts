/** `fishy families`: numbers against densities written out here, the picture's coordinates, and the page in a browser. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { FamilyPicture } from "../../src/report/families.js";
import { ticks } from "../../src/report/svg.js";
import { CHROMIUM, launch, openPage, overflow } from "../support/browser.js";
import { fishy } from "../support/cli.js";
import { temporaryFolder } from "../training/support.js";

const folder = temporaryFolder();

/** exp(a·y − F*(y)), not normalised: F* of tanh is ½[(1+y)ln(1+y) + (1−y)ln(1−y)], of LeakyRelu y²/2 or y²/2α. */
const xlogx = (x: number) => (x > 0 ? x * Math.log(x) : 0);
const WEIGHTS: Record<string, (y: number, a: number) => number> = {
  tanh: (y, a) => Math.exp(a * y - (xlogx(1 + y) + xlogx(1 - y)) / 2),
  leaky_relu: (y, a) => Math.exp(a * y - (y * y) / (y < 0 ? 0.2 : 2)),
};

/** Simpson's rule. */
function integral(f: (y: number) => number, from: number, to: number, panels = 4000): number {
  const h = (to - from) / panels;
  let sum = f(from) + f(to);
  for (let i = 1; i < panels; i++) sum += (i % 2 === 0 ? 2 : 4) * f(from + i * h);
  return (sum * h) / 3;
}

async function picture(...argv: string[]): Promise<FamilyPicture[]> {
  const { code, stdout, stderr } = await fishy("families", ...argv, "--json");
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return JSON.parse(stdout).families;
}

describe("fishy families", () => {
  it("gives the densities, moments and draws of the paper's Figure 1", async () => {
    const samples = 40_000;
    const yhats = [-0.95, -0.5, 0, 0.5, 0.95];
    const figure = [`--yhat=${yhats.join(",")}`, "--samples", String(samples)];
    const families = await picture("tanh", "leaky-relu:alpha=0.1", ...figure);
    expect(families.map(({ name }) => name)).toEqual(["tanh", "leaky_relu"]);
    for (const family of families) {
      const weight = WEIGHTS[family.name] as (y: number, a: number) => number;
      const ends = family.name === "tanh" ? [-1, 1] : [-12, 14];
      for (const [i, curve] of family.curves.entries()) {
        const { a } = curve;
        expect(curve.yhat).toBeCloseTo(yhats[i] as number, 6);
        const over = (f: (y: number) => number) =>
          integral((y) => f(y) * weight(y, a), ends[0] as number, ends[1] as number);
        const z = over(() => 1);
        const mean = over((y) => y) / z;
        const variance = over((y) => (y - mean) ** 2) / z;
        expect(curve.mean).toBeCloseTo(mean, 5);
        expect(curve.variance).toBeCloseTo(variance, 5);
        expect(Math.abs(curve.graph.mean - mean)).toBeLessThan(1e-3);
        expect(Math.abs(curve.graph.variance / variance - 1)).toBeLessThan(1e-3);
        expect(Math.abs(curve.sampled.mean - mean)).toBeLessThan(5 * Math.sqrt(variance / samples));
        for (const k of [0, 90, 180, 270, 360]) {
          const y = family.grid[k] as number;
          expect(curve.density[k]).toBeCloseTo(weight(y, a) / z, 5);
        }
        // The histogram against the mass of each bin, and its sums against the distribution: samplers keep within a
        // Kolmogorov distance of 1e-3, and 2/√n is exceeded by chance once in 1,500 times.
        // The picture leaves at most 2e-3 out at either end.
        let [drawn, exact] = [0, 0];
        for (const [k, p] of curve.histogram.entries()) {
          const [from, to] = [family.edges[k] as number, family.edges[k + 1] as number];
          const mass = integral((y) => weight(y, a), from, to, 20) / z;
          const frequency = p * (to - from);
          expect(Math.abs(frequency - mass)).toBeLessThan(2e-3 + 5 * Math.sqrt(mass / samples));
          drawn += frequency;
          exact += mass;
          expect(Math.abs(drawn - exact)).toBeLessThan(2e-3 + 2 / Math.sqrt(samples));
        }
      }
    }
  });

  it("knows every family, and prints tables without a file", async () => {
    const families = await picture("--samples", "500", "--at=0,1");
    expect(families).toHaveLength(22);
    for (const { curves, support, label } of families) {
      for (const { yhat, sampled, mean, density, histogram } of curves) {
        expect([label, Math.abs(sampled.mean - mean) < 6 * sampled.meanError]).toEqual([label, true]);
        expect(density.every((p) => p >= 0)).toBe(true);
        expect(histogram.some((p) => p > 0)).toBe(true);
        expect(yhat).toBeGreaterThanOrEqual(support[0] ?? Number.NEGATIVE_INFINITY);
      }
    }
    const { stdout } = await fishy("families", "sigmoid", "--samples", "500");
    expect(stdout).toMatch(/^bernoulli on \{0, 1\}\na {2,}ŷ/);
    expect(stdout).toMatch(/-2\.0000 {2,}0\.1192 {2,}0\.1192/);
  });

  it("the same seed draws the same, another another", async () => {
    const histogramOf = async (seed: string) =>
      (await picture("relu", "--samples", "300", "--seed", seed))[0]?.curves.map((curve) => curve.histogram);
    expect(await histogramOf("1")).toEqual(await histogramOf("1"));
    expect(await histogramOf("1")).not.toEqual(await histogramOf("2"));
  });

  it.each([
    [["thanh"], /There is no family 'thanh'. Families: gaussian, .*leaky-relu/],
    [["tanh:alpha=1"], /has no parameter 'alpha'; it has none/],
    [["leaky-relu:alpha"], /NAME=NUMBER/],
    [["tanh", "--yhat=1.5"], /ŷ = 1\.5 is no value of the activation of tanh/],
    [["tanh", "--at=1,x"], /--at '1,x' must be numbers/],
    [["tanh", "--at=1", "--yhat=0"], /exclude each other/],
    [["tanh", "--samples", "1"], /at least 2/],
  ])("refuses %j", async (argv, message) => {
    const { code, stderr } = await fishy("families", ...argv);
    expect(stderr).toMatch(message);
    expect(code).toBe(/no parameter/.test(message.source) ? 1 : 2);
  });

  it("draws each density where it is: the coordinates of the picture are those of the numbers", async () => {
    const file = join(folder, "deep/figure.svg");
    await fishy("families", "tanh", "--svg", file, "--samples", "500", "--at=0,1");
    const svg = readFileSync(file, "utf8");
    const [first] = [...svg.matchAll(/<path class="curve" d="M([^"]+)"/g)].map((match) =>
      (match[1] as string).split("L"),
    );
    const points = (first as string[]).map((point) => point.split(" ").map(Number) as [number, number]);
    // Scales from the ticks that are drawn: those of y are centred under it, those of p end before the axis.
    const tick = (text: string, anchor: "middle" | "end") => {
      const [, x, y] =
        new RegExp(`<text class="label tick" x="([\\d.]+)" y="([\\d.]+)" text-anchor="${anchor}">${text}<`).exec(svg) ??
        [];
      return anchor === "middle" ? Number(x) : Number(y) - 4;
    };
    const [left, right, zero, mark] = [tick("−1", "middle"), tick("1", "middle"), tick("0", "end"), tick("0.4", "end")];
    const weight = (y: number) => (WEIGHTS.tanh as (y: number, a: number) => number)(Math.min(1, Math.max(-1, y)), 0);
    const normaliser = integral(weight, -1, 1);
    for (const k of [0, 100, 200, 360]) {
      const [px, py] = points[k] as [number, number];
      const y = -1 + (2 * (px - left)) / (right - left);
      expect(Math.abs((0.4 * (zero - py)) / (zero - mark) - weight(y) / normaliser)).toBeLessThan(0.003);
    }
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  it.each([
    [0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]],
    [-1.03, 0.98, 4, [-1, -0.5, 0, 0.5]],
    [0, 3e-5, 3, [0, 1e-5, 2e-5, 3e-5]],
    [120, 1180, 4, [200, 400, 600, 800, 1000]],
  ])("marks round numbers from %d to %d", (low, high, count, expected) => {
    expect(ticks(low, high, count)).toEqual(expected);
  });
});

describe.skipIf(!CHROMIUM)("the page of families in Chromium", () => {
  let browser: Browser;
  const file = join(folder, "families.html");
  beforeAll(async () => {
    browser = await launch();
    await fishy("families", "tanh", "leaky-relu", "sigmoid", "--html", file, "--samples", "2000");
    expect(existsSync(file)).toBe(true);
  });
  afterAll(() => browser?.close());

  it("shows pictures, and densities under the pointer", async () => {
    const { page, errors, requests } = await openPage(browser, file);
    expect(await page.locator("svg.family").count()).toBe(3);
    const curve = await page.locator("svg.family >> nth=0 >> .curve >> nth=0").boundingBox();
    expect(curve?.width).toBeGreaterThan(200);
    expect(curve?.height).toBeGreaterThan(50);
    const readout = page.locator(".readout").first();
    expect(await readout.innerText()).toBe("");
    await page.locator("svg.family").first().hover();
    const text = await readout.innerText();
    const [y, ...densities] = [...text.matchAll(/= (−?[\d.e-]+)/g)].map((match) =>
      Number((match[1] as string).replace("−", "-")),
    );
    expect(Math.abs(y as number)).toBeLessThan(0.2);
    // At a = 0 the density of tanh at its middle is 1 / Z(0).
    const normaliser = integral((at) => (WEIGHTS.tanh as (y: number, a: number) => number)(at, 0), -1, 1);
    expect(densities).toHaveLength(5);
    expect(Math.abs((densities[2] as number) - 1 / normaliser)).toBeLessThan(0.02);
    await page.mouse.move(1, 1);
    expect(await readout.innerText()).toBe("");
    expect(errors).toEqual([]);
    expect(requests).toEqual([]);
    await page.context().close();
  });

  it.each([false, true])("fits a phone, dark: %s", async (dark) => {
    const { page, errors } = await openPage(browser, file, { width: 390, dark });
    expect(await overflow(page)).toBeLessThanOrEqual(0);
    const lightness = await page.evaluate(`(() => {
      const color = getComputedStyle(document.querySelector(".curve")).stroke;
      return color.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 765;
    })()`);
    if (dark) expect(lightness).toBeGreaterThan(0.6);
    else expect(lightness).toBeLessThan(0.5);
    expect(errors).toEqual([]);
    await page.context().close();
  });

  it("the picture alone is a valid file that needs nothing", async () => {
    const svg = join(folder, "figure.svg");
    await fishy("families", "tanh", "leaky-relu", "--svg", svg, "--samples", "2000");
    const { page, errors, requests } = await openPage(browser, svg);
    expect(await page.locator(".curve").count()).toBe(10);
    expect(errors).toEqual([]);
    expect(requests).toEqual([]);
    expect(statSync(svg).size).toBeLessThan(100_000);
    await page.context().close();
  });
});
