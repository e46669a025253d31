/** `fishy inspect --html`: the page of sections, in a real browser. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM, launch, openPage, overflow } from "../support/browser.js";
import { fishy } from "../support/cli.js";
import { GRAPHS } from "../support/shared.js";
import { temporaryFolder } from "../training/support.js";

const folder = temporaryFolder();
const file = join(folder, "sections.html");
const MODEL = join(GRAPHS, "pytorch/resnet_small/model.onnx");
const LOSS = ["--loss", "softmax-cross-entropy"];

describe("fishy inspect --html", () => {
  it("writes the page, and its figures as JSON", async () => {
    const { code, stdout, stderr } = await fishy(
      "inspect",
      MODEL,
      ...LOSS,
      "--html",
      file,
      "--size",
      "batch=4",
      "--json",
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const outline = JSON.parse(stdout);
    expect(outline).toMatchObject({ sizes: { batch: 4 }, total: { parameters: 5266, isComplete: true } });
    const html = readFileSync(file, "utf8");
    expect(html).not.toMatch(/<(script|link|img|iframe)[^>]*(src|href)=(?!"data:)/i);
    for (const { name } of outline.parts) expect(html).toContain(`<h2>${name}</h2>`);
  });

  it.each([
    [["--size", "batch=x"], 2, /--size 'batch=x' must be NAME=N/],
    [["--size", "length=3"], 2, /No input has a dimension 'length'/],
    [["--sections", "nowhere"], 1, /No layer is named 'nowhere'/],
  ])("refuses %j", async (flags, exit, message) => {
    const { code, stderr } = await fishy("inspect", MODEL, ...LOSS, "--html", file, ...flags);
    expect(stderr).toMatch(message);
    expect(code).toBe(exit);
  });

  it("needs the loss, from which the output's family follows", async () => {
    const { code, stderr } = await fishy("inspect", MODEL, "--html", file);
    expect(code).toBe(1);
    expect(stderr).toMatch(/--loss/);
  });
});

describe.skipIf(!CHROMIUM)("the page in Chromium", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launch();
    await fishy("inspect", MODEL, ...LOSS, "--html", file);
  });
  afterAll(() => browser?.close());

  it("marks the sections before and behind the one under the pointer", async () => {
    const { page, errors, requests } = await openPage(browser, file);
    const names = (kind: string) => page.locator(`.card.${kind} h2`).allInnerTexts();
    await page.locator(".card", { hasText: "l.0.c2" }).first().hover();
    expect(await names("on")).toEqual(["l.0.c2"]);
    // Its residual sum takes the stem's output beside that of the layer before.
    expect(await names("before")).toEqual(["stem.0", "l.0.c1"]);
    expect(await names("after")).toEqual(["l.1.c1", "l.1.d.0"]);
    expect(await page.locator("#arcs path.on").count()).toBe(4);
    await page.locator("h1").hover();
    expect(await names("on")).toEqual([]);
    // With the keyboard too.
    await page.locator(".card").last().focus();
    expect(await page.locator(".card.on").count()).toBe(1);
    expect(errors).toEqual([]);
    expect(requests).toEqual([]);
    await page.context().close();
  });

  it("draws its lines from card to card, also after one is opened", async () => {
    const { page } = await openPage(browser, file);
    const ends = () =>
      page.evaluate(`(() => {
        const box = document.getElementById("outline").getBoundingClientRect();
        const cards = [...document.querySelectorAll(".card")].map((card) => card.getBoundingClientRect());
        const [, start, end] = /^M\\S+ (\\S+)C.* (\\S+)$/.exec(document.querySelector("#arcs path").getAttribute("d"));
        return [cards[0].bottom - box.top - Number(start), Number(end) - (cards[1].top - box.top)];
      })()`) as Promise<[number, number]>;
    expect((await ends()).map(Math.round)).toEqual([14, 18]);
    await page.locator(".card summary").first().click();
    await expect.poll(async () => (await ends()).map(Math.round)).toEqual([14, 18]);
    expect(await page.locator(".card").first().locator("li code", { hasText: "stem.0.weight" }).isVisible()).toBe(true);
    await page.context().close();
  });

  it.each([false, true])("fits a phone, dark: %s", async (dark) => {
    const { page, errors } = await openPage(browser, file, { width: 390, dark });
    for (const summary of await page.locator(".card summary").all()) await summary.click();
    expect(await overflow(page)).toBeLessThanOrEqual(0);
    expect(errors).toEqual([]);
    await page.context().close();
  });
});
