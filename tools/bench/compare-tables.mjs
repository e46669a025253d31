/** The tables of docs/comparisons.md, from the files that tools/bench/compare.mjs wrote. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const fastest = (values) => Math.min(...values);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Two digits, or all before the point. */
const short = (value) => (value < 100 ? value.toPrecision(2) : value.toFixed(0));

/** A loss with its range over the seeds. */
function spread(values) {
  const show = (value) => (value < 0.01 ? value.toExponential(1) : value.toPrecision(3));
  if (values.length === 1) return show(values[0]);
  return `${show(mean(values))} (${show(Math.min(...values))}–${show(Math.max(...values))})`;
}

/** One table: a row for each method, in the order of their losses. */
export function comparisonTable({ results, grid, date, machine, versions, steps, tuningSteps, title, lossName }) {
  const heldOut = results[0].finals[0].heldOutLoss !== undefined;
  const accuracy = results[0].finals[0].heldOutAccuracy !== undefined;
  const seeds = results[0].finals.length;
  const header = ["method", "learning rate", `${lossName}${seeds === 1 ? "" : `, ${seeds} seeds`}`];
  if (heldOut) header.push("held-out loss");
  if (accuracy) header.push("held-out accuracy");
  header.push("median step", "whole run, fastest");
  const meanLoss = ({ finals }) => mean(finals.map((run) => run.trainLoss));
  const rows = [...results]
    .sort((a, b) => meanLoss(a) - meanLoss(b))
    .map(({ method, best, finals }) => {
      const of = (key) => finals.map((run) => run[key]);
      const edge = best === grid[0] || best === grid.at(-1) ? " (edge of the grid)" : "";
      const row = [method, `${best}${edge}`, spread(of("trainLoss"))];
      if (heldOut) row.push(spread(of("heldOutLoss")));
      if (accuracy) row.push(`${(100 * mean(of("heldOutAccuracy"))).toFixed(1)} %`);
      row.push(`${short(1000 * fastest(of("medianStep")))} ms`, `${short(fastest(of("seconds")))} s`);
      return row;
    });
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const setting = `${title}; ${steps} steps, learning rates ${grid.join(", ")}${tuningSteps ? ` tuned over ${tuningSteps} steps` : ""}. ${date}, ${machine}, Node ${versions.node}, onnxruntime-node ${versions["onnxruntime-node"]}.`;
  return [setting, "", line(header), line(header.map(() => "---")), ...rows.map(line)].join("\n");
}

/** Puts the tables between their markers, `<!-- table: NAME -->` and `<!-- end -->`. */
export function fillTables(page, folder) {
  return page.replace(/(<!-- table: (\w+) -->\n)[\s\S]*?(<!-- end -->)/g, (whole, begin, name, end) => {
    const file = join(folder, `compare-${name}.json`);
    return existsSync(file) ? `${begin}\n${comparisonTable(JSON.parse(readFileSync(file, "utf8")))}\n\n${end}` : whole;
  });
}
