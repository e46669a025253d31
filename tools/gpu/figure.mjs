/** The figure of a machine's results: step times beside PyTorch's, and the share of a step that moves tensors. */

const [WIDTH, HEIGHT, TOP, BOTTOM] = [860, 360, 84, 44];
const BARS = { left: 56, width: 440 };
const LINES = { left: 560, width: 280 };
const TITLES = { autoencoder: "(a) autoencoder", vgg16: "(b) VGG16", transformer: "(c) transformer", mlp: "(d) MLP" };
/** After Okabe and Ito 2008. */
const METHODS = {
  "adam PyTorch": { text: "Adam, PyTorch", light: "#9a9a9a", dark: "#8a8a8a" },
  "compile-adam PyTorch": { text: "Adam, torch.compile", light: "#5e5e5e", dark: "#c4c4c4" },
  adam: { text: "Adam", light: "#0072b2", dark: "#56b4e9" },
  shampoo: { text: "Shampoo", light: "#00795c", dark: "#2fd1a5" },
  "fim-shampoo": { text: "FIM Shampoo", light: "#a5477f", dark: "#e79fc8" },
  fishy: { text: "Fishy", light: "#c44e00", dark: "#ff8f4d" },
};
const DASHES = ["", "7 3", "2 3", "10 3 2 3"];
const at = (value) => value.toFixed(1);
const classOf = (method) => `m${Object.keys(METHODS).indexOf(method)}`;

