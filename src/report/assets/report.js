/** Draws the report: reads the runs from the page's JSON and fills the tables and charts. Runs in the browser. */
globalThis.report = (() => {
  const { Charts, colorOf, element, figures, formatNumber, formatPercent, formatSeconds, swatch, table } = fishy;
  /** The runs and options on the page, and what evaluations measured of any run beside loss and accuracy. */
  let runs = [];
  let options = [];
  let metricNames = [];
  const state = { axis: "step", log: false, smoothing: undefined, run: 0 };
  const axes = { step: "Steps", examples: "Examples", seconds: "Time" };
  const charts = new Charts(() => ({
    label: axes[state.axis],
    whole: state.axis !== "seconds",
    format: state.axis === "seconds" ? formatSeconds : (value) => formatNumber(value, 7),
  }));
  const byId = (id) => document.getElementById(id);

  // Tables.

  function fillSummary() {
    const figure = (name, select, format = formatNumber, better = undefined) => [
      name,
      figures(runs.map(select), format, better),
    ];
    const columns = [
      ["Run", runs.map((run, i) => ({ text: [swatch(i), run.name] }))],
      ["Optimizer", runs.map((run) => ({ text: run.optimizer }))],
      figure(
        "Steps",
        (run) => run.summary.steps,
        (value) => formatNumber(value, 7),
      ),
      figure("Training loss", (run) => run.summary.trainLoss, formatNumber, Math.min),
      figure("Held-out loss", (run) => run.summary.heldOutLoss, formatNumber, Math.min),
      figure("Held-out accuracy", (run) => run.summary.heldOutAccuracy, formatPercent, Math.max),
      ...metricNames.map((name) =>
        figure(
          name,
          (run) => run.summary.heldOutMetrics[name] ?? null,
          name === "Top-5 accuracy" ? formatPercent : formatNumber,
          name === "Top-5 accuracy" ? Math.max : Math.min,
        ),
      ),
      figure("Time per step", (run) => run.summary.secondsPerStep, formatSeconds, Math.min),
      figure("Training time", (run) => run.summary.seconds, formatSeconds),
    ].filter(([, cells]) => cells.some((cell) => cell.number !== null));
    const outcomes = runs.map((run) => ({ text: run.summary.outcome ?? "not ended" }));
    if (runs.some((run) => run.summary.outcome !== "completed")) columns.push(["Outcome", outcomes]);
    const rows = runs.map((_, i) => columns.map(([, cells]) => cells[i]));
    const header = columns.map(([name]) => name);
    byId("summary").replaceChildren(table(header, rows));
  }

  function fillOptions() {
    const shown = (value) => ({ text: value ?? "–" });
    const rowsOf = (entries) => entries.map(({ name, values }) => [{ text: name }, ...values.map(shown)]);
    const fill = (id, header, rows) => {
      byId(`${id}-section`).hidden = rows.length === 0;
      byId(id).replaceChildren(...(rows.length > 0 ? [table(header, rows)] : []));
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

  function lossLines() {
    return runs.flatMap((run, i) => {
      const color = colorOf(i);
      const name = runs.length > 1 ? `${run.name} ` : "";
      const x = run.train[state.axis];
      const held = run.heldOut;
      return [
        ...(state.smoothing > 0 ? [{ x, y: run.train.loss, color: fade(color), width: 1, hidden: true }] : []),
        { x, y: smooth(run.train.loss), color, width: 2, label: `${name}training` },
        ...(held.loss.length > 0
          ? [
              {
                ...{ x: held[state.axis], y: held.loss, color, width: 2, dash: [6, 4], points: true },
                label: `${name}held out`,
              },
            ]
          : []),
      ];
    });
  }

  /** One line for each run that has the curve. */
  function linesOfRuns(select) {
    return () =>
      runs.flatMap((run, i) => {
        const { at, y, points } = select(run) ?? {};
        return at ? [{ x: at[state.axis], y, points, color: colorOf(i), width: 2, label: run.name }] : [];
      });
  }

  function addTitled(parent, title, height, lines, scale) {
    const target = element("div", { className: "chart" });
    parent.append(element("h2", { textContent: title }), target);
    charts.add(target, height, lines, scale);
  }

  const lossScale = () => (state.log ? "log" : "linear");

  function fillCharts() {
    charts.add(byId("loss"), 380, lossLines, lossScale);
    charts.add(
      byId("rate"),
      180,
      linesOfRuns((run) => ({ at: run.train, y: run.train.rate })),
    );
    const hasAccuracy = runs.some((run) => run.heldOut.accuracy.length > 0);
    byId("accuracy-section").hidden = !hasAccuracy;
    if (hasAccuracy) {
      const accuracy = (run) => run.heldOut.accuracy.length > 0 && { at: run.heldOut, y: run.heldOut.accuracy };
      charts.add(
        byId("accuracy"),
        240,
        linesOfRuns((run) => accuracy(run) && { ...accuracy(run), points: true }),
      );
    }
    byId("metrics").replaceChildren();
    for (const name of metricNames) {
      const select = (run) =>
        run.heldOut.metrics[name] && { at: run.heldOut, y: run.heldOut.metrics[name], points: true };
      addTitled(byId("metrics"), `Held out: ${name}`, 180, linesOfRuns(select));
    }
  }

  /** Charts of a closed element have no width, so that they are drawn when it opens. */
  function fillWhenOpen(id, isThere, fill) {
    const section = byId(id);
    section.hidden = !isThere;
    const body = section.querySelector(".body");
    body.replaceChildren();
    section.ontoggle = () => {
      if (section.open && body.childElementCount === 0) fill(body);
    };
    if (isThere) section.ontoggle();
  }

  function fillDiagnostics() {
    const names = [...new Set(runs.flatMap((run) => Object.keys(run.diagnostics)))];
    fillWhenOpen("diagnostics", names.length > 0, (body) => {
      for (const name of names) {
        const select = (run) => run.diagnostics[name] && { at: run.diagnostics[name], y: run.diagnostics[name].value };
        addTitled(body, name, 180, linesOfRuns(select));
      }
    });
  }

  /** From the first section to the last: the hue tells the depth. */
  function depthColor(index, count) {
    const light = fishy.style("--depth-lightness");
    return `hsl(${Math.round(265 - (235 * index) / Math.max(1, count - 1))} 70% ${light})`;
  }

  const LOGARITHMIC = /^(Residual|Condition)/;

  function fillSections() {
    const having = runs.map((_, i) => i).filter((i) => Object.keys(runs[i].sectionDiagnostics).length > 0);
    if (!having.includes(state.run)) state.run = having[0] ?? 0;
    const picker = byId("section-run");
    picker.hidden = having.length < 2;
    picker.replaceChildren(
      element("legend", { textContent: "Run" }),
      ...having.map((i) => {
        const radio = element("input", { type: "radio", name: "section-run", checked: i === state.run });
        radio.addEventListener("change", () => {
          state.run = i;
          fillSections();
        });
        return element("label", {}, radio, element("span", { textContent: runs[i].name }));
      }),
    );
    fillWhenOpen("sections", having.length > 0, (body) => {
      for (const [metric, sections] of Object.entries(runs[state.run].sectionDiagnostics)) {
        const curves = Object.entries(sections);
        const isPositive = curves.every(([, curve]) => curve.value.every((value) => value > 0));
        const lines = () =>
          curves.map(([name, curve], i) => ({
            ...{ x: curve[state.axis], y: curve.value, label: name, width: 1.5 },
            color: depthColor(i, curves.length),
          }));
        addTitled(body, metric, 220, lines, () => (isPositive && LOGARITHMIC.test(metric) ? "log" : "linear"));
      }
    });
  }

  /** Puts runs on the page, in place of those that were there. */
  function show(data) {
    ({ runs, options } = data);
    metricNames = [...new Set(runs.flatMap((run) => Object.keys(run.heldOut.metrics)))];
    const points = Math.max(...runs.map((run) => run.train.loss.length));
    state.smoothing ??= points > 300 ? 0.9 : 0;
    byId("smoothing").value = String(state.smoothing);
    charts.clear();
    fillSummary();
    fillOptions();
    fillCharts();
    fillSections();
    fillDiagnostics();
  }

  for (const radio of document.querySelectorAll('input[name="axis"]')) {
    radio.addEventListener("change", () => {
      state.axis = radio.value;
      charts.draw();
    });
  }
  byId("log").addEventListener("change", (event) => {
    state.log = event.target.checked;
    charts.draw();
  });
  byId("smoothing").addEventListener("input", (event) => {
    state.smoothing = Number(event.target.value);
    charts.draw();
  });
  show(JSON.parse(byId("data").textContent));
  return { show };
})();
