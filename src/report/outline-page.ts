/** The HTML page of a model's sections: what is sampled, how far its gradient goes, and what each part holds and costs. */
import type { Cost, ModelOutline, OutlineBoundary, OutlinePart } from "../rewrite/outline.js";
import { escapeHtml, renderPage } from "./page.js";

/** The page as text. @param title the model, as the user names it. */
export function outlinePage(outline: ModelOutline, title: string): string {
  const { parts, total, inputs, outputs, loss } = outline;
  const sections = parts.filter(({ boundaries }) => boundaries.length > 0);
  const sizes = Object.entries(outline.sizes).map(([name, size]) => `${name} = ${size}`);
  const values = (list: ModelOutline["inputs"]) =>
    list
      .map(({ name, type }) => `<code>${escapeHtml(name)}</code> <span class="muted">${escapeHtml(type)}</span>`)
      .join(", ");
  return renderPage({
    title,
    styles: ["outline.css"],
    scripts: ["outline.js"],
    data: { from: parts.map(({ from }) => from) },
    body: `<h1>${escapeHtml(title)}</h1>
<p>${sections.length} ${sections.length === 1 ? "section" : "sections"}, ${figures(total)}${sizes.length > 0 ? `, for ${escapeHtml(sizes.join(", "))}` : ""}.
${total.isComplete ? "" : "Figures with ≥ leave out values whose shape only a run tells. "}FLOPs are of the forward pass.</p>
<p>In each section y is drawn at its boundary, and y − ŷ goes back to the section's parameters. It stops at the boundaries that the section takes
its values from: the lines on the left. Point at a section to see its own.</p>
<div id="outline">
<svg id="arcs" aria-hidden="true"></svg>
<div class="end">${values(inputs)}</div>
${parts.map((part, i) => partCard(part, i, parts)).join("\n")}
<div class="end">loss: ${escapeHtml(loss)} <span class="muted">·</span> ${values(outputs)}</div>
</div>`,
  });
}

function partCard(part: OutlinePart, index: number, parts: readonly OutlinePart[]): string {
  const isSampled = part.boundaries.length > 0;
  const before = [...part.from.map((i) => parts[i]?.name ?? ""), ...part.inputs.map((name) => `input ${name}`)];
  const share = (key: "parameters" | "activations" | "flops") => {
    const total = parts.reduce((sum, other) => sum + other[key], 0);
    return total > 0 ? part[key] / total : 0;
  };
  const bar = (name: string, key: "parameters" | "activations" | "flops") => {
    const bound = part.isComplete || key === "parameters" ? "" : "≥ ";
    return `<tr><th>${name}</th><td class="number">${bound}${formatCount(part[key])}</td><td class="share"><span style="width:${(100 * share(key)).toFixed(2)}%"></span></td><td class="number muted">${(100 * share(key)).toFixed(1)} %</td></tr>`;
  };
  const operators = part.operators.map(({ operator, count }) => (count > 1 ? `${count} ${operator}` : operator));
  const stops = before.length > 0 ? ` It stops at: ${escapeHtml(before.join(", "))}.` : "";
  return `<section class="card${isSampled ? "" : " unsampled"}" data-part="${index}" tabindex="0">
<h2>${escapeHtml(part.name)}</h2>
<table class="bars">${bar("parameters", "parameters")}${bar("activations", "activations")}${bar("FLOPs", "flops")}</table>
${operators.length > 0 ? `<p class="operators">${escapeHtml(operators.join(", "))}</p>` : ""}
${isSampled ? `<ul class="boundaries">${boundaryItems(part.boundaries)}</ul>` : ""}
<details><summary>${part.trained.length} ${part.trained.length === 1 ? "parameter" : "parameters"}${isSampled ? " receive this sampled gradient" : ""}</summary>
<p>${isSampled ? `y − ŷ, differentiated with respect to them.${stops}` : "Nothing is sampled for them."}</p>
<ul>${part.trained.map(({ name, dims }) => `<li><code>${escapeHtml(name)}</code> <span class="muted">${dims.join(" × ") || "scalar"}</span></li>`).join("")}</ul>
</details>
</section>`;
}

/** Boundaries that are written out; an unrolled recurrence has one at every step. */
const SHOWN = 6;

function boundaryItems(boundaries: readonly OutlineBoundary[]): string {
  const items = boundaries.slice(0, SHOWN).map(({ at, activation, family, note, elements }) => {
    const drawn = elements === null ? "" : ` <span class="muted">${formatCount(elements)} draws</span>`;
    return `<li><span class="family">${escapeHtml(family)}</span> at <code>${escapeHtml(at)}</code>${activation ? ` before ${escapeHtml(activation)}` : ""}${drawn}${note ? `<br><span class="muted">${escapeHtml(note)}</span>` : ""}</li>`;
  });
  const more = boundaries.length - SHOWN;
  return `${items.join("")}${more > 0 ? `<li class="muted">and ${more} more</li>` : ""}`;
}

function figures({ parameters, activations, flops, isComplete }: Cost): string {
  const bound = isComplete ? "" : "≥ ";
  return `${formatCount(parameters)} parameters, ${bound}${formatCount(activations)} activations, ${bound}${formatCount(flops)} FLOPs`;
}

/** Such as `1.23 M`. */
function formatCount(value: number): string {
  const units = ["", " k", " M", " G", " T", " P"];
  let [scaled, unit] = [value, 0];
  while (scaled >= 1000 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  return `${Number(scaled.toPrecision(3))}${units[unit]}`;
}
