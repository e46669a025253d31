/** Draws the report: reads the runs from the page's JSON and fills the tables and charts. Runs in the browser. */
(() => {
  const { runs, options } = JSON.parse(document.getElementById("data").textContent);
  /** What evaluations measured of any run, beside loss and accuracy. */
  const metricNames = [...new Set(runs.flatMap((run) => Object.keys(run.heldOut.metrics)))];
  const axes = { step: "Steps", examples: "Examples", seconds: "Time" };
  const state = { axis: "step", log: false, smoothing: 0 };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const charts = [];

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

  // Tables.

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

  /** Cells of one figure over all runs; the best is marked when there is more than one run. */
  function figures(values, format, better) {
    const known = values.filter((value) => value !== null && value !== undefined);
    const best = better && known.length > 1 ? better(...known) : undefined;
    return values.map((value) => ({ text: format(value), number: value ?? null, best: value === best }));
  }

  function fillSummary() {
    const columns = [
      ["Run", runs.map((run, i) => ({ text: [swatch(i), run.name] }))],
      ["Optimizer", runs.map((run) => ({ text: run.optimizer }))],
      [
        "Steps",
        figures(
          runs.map((run) => run.summary.steps),
          (value) => formatNumber(value, 7),
        ),
      ],
      [
        "Training loss",
        figures(
          runs.map((run) => run.summary.trainLoss),
          formatNumber,
          Math.min,
        ),
      ],
      [
        "Held-out loss",
        figures(
          runs.map((run) => run.summary.heldOutLoss),
          formatNumber,
          Math.min,
        ),
      ],
      [
        "Held-out accuracy",
        figures(
          runs.map((run) => run.summary.heldOutAccuracy),
          formatPercent,
          Math.max,
        ),
      ],
      ...metricNames.map((name) => [
        name,
        figures(
          runs.map((run) => run.summary.heldOutMetrics[name] ?? null),
          name === "Top-5 accuracy" ? formatPercent : formatNumber,
          name === "Top-5 accuracy" ? Math.max : Math.min,
        ),
      ]),
      [
        "Time per step",
        figures(
          runs.map((run) => run.summary.secondsPerStep),
          formatSeconds,
          Math.min,
        ),
      ],
      [
        "Training time",
        figures(
          runs.map((run) => run.summary.seconds),
          formatSeconds,
        ),
      ],
    ].filter(([, cells]) => cells.some((cell) => cell.number !== null));
    const rows = runs.map((_, i) => columns.map(([, cells]) => cells[i]));
    document.getElementById("summary").append(
      table(
        columns.map(([name]) => name),
        rows,
      ),
    );
  }

  function fillOptions() {
    const shown = (value) => ({ text: value ?? "–" });
    const rowsOf = (entries) => entries.map(({ name, values }) => [{ text: name }, ...values.map(shown)]);
    const fill = (id, header, rows) => {
      if (rows.length > 0) document.getElementById(id).append(table(header, rows));
      else document.getElementById(`${id}-section`).remove();
    };
    const header = ["Option", ...runs.map((run) => run.name)];
    const having = (option) => option.values.filter((value) => value !== null).length;
    const differing = options.filter((option) => option.differs);
    const compared = differing.filter((option) => having(option) > 1);
    fill("differing", header, rowsOf(compared));
    fill("own", header, rowsOf(differing.filter((option) => having(option) === 1)));
    const same = options.filter((option) => !option.differs);
    fill("same", ["Option", "Value"], rowsOf(same.map(({ name, values }) => ({ name, values: values.slice(0, 1) }))));
  }

  // Charts.

  function smooth(values) {
    if (state.smoothing === 0) return values;
    let average = 0;
    let weight = 0;
    return values.map((value) => {
      if (value === null) return null;
      average = state.smoothing * average + (1 - state.smoothing) * value;
      weight = state.smoothing * weight + (1 - state.smoothing);
      return average / weight;
    });
  }

  function fade(color) {
    return `${color}55`;
  }

  /** One line of a chart: where it comes from and how it looks. */
  function lossLines() {
    return runs.flatMap((run, i) => {
      const color = colorOf(i);
      const name = runs.length > 1 ? `${run.name} ` : "";
      const lines = [];
      if (state.smoothing > 0)
        lines.push({ x: run.train, y: run.train.loss, color: fade(color), width: 1, hidden: true });
      lines.push({ x: run.train, y: smooth(run.train.loss), color, width: 2, label: `${name}training` });
      if (run.heldOut.loss.length > 0) {
        lines.push({
          x: run.heldOut,
          y: run.heldOut.loss,
          color,
          width: 2,
          dash: [6, 4],
          points: true,
          label: `${name}held out`,
        });
      }
      return lines;
    });
  }

  function lines(select) {
    return runs.flatMap((run, i) => {
      const found = select(run);
      return found ? [{ ...found, color: colorOf(i), width: 2, label: run.name }] : [];
    });
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

  function draw(chart) {
    const drawn = chart.lines().filter((line) => line.x[state.axis].length > 0);
    chart.uplot?.destroy();
    chart.target.replaceChildren();
    if (drawn.length === 0) return;
    const data = uPlot.join(drawn.map((line) => [line.x[state.axis], line.y]));
    const onAxis = (values) =>
      values.map((value) => (state.axis === "seconds" ? formatSeconds(value) : formatNumber(value, 7)));
    const base = {
      stroke: style("--muted"),
      grid: { stroke: style("--grid"), width: 1 },
      ticks: { stroke: style("--grid"), width: 1 },
    };
    chart.uplot = new uPlot(
      {
        width: chart.target.clientWidth,
        height: chart.height,
        scales: { x: { time: false }, y: { distr: chart.log && state.log ? 3 : 1 } },
        legend: { live: true },
        cursor: { dataIdx: nearest, y: false, points: { size: 7 } },
        axes: [
          { ...base, values: (_, values) => onAxis(values), space: 70 },
          {
            ...base,
            size: 62,
            values: (_, values) => values.map((value) => (value === null ? "" : formatNumber(value, 3))),
          },
        ],
        series: [
          {
            label: axes[state.axis],
            value: (_, value) => (value === null || value === undefined ? "–" : onAxis([value])[0]),
          },
          ...drawn.map((line) => ({
            label: line.label ?? "",
            class: line.hidden ? "unlabelled" : "labelled",
            stroke: line.color,
            width: line.width,
            dash: line.dash,
            spanGaps: true,
            points: { show: Boolean(line.points), size: 5, fill: line.color },
            value: (_, value) => (value === null || value === undefined ? "–" : formatNumber(value)),
          })),
        ],
      },
      data,
      chart.target,
    );
    for (const row of chart.target.querySelectorAll(".u-legend .unlabelled")) row.remove();
  }

  function addChart(target, height, lineSource, log = false) {
    const chart = { target, height, lines: lineSource, log };
    charts.push(chart);
    draw(chart);
    return chart;
  }

  function drawAll() {
    for (const swatchOf of document.querySelectorAll(".swatch"))
      swatchOf.style.background = colorOf(swatchOf.dataset.series);
    for (const chart of charts) draw(chart);
  }

  function addDiagnostics() {
    const names = [...new Set(runs.flatMap((run) => Object.keys(run.diagnostics)))];
    const section = document.getElementById("diagnostics");
    if (names.length === 0) {
      section.remove();
      return;
    }
    const body = section.querySelector("div");
    // Drawn when opened: a chart in a closed element has no width.
    section.addEventListener(
      "toggle",
      () => {
        for (const name of names) {
          const target = element("div", { className: "chart" });
          body.append(element("h2", { textContent: name }), target);
          addChart(target, 180, () =>
            lines((run) => run.diagnostics[name] && { x: run.diagnostics[name], y: run.diagnostics[name].value }),
          );
        }
      },
      { once: true },
    );
  }

  fillSummary();
  fillOptions();
  const points = Math.max(...runs.map((run) => run.train.loss.length));
  const slider = document.getElementById("smoothing");
  state.smoothing = points > 300 ? 0.9 : 0;
  slider.value = String(state.smoothing);
  addChart(document.getElementById("loss"), 380, lossLines, true);
  addChart(document.getElementById("rate"), 180, () => lines((run) => ({ x: run.train, y: run.train.rate })));
  if (runs.some((run) => run.heldOut.accuracy.length > 0)) {
    addChart(document.getElementById("accuracy"), 240, () =>
      lines((run) =>
        run.heldOut.accuracy.length > 0 ? { x: run.heldOut, y: run.heldOut.accuracy, points: true } : undefined,
      ),
    );
  } else document.getElementById("accuracy-section").remove();
  for (const name of metricNames) {
    const target = element("div", { className: "chart" });
    document.getElementById("metrics").append(element("h2", { textContent: `Held out: ${name}` }), target);
    addChart(target, 180, () =>
      lines((run) => run.heldOut.metrics[name] && { x: run.heldOut, y: run.heldOut.metrics[name], points: true }),
    );
  }
  addDiagnostics();

  for (const radio of document.querySelectorAll('input[name="axis"]')) {
    radio.addEventListener("change", () => {
      state.axis = radio.value;
      drawAll();
    });
  }
  document.getElementById("log").addEventListener("change", (event) => {
    state.log = event.target.checked;
    drawAll();
  });
  slider.addEventListener("input", () => {
    state.smoothing = Number(slider.value);
    drawAll();
  });
  dark.addEventListener("change", drawAll);
  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    for (const chart of charts) chart.uplot?.setSize({ width: chart.target.clientWidth, height: chart.height });
  }).observe(document.body);
})();
