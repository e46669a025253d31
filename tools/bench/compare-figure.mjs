/** The figure of a comparison: loss against steps and against time, as SVG for light and dark pages. */

const WIDTH = 860;
const HEIGHT = 360;
const TOP = 58;
const BOTTOM = 44;
const PANELS = [
  { left: 64, width: 360, key: "step", label: "step" },
  { left: 476, width: 360, key: "seconds", label: "seconds of training" },
];
/** After Okabe and Ito 2008, told apart by colour-blind readers; the dashes tell them apart without colour. */
const STYLES = {
  SGD: { light: "#6e6e6e", dark: "#b4b4b4", dash: "2 3" },
  Adam: { light: "#0072b2", dark: "#56b4e9", dash: "7 3" },
  Shampoo: { light: "#00795c", dark: "#2fd1a5", dash: "10 3 2 3" },
  "FIM Shampoo": { light: "#a5477f", dark: "#e79fc8", dash: "4 2" },
  Fishy: { light: "#c44e00", dark: "#ff8f4d", dash: "" },
  "FIM Shampoo = Fishy": { light: "#c44e00", dark: "#ff8f4d", dash: "" },
  "Fishy, exponent −1": { light: "#7a6a00", dark: "#f0e442", dash: "12 3" },
};

/** Powers of ten within a wide range, with their 2 and 5 times in a narrower one, and round numbers in a narrow one. */
function logTicks(low, high) {
  if (high / low < 5) return linearTicks(high).filter((tick) => tick >= low);
  const factors = high / low > 200 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(1));
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

function linearTicks(high) {
  const rough = high / 8;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  return Array.from({ length: Math.floor(high / unit) + 1 }, (_, i) => Number((i * unit).toPrecision(6)));
}

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
const at = (value) => value.toFixed(1);

/** @param comparison what tools/bench/compare.mjs writes as JSON. */
export function drawFigure({ title, lossName, results }) {
  const names = Object.keys(STYLES);
  const curves = results.map(({ method, curve }) => ({ method, curve, style: names.indexOf(method) }));
  const lowest = Math.min(...curves.flatMap(({ curve }) => curve.low));
  // What a method gains or loses at once is of less interest than where it goes: a start far above is cut off.
  const highest = Math.max(...curves.map(({ curve }) => curve.high[0]));
  const y = (loss) => {
    const share = Math.log(Math.min(loss, highest) / lowest) / Math.log(highest / lowest);
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  };
  const parts = [`<text class="ink title" x="${PANELS[0].left}" y="20">${escaped(title)}</text>`];
  let x = PANELS[0].left;
  for (const { method, style } of curves) {
    parts.push(
      `<line class="line s${style}" x1="${x}" x2="${x + 28}" y1="38" y2="38"/>`,
      `<text class="ink" x="${x + 34}" y="42">${escaped(method)}</text>`,
    );
    x += 52 + 7 * method.length;
  }
  for (const panel of PANELS) parts.push(...drawPanel(panel, curves, y, logTicks(lowest, highest), lossName));
  const rule = (style, i, shade) => `.s${i}{stroke:${style[shade]}}.b${i}{fill:${style[shade]}}`;
  const styles = Object.values(STYLES);
  const dashes = styles.map(({ dash }, i) => (dash ? `.s${i}{stroke-dasharray:${dash}}` : "")).join("");
  const light = styles.map((style, i) => rule(style, i, "light")).join("");
  const dark = styles.map((style, i) => rule(style, i, "dark")).join("");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(title)}: ${escaped(lossName)} against steps and seconds">
<style>text{font:12px system-ui,sans-serif}.title{font-size:14px;font-weight:600}.line{fill:none;stroke-width:2}.band{opacity:.16}.paper{fill:#fff}.ink{fill:#1f2328}.grid{stroke:#d8dee4}${light}${dashes}@media(prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#e6edf3}.grid{stroke:#30363d}${dark}}</style>
<rect class="paper" width="${WIDTH}" height="${HEIGHT}"/>
${parts.join("\n")}
</svg>
`;
}

function drawPanel({ left, width, key, label }, curves, y, ticks, lossName) {
  const right = left + width;
  const furthest = Math.max(...curves.map(({ curve }) => curve[key].at(-1)));
  const x = (value) => left + (width * value) / furthest;
  const parts = [];
  for (const tick of ticks) {
    parts.push(
      `<line class="grid" x1="${left}" x2="${right}" y1="${at(y(tick))}" y2="${at(y(tick))}"/>`,
      `<text class="ink" text-anchor="end" x="${left - 6}" y="${at(y(tick) + 4)}">${tick < 1e-2 ? tick.toExponential(0) : tick}</text>`,
    );
  }
  for (const tick of linearTicks(furthest)) {
    parts.push(`<text class="ink" text-anchor="middle" x="${at(x(tick))}" y="${HEIGHT - BOTTOM + 16}">${tick}</text>`);
  }
  parts.push(
    `<text class="ink" text-anchor="middle" x="${left + width / 2}" y="${HEIGHT - 8}">${label}</text>`,
    `<text class="ink" x="${left + 4}" y="${TOP - 2}">${escaped(lossName)} (log)</text>`,
  );
  for (const { curve, style } of curves) {
    const points = (values) => values.map((value, i) => `${at(x(curve[key][i]))} ${at(y(value))}`);
    const band = [...points(curve.high), ...points(curve.low).reverse()];
    parts.push(
      `<path class="band b${style}" d="M${band.join("L")}Z"/>`,
      `<path class="line s${style}" d="M${points(curve.loss).join("L")}"/>`,
    );
  }
  return parts;
}
