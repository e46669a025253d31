/**
 * The README's picture: the loss curves of the demo's report, in Debian's Chromium.
 *
 *     npm run demo && node tools/screenshot.mjs [PAGE] [PNG]
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const root = join(import.meta.dirname, "..");
const [page = join(root, "runs/demo/report.html"), png = join(root, "docs/report.png")] = process.argv.slice(2);
const executablePath = [process.env.CHROMIUM_PATH ?? "", "/usr/bin/chromium", "/usr/bin/google-chrome"].find(
  (path) => path !== "" && existsSync(path),
);
if (!executablePath) throw new Error("No browser was found: install Chromium, or name it in CHROMIUM_PATH.");

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const tab = await browser.newPage({ viewport: { width: 1000, height: 800 }, deviceScaleFactor: 1.5 });
  await tab.goto(pathToFileURL(page).href);
  await tab.locator("#loss canvas").waitFor();
  const top = await tab.locator("h2", { hasText: "Loss" }).boundingBox();
  const { y, height } = await tab.locator("#loss").boundingBox();
  const clip = { x: 0, y: Math.floor(top.y - 8), width: 1000, height: Math.ceil(y + height - top.y + 16) };
  await tab.screenshot({ path: png, clip });
} finally {
  await browser.close();
}
console.log(`Wrote ${png}`);
