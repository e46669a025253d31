/** What fishy's pages share: elements, numbers, tables and line charts. Runs in the browser; needs uPlot for charts. */
globalThis.fishy = (() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function style(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function colorOf(index) {
    const colors = style("--series").split(/\s+/);
    return colors[index % colors.length];
  }

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // Numbers.

  function formatNumber(value, digits = 5) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 2);
    return String(Number(value.toPrecision(digits)));
  }

  function formatSeconds(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds < 1) return `${formatNumber(1000 * seconds, 3)} ms`;
    if (seconds < 120) return `${formatNumber(seconds, 3)} s`;
    if (seconds < 7200) return `${formatNumber(seconds / 60, 3)} min`;
    return `${formatNumber(seconds / 3600, 3)} h`;
  }

  function formatPercent(fraction) {
    return fraction === null || fraction === undefined ? "–" : `${(100 * fraction).toFixed(2)} %`;
  }

  function swatch(index) {
    const made = element("span", { className: "swatch" });
    made.dataset.series = index;
    made.style.background = colorOf(index);
    return made;
  }

  function table(header, rows) {
    const numeric = header.map((_, column) => rows.every((row) => row[column].number !== undefined));
    const cell = (tag, content, column, best) =>
      element(tag, { className: `${numeric[column] ? "number" : "text"}${best ? " best" : ""}` }, ...[content].flat());
    return element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...header.map((text, column) => cell("th", text, column)))),
      element(
        "tbody",
        {},
        ...rows.map((row) => element("tr", {}, ...row.map((entry, i) => cell("td", entry.text, i, entry.best)))),
      ),
    );
  }

  /** Cells of one figure over all runs; the best is marked when there is more than one. */
  function figures(values, format, better) {
    const known = values.filter((value) => value !== null && value !== undefined);
    const best = better && known.length > 1 ? better(...known) : undefined;
    return values.map((value) => ({ text: format(value), number: value ?? null, best: value === best }));
  }

  /** The nearest point of a series that has a value, as the runs' abscissae differ; none beyond the ends of a run. */
  function nearest(chart, series, index, x) {
    const [abscissae, values] = [chart.data[0], chart.data[series]];
    const missing = (i) => values[i] === null || values[i] === undefined;
    let left = index;
    let right = index;
    while (left >= 0 && missing(left)) left--;
    while (right < values.length && missing(right)) right++;
    if (left < 0 || right >= values.length) return null;
    return x - abscissae[left] < abscissae[right] - x ? left : right;
  }

  /** Distances between ticks on an axis of whole numbers. */
  const WHOLE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].flatMap((k) => [1, 2, 5].map((n) => n * 10 ** k));

  /**
   * Line charts that are redrawn together.
   *
   * A chart's lines are { x, y, color, width, dash, points, label, hidden }; `axis()` gives the name of the horizontal
   * axis, how its numbers are written, and whether they are whole.
   */
  class Charts {
    constructor(axis) {
      this.axis = axis;
      this.all = [];
      dark.addEventListener("change", () => this.draw());
      new ResizeObserver(() => {
        for (const { uplot, target, height } of this.all) {
          const width = target.clientWidth;
          if (uplot && width > 0 && width !== uplot.width) uplot.setSize({ width, height });
        }
      }).observe(document.body);
    }

    add(target, height, lines, scale = () => "linear") {
      const chart = { target, height, lines, scale };
      this.all.push(chart);
      this.drawOne(chart);
      return chart;
    }

    clear() {
      for (const { uplot } of this.all) uplot?.destroy();
      this.all = [];
    }

    /** Forgets the charts that are no longer on the page, and draws the others again. */
    draw() {
      this.all = this.all.filter(({ target }) => target.isConnected);
      for (const swatchOf of document.querySelectorAll(".swatch[data-series]"))
        swatchOf.style.background = colorOf(swatchOf.dataset.series);
      for (const chart of this.all) this.drawOne(chart);
    }

    drawOne(chart) {
      const drawn = chart.lines().filter((line) => line.x.length > 0);
      chart.uplot?.destroy();
      chart.uplot = undefined;
      chart.target.replaceChildren();
      if (drawn.length === 0) return;
      const { label, format, whole } = this.axis();
      const base = {
        stroke: style("--muted"),
        grid: { stroke: style("--grid"), width: 1 },
        ticks: { stroke: style("--grid"), width: 1 },
      };
      const known = (value) => value !== null && value !== undefined;
      chart.uplot = new uPlot(
        {
          width: chart.target.clientWidth,
          height: chart.height,
          scales: { x: { time: false }, y: { distr: chart.scale() === "log" ? 3 : 1 } },
          legend: { live: true },
          cursor: { dataIdx: nearest, y: false, points: { size: 7 } },
          axes: [
            { ...base, values: (_, values) => values.map(format), space: 70, ...(whole && { incrs: WHOLE }) },
            { ...base, size: 62, values: (_, values) => values.map((v) => (v === null ? "" : formatNumber(v, 3))) },
          ],
          series: [
            { label, value: (_, value) => (known(value) ? format(value) : "–") },
            ...drawn.map((line) => ({
              label: line.label ?? "",
              class: line.hidden ? "unlabelled" : "labelled",
              stroke: line.color,
              width: line.width,
              dash: line.dash,
              spanGaps: true,
              points: { show: Boolean(line.points), size: 5, fill: line.color },
              value: (_, value) => (known(value) ? formatNumber(value) : "–"),
            })),
          ],
        },
        uPlot.join(drawn.map((line) => [line.x, line.y])),
        chart.target,
      );
      for (const row of chart.target.querySelectorAll(".u-legend .unlabelled")) row.remove();
    }
  }

  return { Charts, colorOf, element, figures, formatNumber, formatPercent, formatSeconds, style, swatch, table };
})();
