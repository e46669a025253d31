/** Pages in a real browser: Debian's Chromium (or Chrome), driven by playwright-core. */
import { existsSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";

/** The browser on this machine; undefined where there is none, and tests that need one are skipped. */
export const CHROMIUM: string | undefined = [
  process.env.CHROMIUM_PATH ?? "",
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
].find((path) => path !== "" && existsSync(path));

export interface PageOptions {
  readonly width?: number;
  readonly dark?: boolean;
}

export interface OpenPage {
  readonly page: Page;
  /** Errors of the page and of its console. */
  readonly errors: readonly string[];
  /** What the page asked for beside itself. */
  readonly requests: readonly string[];
}

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM as string, args: ["--no-sandbox", "--disable-gpu"] });
}

/** Opens a file and notes what goes wrong. */
export async function openPage(browser: Browser, file: string, options: PageOptions = {}): Promise<OpenPage> {
  const context = await browser.newContext({
    viewport: { width: options.width ?? 1200, height: 900 },
    colorScheme: options.dark ? "dark" : "light",
  });
  const page = await context.newPage();
  const url = pathToFileURL(file).href;
  const errors: string[] = [];
  const requests: string[] = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") errors.push(message.text());
  });
  page.on("request", (request) => {
    if (request.url() !== url && !request.url().startsWith("data:")) requests.push(request.url());
  });
  await page.goto(url);
  return { page, errors, requests };
}

/** By how many pixels the page is wider than its window. */
export function overflow(page: Page): Promise<number> {
  return page.evaluate("document.documentElement.scrollWidth - window.innerWidth") as Promise<number>;
}

/** How many pixels of a canvas have some ink, of the hue of `color` if given as r,g,b. */
export function ink(page: Page, selector: string): Promise<number> {
  return page.locator(selector).evaluate((canvas: unknown) => {
    const { width, height, getContext } = canvas as {
      width: number;
      height: number;
      getContext(kind: string): { getImageData(x: number, y: number, w: number, h: number): { data: Uint8Array } };
    };
    const { data } = getContext.call(canvas, "2d").getImageData(0, 0, width, height);
    let count = 0;
    for (let i = 3; i < data.length; i += 4) if ((data[i] as number) > 0) count++;
    return count;
  });
}
