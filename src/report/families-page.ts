/** The HTML page of families: their pictures, with values under the pointer, and tables of their moments. */
import type { FamilyCurve, FamilyPicture } from "./families.js";
import { familyPanel, figureStyle, PANEL, panelScale } from "./families-figure.js";
import { escapeHtml, renderPage } from "./page.js";
import { formatTick } from "./svg.js";

/** The page as text. */
export function familiesPage(pictures: readonly FamilyPicture[], samples: number): string {
  const most = Math.max(...pictures.map((picture) => picture.curves.length));
  const sections = pictures.map(
    (picture, i) => `<section>
<h2>${escapeHtml(picture.label)}</h2>
<div class="figure" data-family="${i}">
${familyPanel(picture)}
<p class="readout" aria-live="polite"></p>
</div>
<div class="table">${momentsTable(picture)}</div>
</section>`,
  );
  return renderPage({
    title: "Families",
    styles: ["families.css"],
    scripts: ["families.js"],
    data: {
      panel: PANEL,
      families: pictures.map(({ grid, isDiscrete, curves, ...picture }) => ({
        ...{
          grid: grid.map((y) => Number(y.toPrecision(6))),
          isDiscrete,
          scale: panelScale({ grid, isDiscrete, curves, ...picture }),
        },
        curves: curves.map(({ yhat, density }) => ({ yhat, density: density.map((p) => Number(p.toPrecision(5))) })),
      })),
    },
    body: `<style>${figureStyle(most)}</style>
<h1>Families</h1>
<p>The density p(y|ŷ) of each family at several ŷ (curves), ${samples.toLocaleString("en")} draws of its ONNX sampler at each (shaded), the mode ŷ
(dotted) and the mean E[y] (triangles).</p>
<div class="families">
${sections.join("\n")}
</div>`,
  });
}

function momentsTable({ curves }: FamilyPicture): string {
  const columns: readonly (readonly [string, (curve: FamilyCurve) => number])[] = [
    ["a", ({ a }) => a],
    ["ŷ", ({ yhat }) => yhat],
    ["E[y]", ({ mean }) => mean],
    ["drawn", ({ sampled }) => sampled.mean],
    ["sd", ({ variance }) => Math.sqrt(variance)],
    ["drawn", ({ sampled }) => Math.sqrt(sampled.variance)],
  ];
  const cells = (tag: string, texts: readonly string[]) =>
    texts.map((text) => `<${tag} class="number">${text}</${tag}>`).join("");
  const header = cells(
    "th",
    columns.map(([name]) => name),
  );
  const rows = curves.map(
    (curve) =>
      `<tr>${cells(
        "td",
        columns.map(([, value]) => formatTick(Number(value(curve).toFixed(4)))),
      )}</tr>`,
  );
  return `<table><thead><tr>${header}</tr></thead><tbody>${rows.join("")}</tbody></table>`;
}