/** @param results what run.mjs writes as results.json. @returns SVG, or undefined when no steps were measured. */
export function drawFigure({ device, machine, steps = [], pytorch = [] }) {
  const measured = steps.filter(({ contestants }) => contestants);
  const works = Object.keys(TITLES).filter((work) => measured.some((one) => one.work === work && METHODS[one.mode]));
  if (works.length === 0) return undefined;
  const timeOf = (work, method) =>
    method.endsWith(" PyTorch")
      ? pytorch.find((one) => one.work === work && `${one.mode} PyTorch` === method)?.milliseconds
      : measured.find((one) => one.work === work && one.mode === method)?.contestants[0].milliseconds;
  const parts = [
    `<text class="ink title" x="${BARS.left}" y="20">A step on ${escaped(device)}, ${escaped(machine.gpu ?? machine.cpu)}</text>`,
    ...legend(Object.keys(METHODS).filter((method) => works.some((work) => timeOf(work, method) !== undefined))),
    ...bars(works, timeOf),
    ...lines(
      measured.filter(({ work, mode }) => works.includes(work) && (mode === "adam" || mode === "fishy")),
      works,
    ),
  ];
  const rules = (tone) =>
    Object.entries(METHODS)
      .map(([method, colours]) => `.${classOf(method)}{fill:${colours[tone]};stroke:${colours[tone]}}`)
      .join("");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Step times and the share of moving tensors">
<style>text{font:12px system-ui,sans-serif}.title{font-size:14px;font-weight:600}.small{font-size:11px}.line{stroke-width:2}.axis{stroke:#8c959f}.paper{fill:#fff}.ink{fill:#1f2328}${rules("light")}@media(prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#e6edf3}${rules("dark")}}</style>
<rect class="paper" width="${WIDTH}" height="${HEIGHT}"/>
${parts.join("\n")}
</svg>
`;
}

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

function legend(methods) {
  let x = BARS.left;
  return methods.map((method) => {
    const { text } = METHODS[method];
    const entry = `<rect class="${classOf(method)}" x="${x}" y="34" width="10" height="10"/><text class="ink small" x="${x + 15}" y="43">${text}</text>`;
    x += 31 + 6.2 * text.length;
    return entry;
  });
}

/** Times relative to PyTorch's step of Adam, or to fishy's where PyTorch was not measured. */
function bars(works, timeOf) {
  const baseOf = (work) => timeOf(work, "adam PyTorch") ?? timeOf(work, "adam");
  const base = works.every((work) => timeOf(work, "adam PyTorch")) ? "PyTorch's step of Adam" : "a step of Adam";
  const methods = Object.keys(METHODS);
  const highest = Math.max(
    ...works.flatMap((work) => methods.map((method) => (timeOf(work, method) ?? 0) / baseOf(work))),
  );
  const y = (value) => HEIGHT - BOTTOM - (value / highest) * (HEIGHT - TOP - BOTTOM);
  const unit = [0.25, 0.5, 1, 2, 5, 10].find((step) => highest / step <= 8) ?? 20;
  const parts = [`<text class="ink small" x="${BARS.left}" y="68">time, ${base} being 1</text>`];
  for (let tick = 0; tick <= highest; tick += unit) {
    parts.push(
      `<line class="axis" x1="${BARS.left - 4}" x2="${BARS.left + (tick === 0 || tick === 1 ? BARS.width : 0)}" y1="${at(y(tick))}" y2="${at(y(tick))}"/>`,
      `<text class="ink small" text-anchor="end" x="${BARS.left - 8}" y="${at(y(tick) + 4)}">${tick}</text>`,
    );
  }
  const group = BARS.width / works.length;
  const width = (group - 16) / methods.length;
  for (const [i, work] of works.entries()) {
    const left = BARS.left + i * group + 8;
    for (const [k, method] of methods.entries()) {
      const time = timeOf(work, method);
      if (time === undefined) continue;
      const top = y(time / baseOf(work));
      const x = left + k * width;
      parts.push(
        `<rect class="${classOf(method)}" x="${at(x + 1)}" y="${at(top)}" width="${at(width - 2)}" height="${at(HEIGHT - BOTTOM - top)}"><title>${METHODS[method].text}: ${time.toPrecision(3)} ms</title></rect>`,
        `<text class="ink small" text-anchor="middle" x="${at(x + width / 2)}" y="${at(top - 4)}">${(time / baseOf(work)).toFixed(1)}</text>`,
      );
    }
    parts.push(
      `<text class="ink" text-anchor="middle" x="${at(left + (group - 16) / 2)}" y="${HEIGHT - BOTTOM + 18}">${TITLES[work]}</text>`,
    );
  }
  return parts;
}

/** The share of moving tensors at K steps a run. */
function lines(measured, works) {
  const points = measured.flatMap(({ contestants }) => contestants.filter(({ share }) => share !== undefined));
  if (points.length === 0) return [];
  const counts = [...new Set(points.map(({ stepsPerRun }) => stepsPerRun))].sort((a, b) => a - b);
  const highest = Math.max(0.05, ...points.map(({ share }) => share));
  const x = (count) => LINES.left + (Math.log2(count) / Math.max(1, Math.log2(counts.at(-1)))) * LINES.width;
  const y = (share) => HEIGHT - BOTTOM - (share / highest) * (HEIGHT - TOP - BOTTOM);
  const unit = [0.01, 0.02, 0.05, 0.1, 0.2].find((step) => highest / step <= 8) ?? 0.2;
  const parts = [
    `<text class="ink small" x="${LINES.left}" y="68">share of a step that moves tensors, K steps a run</text>`,
    `<line class="axis" x1="${LINES.left}" x2="${LINES.left + LINES.width}" y1="${at(y(0))}" y2="${at(y(0))}"/>`,
  ];
  for (let tick = 0; tick <= highest + 1e-9; tick += unit) {
    parts.push(
      `<text class="ink small" text-anchor="end" x="${LINES.left - 8}" y="${at(y(tick) + 4)}">${Math.round(100 * tick)} %</text>`,
    );
  }
  for (const count of counts) {
    parts.push(
      `<text class="ink small" text-anchor="middle" x="${at(x(count))}" y="${HEIGHT - BOTTOM + 18}">${count}</text>`,
    );
  }
  for (const { work, mode, contestants } of measured) {
    const shown = contestants.filter(({ share }) => share !== undefined);
    const path = shown.map(({ stepsPerRun, share }, i) => `${i ? "L" : "M"}${at(x(stepsPerRun))} ${at(y(share))}`);
    const dash = DASHES[works.indexOf(work)];
    parts.push(
      `<path class="line ${classOf(mode)}" style="fill:none" stroke-dasharray="${dash}" d="${path.join("")}"><title>${METHODS[mode].text}, ${TITLES[work]}</title></path>`,
    );
  }
  for (const [i, work] of works.entries()) {
    const top = TOP + 8 + 16 * i;
    const left = LINES.left + LINES.width - 130;
    parts.push(
      `<line class="axis" stroke-dasharray="${DASHES[i]}" x1="${left}" x2="${left + 28}" y1="${top}" y2="${top}"/>`,
      `<text class="ink small" x="${left + 34}" y="${top + 4}">${TITLES[work]}</text>`,
    );
  }
  return parts;
}
