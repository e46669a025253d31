/** The HTML picture of a search: the objective against each searched option, and a table of the trials. */
import { escapeHtml, renderPage } from "../report/page.js";
import { costOf, type Objective } from "./objective.js";
import { type Dimension, placeOf, type SearchSpace, type Value } from "./space.js";
import type { TrialResult } from "./study.js";
import type { TuneResult } from "./tune.js";

const WIDTH = 320;
const HEIGHT = 230;
const MARGIN = { left: 58, right: 12, top: 10, bottom: 44 };
/** Objectives that span more than this, all above 0, are drawn on a logarithmic scale. */
const WIDE_SPAN = 8;

/** The page as text: one picture for each option, its dots the trials, and a table that links to their folders. */
export function renderTuning(search: SearchSpace, { results, best, objective, rungs }: TuneResult): string {
  const name = objectiveName(objective);
  const failed = results.filter((result) => result.value === null).length;
  const counts = [
    `${results.length} trials`,
    failed > 0 && `${failed} failed`,
    best && `best ${name} ${formatValue(best.value)} in trial ${best.trial}`,
  ];
  const stages =
    rungs.length > 1
      ? `<p>Successive halving at the steps ${rungs.join(", ")}; paler dots ended earlier, where their ${escapeHtml(name)} was this.</p>`
      : "";
  const panels = Object.entries(search).map(([option, dimension]) =>
    panel(option, dimension, {
      ...{ results, best, name, last: rungs.length - 1 },
      isLargerBetter: costOf(objective, 1) < 0,
    }),
  );
  return renderPage({
    title: "Search",
    styles: ["tuning.css"],
    scripts: ["tuning.js"],
    body: `<h1>Search</h1>
<p>${escapeHtml(counts.filter(Boolean).join(" · "))}</p>
${stages}<div class="panels">
${panels.join("\n")}
</div>
<p id="trial" aria-live="polite">&nbsp;</p>
<h2>Trials</h2>
<div class="table">${table(search, results, best, name)}</div>`,
  });
}

/** `held-out loss`. */
export function objectiveName({ metric, of }: Objective): string {
  const names = { reconstructionError: "squared error", top5: "top-5 accuracy" } as const;
  return `${of} ${metric in names ? names[metric as keyof typeof names] : metric}`;
}

export function formatValue(value: Value): string {
  if (typeof value === "number") return String(Number(value.toPrecision(5)));
  if (typeof value === "string") return value;
  const named = value as { name?: unknown } | null;
  return typeof named?.name === "string" ? named.name : JSON.stringify(value);
}

interface PanelParts {
  readonly results: readonly TrialResult[];
  readonly best: TrialResult | undefined;
  readonly name: string;
  readonly last: number;
  readonly isLargerBetter: boolean;
}

/** Objectives as heights. */
interface Scale {
  place(value: number): number;
  readonly ticks: readonly number[];
}

