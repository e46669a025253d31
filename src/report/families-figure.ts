/** The picture of families: densities p(y|ŷ) as curves, draws as histograms. With tanh and LeakyRelu, Figure 1 of the paper. */
import type { FamilyCurve, FamilyPicture } from "./families.js";
import { escapeHtml } from "./page.js";
import { coordinate, formatTick, ticks } from "./svg.js";

/** A panel in pixels, and what its axes leave of it. */
export const PANEL = { width: 460, height: 330, left: 46, right: 12, top: 34, bottom: 62 };
const INNER = { width: PANEL.width - PANEL.left - PANEL.right, height: PANEL.height - PANEL.top - PANEL.bottom };
const GAP = 16;

/** A whole SVG file of one panel for each family, two in a row. */
export function familiesFigure(pictures: readonly FamilyPicture[]): string {
  const columns = Math.min(2, pictures.length);
  const rows = Math.ceil(pictures.length / columns);
  const width = columns * PANEL.width + (columns - 1) * GAP;
  const height = rows * PANEL.height + (rows - 1) * GAP;
  const panels = pictures.map((picture, i) => {
    const x = (i % columns) * (PANEL.width + GAP);
    const y = Math.floor(i / columns) * (PANEL.height + GAP);
    return `<g transform="translate(${x} ${y})">${panelContent(picture)}</g>`;
  });
  const most = Math.max(...pictures.map((picture) => picture.curves.length));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>Densities p(y|ŷ) of ${escapeHtml(pictures.map((picture) => picture.label).join(", "))}</title>
<style>${figureStyle(most)}</style>
<rect class="paper" width="${width}" height="${height}"/>
${panels.join("\n")}
</svg>
`;
}

/** One family as an SVG element of a page, whose style is `figureStyle`. */
export function familyPanel(picture: FamilyPicture): string {
  return `<svg class="family" viewBox="0 0 ${PANEL.width} ${PANEL.height}" role="img"><title>Densities p(y|ŷ) of ${escapeHtml(picture.label)}</title>${panelContent(picture)}</svg>`;
}

/** Colours of up to `count` curves, from blue to red, for light and dark. */
export function figureStyle(count: number): string {
  const hue = (i: number) => Math.round(215 + (165 * i) / Math.max(1, count - 1)) % 360;
  const curves = (lightness: number) =>
    Array.from({ length: count }, (_, i) => `.c${i}{color:hsl(${hue(i)} 65% ${lightness}%)}`).join("");
  return `
.paper{fill:#fff}.axis{stroke:#5f6b76;fill:none}.grid{stroke:#e8ebee;fill:none}.label{fill:#5f6b76}.title{fill:#1c2024}
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}.title{font-size:14px;font-weight:600}.tick{font-size:11px}
.curve{fill:none;stroke:currentColor;stroke-width:1.8;stroke-linejoin:round}.bars{fill:currentColor;opacity:.16}.mode{stroke:currentColor;stroke-dasharray:1 4;stroke-width:1.4;stroke-linecap:round}.mean{fill:currentColor}.stick{stroke:currentColor;stroke-width:2}.key{fill:currentColor}
${curves(42)}
@media (prefers-color-scheme:dark){.paper{fill:#14171a}.axis{stroke:#a0a9b2}.grid{stroke:#282d32}.label{fill:#a0a9b2}.title{fill:#e8eaed}.bars{opacity:.22}${curves(68)}}
`;
}

/** Data coordinates of a panel: y along, p up. */
export interface PanelScale {
  readonly from: number;
  readonly to: number;
  readonly top: number;
}

export function panelScale({ grid, curves, isDiscrete }: FamilyPicture): PanelScale {
  const [first, last] = [grid[0] as number, grid[grid.length - 1] as number];
  const margin = isDiscrete ? 0.5 * (last - first) : 0;
  const most = Math.max(...curves.flatMap(({ density }) => density));
  return { from: first - margin, to: last + margin, top: isDiscrete ? 1 : 1.06 * most };
}

function panelContent(picture: FamilyPicture): string {
  const scale = panelScale(picture);
  const x = (y: number) => PANEL.left + (INNER.width * (y - scale.from)) / (scale.to - scale.from);
  const up = (p: number) => PANEL.top + INNER.height * (1 - Math.min(p, scale.top) / scale.top);
  const bottom = PANEL.top + INNER.height;
  const horizontal = (picture.isDiscrete ? [...picture.grid] : ticks(scale.from, scale.to, 6)).map(
    (value) =>
      `<path class="axis" d="M${coordinate(x(value))} ${bottom}v4"/><text class="label tick" x="${coordinate(x(value))}" y="${bottom + 19}" text-anchor="middle">${formatTick(value)}</text>`,
  );
  const vertical = ticks(0, scale.top, 4).map(
    (value) =>
      `<path class="grid" d="M${PANEL.left} ${coordinate(up(value))}h${INNER.width}"/><text class="label tick" x="${PANEL.left - 7}" y="${coordinate(up(value) + 4)}" text-anchor="end">${formatTick(value)}</text>`,
  );
  const curves = picture.curves.map((curve, i) =>
    picture.isDiscrete ? sticks(picture, curve, i, x, up, bottom) : density(picture, curve, i, x, up, bottom),
  );
  const axisName = picture.isDiscrete ? "P(y|ŷ)" : "p(y|ŷ)";
  return [
    `<text class="title" x="${PANEL.left}" y="16">${escapeHtml(picture.label)}</text>`,
    `<text class="label" x="2" y="24">${axisName}</text>`,
    `<text class="label" x="${PANEL.width - PANEL.right}" y="${bottom + 30}" text-anchor="end">y</text>`,
    ...vertical,
    ...curves,
    `<path class="axis" d="M${PANEL.left} ${bottom}h${INNER.width}"/>`,
    ...horizontal,
    legend(picture.curves, bottom),
  ].join("");
}

type Scale = (value: number) => number;

function density(picture: FamilyPicture, curve: FamilyCurve, i: number, x: Scale, up: Scale, bottom: number): string {
  const { grid, edges } = picture;
  const line = grid.map((y, k) => `${coordinate(x(y))} ${coordinate(up(curve.density[k] as number))}`).join("L");
  const bars = curve.histogram.map((p, k) => `V${coordinate(up(p))}H${coordinate(x(edges[k + 1] as number))}`).join("");
  const start = coordinate(x(edges[0] as number));
  const isShown = (y: number) => y >= (grid[0] as number) && y <= (grid[grid.length - 1] as number);
  const at = (y: number) => coordinate(x(y));
  return [
    `<g class="c${i}">`,
    `<path class="bars" d="M${start} ${bottom}${bars}V${bottom}Z"/>`,
    `<path class="curve" d="M${line}"/>`,
    isShown(curve.yhat) ? `<path class="mode" d="M${at(curve.yhat)} ${bottom}V${PANEL.top}"/>` : "",
    isShown(curve.mean) ? `<path class="mean" d="M${at(curve.mean)} ${bottom}l-4 6h8z"/>` : "",
    "</g>",
  ].join("");
}

/** Side by side at each point: the frequency as a bar, the probability as a line across its top. */
function sticks(picture: FamilyPicture, curve: FamilyCurve, i: number, x: Scale, up: Scale, bottom: number): string {
  const [first, second] = picture.grid as [number, number];
  const room = (0.8 * (x(second) - x(first))) / picture.curves.length;
  const bars = picture.grid.map((y, k) => {
    const left = x(y) + room * (i - picture.curves.length / 2);
    const [p, frequency] = [curve.density[k] as number, curve.histogram[k] as number];
    const [from, width] = [coordinate(left + 0.1 * room), coordinate(0.8 * room)];
    return `<path class="bars" d="M${from} ${bottom}V${coordinate(up(frequency))}h${width}V${bottom}Z"/><path class="stick" d="M${from} ${coordinate(up(p))}h${width}"/>`;
  });
  return `<g class="c${i}">${bars.join("")}</g>`;
}

function legend(curves: readonly FamilyCurve[], bottom: number): string {
  const width = (PANEL.width - PANEL.left) / Math.max(curves.length, 5);
  return curves
    .map(({ yhat }, i) => {
      const x = coordinate(PANEL.left + i * width);
      return `<g class="c${i}"><rect class="key" x="${x}" y="${bottom + 40}" width="14" height="4" rx="2"/></g><text class="label tick" x="${coordinate(Number(x) + 18)}" y="${bottom + 46}">ŷ = ${formatTick(Number(yhat.toPrecision(3)))}</text>`;
    })
    .join("");
}
