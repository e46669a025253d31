/** The HTML page of one or several runs: everything inline, nothing fetched. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { writeFileAtomically } from "../training/checkpoint.js";
import { collectRuns, type ReportData, type RunReference } from "./collect.js";

/**
 * Writes a page with the loss curves, learning rates, figures and options of runs.
 * @throws FishyError when a folder holds no run.
 */
export function writeReport(runs: readonly RunReference[], file: string): void {
  writeFileAtomically(file, renderReport(collectRuns(runs)));
}

/** The page as text. */
export function renderReport(data: ReportData): string {
  const { resolve } = createRequire(import.meta.url);
  const asset = (name: string) => readFileSync(new URL(`./assets/${name}`, import.meta.url), "utf8");
  const title = escapeHtml(data.runs.map((run) => run.name).join(" · "));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>${title} – fishy</title>
<link rel="icon" href="data:,">
<style>${readFileSync(resolve("uplot/dist/uPlot.min.css"), "utf8")}</style>
<style>${asset("page.css")}</style>
</head>
<body>
<h1>Training runs</h1>
<p>${title}</p>
<div id="summary" class="table"></div>

<h2>Loss</h2>
<div class="controls">
<fieldset>
<legend>Horizontal axis</legend>
<label><input type="radio" name="axis" value="step" checked><span>Steps</span></label>
<label><input type="radio" name="axis" value="examples"><span>Examples</span></label>
<label><input type="radio" name="axis" value="seconds"><span>Time</span></label>
</fieldset>
<label class="inline"><input type="checkbox" id="log"> Logarithmic</label>
<label class="inline">Smoothing <input type="range" id="smoothing" min="0" max="0.99" step="0.01" value="0"></label>
</div>
<div id="loss" class="chart"></div>

<section id="accuracy-section">
<h2>Held-out accuracy</h2>
<div id="accuracy" class="chart"></div>
</section>

<section id="metrics"></section>

<h2>Learning rate</h2>
<div id="rate" class="chart"></div>

<section id="differing-section">
<h2>Options that differ</h2>
<div id="differing" class="table"></div>
</section>

<details id="diagnostics">
<summary>Diagnostics of the optimizers</summary>
<div></div>
</details>

<details id="own-section">
<summary>Options that one run alone has</summary>
<div id="own" class="table"></div>
</details>

<details id="same-section">
<summary>Options that are the same</summary>
<div id="same" class="table"></div>
</details>

<script type="application/json" id="data">${JSON.stringify(data).replaceAll("<", "\\u003c")}</script>
<script>${readFileSync(resolve("uplot/dist/uPlot.iife.min.js"), "utf8")}</script>
<script>${asset("page.js")}</script>
</body>
</html>
`;
}

function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