function panel(
  option: string,
  dimension: Dimension,
  { results, best, name, last, isLargerBetter }: PanelParts,
): string {
  const scale = heights(results.flatMap(({ value }) => (value === null ? [] : [value])));
  const x = (place: number) => MARGIN.left + place * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (place: number) => HEIGHT - MARGIN.bottom - place * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const grid = scale.ticks.map((tick) => {
    const at = y(scale.place(tick)).toFixed(1);
    return `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${at}" y2="${at}"/><text class="y" x="${MARGIN.left - 6}" y="${at}">${formatValue(tick)}</text>`;
  });
  const ticks = ticksOf(dimension).map(([value, text]) => {
    const at = x(placeOf(dimension, value)).toFixed(1);
    return `<text class="x" x="${at}" y="${HEIGHT - MARGIN.bottom + 16}">${escapeHtml(text)}</text>`;
  });
  const dots = [...results].reverse().map((result) => {
    const at = x(placeOf(dimension, result.values[option] as Value));
    const title = `<title>${escapeHtml(describe(result, name))}</title>`;
    if (result.value === null) {
      // On the side that is worse.
      const edge = y(isLargerBetter ? 0 : 1);
      return `<path class="failed" data-trial="${result.trial}" d="M${at - 4},${edge - 4}l8,8m0,-8l-8,8">${title}</path>`;
    }
    const kind = result.trial === best?.trial ? "best" : result.rung < last ? "early" : "dot";
    return `<circle class="${kind}" data-trial="${result.trial}" cx="${at.toFixed(1)}" cy="${y(scale.place(result.value)).toFixed(1)}" r="${kind === "best" ? 6 : 4.5}">${title}</circle>`;
  });
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(`${name} against ${option}`)}">
<g class="grid">${grid.join("")}${ticks.join("")}</g>
<text class="name" x="${(MARGIN.left + WIDTH - MARGIN.right) / 2}" y="${HEIGHT - 8}">${escapeHtml(option)}</text>
${dots.join("\n")}
</svg>`;
}

function heights(values: readonly number[]): Scale {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (values.length === 0) return { place: () => 0.5, ticks: [] };
  if (low === high) return { place: () => 0.5, ticks: [low] };
  const isWide = low > 0 && high / low > WIDE_SPAN;
  const to = isWide ? Math.log : (value: number) => value;
  // A rim above and below, so that no dot lies on the frame.
  const place = (value: number) => 0.06 + (0.84 * (to(value) - to(low))) / (to(high) - to(low));
  const ticks = isWide ? [low, Math.sqrt(low * high), high] : [low, (low + high) / 2, high];
  return { place, ticks: ticks.map((tick) => Number(tick.toPrecision(3))) };
}

/** What is written below a picture: the ends of a range and its middle, or every choice. */
function ticksOf(dimension: Dimension): [value: Value, text: string][] {
  if ("choice" in dimension) return dimension.choice.map((value) => [value, formatValue(value)]);
  const [a, b] = Object.values(dimension)[0] as [number, number];
  const isLog = "logUniform" in dimension || "oneMinusLogUniform" in dimension || "logInteger" in dimension;
  const isWhole = "integer" in dimension || "logInteger" in dimension;
  const middle = isLog ? Math.sqrt(a * b) : (a + b) / 2;
  const ends = [a, isWhole ? Math.round(middle) : middle, b];
  const values = "oneMinusLogUniform" in dimension ? ends.map((end) => Number((1 - end).toPrecision(12))) : ends;
  return values.map((value) => [value, formatValue(Number(value.toPrecision(3)))]);
}

function describe({ trial, values, value, outcome, steps, error }: TrialResult, name: string): string {
  const chosen = Object.entries(values).map(([option, chosen]) => `${option} ${formatValue(chosen)}`);
  const result = value === null ? `${outcome}: ${error ?? ""}` : `${name} ${formatValue(value)} after ${steps} steps`;
  return `Trial ${trial}: ${chosen.join(", ")} – ${result}`;
}

function table(
  search: SearchSpace,
  results: readonly TrialResult[],
  best: TrialResult | undefined,
  name: string,
): string {
  const options = Object.keys(search);
  const header = ["Trial", ...options, name, "Steps", "Seconds", "Outcome"];
  const cell = (text: string, kind = "number") => `<td class="${kind}">${escapeHtml(text)}</td>`;
  const rows = results.map((result) => {
    const cells = [
      `<td class="number"><a href="${encodeURI(result.directory.replaceAll("\\", "/"))}/">${result.trial}</a></td>`,
      ...options.map((option) => cell(formatValue(result.values[option] as Value))),
      cell(result.value === null ? "–" : formatValue(result.value)),
      cell(String(result.steps)),
      cell(result.seconds.toFixed(1)),
      cell(result.error === undefined ? result.outcome : `${result.outcome}: ${result.error}`, "text"),
    ];
    const isBest = result.trial === best?.trial;
    return `<tr data-trial="${result.trial}"${isBest ? ' class="best"' : ""}>${cells.join("")}</tr>`;
  });
  const head = header.map((text) => `<th class="${text === "Outcome" ? "text" : "number"}">${escapeHtml(text)}</th>`);
  return `<table><thead><tr>${head.join("")}</tr></thead><tbody>${rows.join("\n")}</tbody></table>`;
}
