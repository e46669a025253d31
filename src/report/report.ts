/** The HTML page of one or several runs: everything inline, nothing fetched. */
import { collectRuns, type NamedRun, type ReportData, type RunReference } from "./collect.js";
import { escapeHtml, renderPage, writePage } from "./page.js";
import { readSections } from "./sections.js";

/**
 * Writes a page with the loss curves, learning rates, figures and options of runs.
 * @returns what the page shows
 * @throws FishyError when a folder holds no run.
 */
export async function writeReport(runs: readonly RunReference[], file: string): Promise<ReportData> {
  const data = collectRuns(await Promise.all(runs.map(withSections)));
  writePage(file, renderReport(data));
  return data;
}

async function withSections(run: RunReference): Promise<NamedRun> {
  const named = typeof run === "string" ? { directory: run } : run;
  return { ...named, sections: named.sections ?? (await readSections(named.directory)) };
}

export interface RenderOptions {
  /** Scripts of `assets/` that follow the report's own; `report.show(data)` puts newer figures on the page. */
  readonly scripts?: readonly string[];
  /** Where they may fetch from, as a source of Content-Security-Policy. */
  readonly connect?: string;
}

/** The page as text. */
export function renderReport(data: ReportData, { scripts = [], connect }: RenderOptions = {}): string {
  const title = data.runs.map((run) => run.name).join(" · ");
  return renderPage({
    title,
    data,
    charts: true,
    scripts: ["common.js", "report.js", ...scripts],
    ...(connect !== undefined && { connect }),
    body: `<h1>Training runs</h1>
<p>${escapeHtml(title)}</p>
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

<details id="sections">
<summary>Diagnostics by section</summary>
<div class="controls"><fieldset id="section-run"></fieldset></div>
<div class="body"></div>
</details>

<details id="diagnostics">
<summary>Diagnostics of the optimizers</summary>
<div class="body"></div>
</details>

<details id="own-section">
<summary>Options that one run alone has</summary>
<div id="own" class="table"></div>
</details>

<details id="same-section">
<summary>Options that are the same</summary>
<div id="same" class="table"></div>
</details>`,
  });
}
