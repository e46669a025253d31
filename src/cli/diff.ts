/** `fishy inspect --diff A B`: two models or training programs side by side. */
import { UsageError } from "../errors.js";
import { loadModel } from "../onnx/model-file.js";
import { type Difference, diffModels, type ModelDiff } from "../rewrite/diff.js";
import { formatTable } from "./table.js";

/** Rows of a table that the terminal shows; `--json` has them all. */
const SHOWN = 20;

/** Compares the two models that `model` and `--diff` name together, and prints what differs. */
export async function printDiff(model: string | undefined, given: readonly string[], json: boolean): Promise<void> {
  const paths = [...(model === undefined ? [] : [model]), ...given];
  const [before, after] = paths;
  if (before === undefined || after === undefined || paths.length > 2) {
    throw new UsageError(`--diff compares two models: fishy inspect --diff A B; got ${paths.length}.`);
  }
  const diff = await diffModels(await loadModel(before), await loadModel(after));
  process.stdout.write(
    `${json ? JSON.stringify({ before, after, ...diff }, null, 2) : formatDiff(before, after, diff)}\n`,
  );
}

function formatDiff(before: string, after: string, diff: ModelDiff): string {
  if (diff.identical) {
    return `No difference: the same graph, and the same bits in all ${diff.equalParameters} initializers.`;
  }
  const header = ["", before, after];
  const facts = (list: readonly Difference[]) =>
    list.map(({ name, before: a, after: b }) => [name, a ?? "–", b ?? "–"]);
  const nodes = diff.nodes.map(({ node, change, operator, details }) => [
    change,
    operator,
    node,
    details.map(({ name, before: a, after: b }) => `${name}: ${a ?? "–"} → ${b ?? "–"}`).join("; "),
  ]);
  const number = (value: number | undefined) => (value === undefined ? "" : value.toPrecision(4));
  const parameters = diff.parameters.map(({ name, change, before: a, after: b, largest, relative }) => [
    change,
    name,
    a === b ? (a ?? "") : `${a ?? "–"} → ${b ?? "–"}`,
    number(largest),
    number(relative),
  ]);
  const operators = diff.operators.map((row) => [row.operator, row.before, row.after]);
  const part = (title: string, head: readonly string[], rows: readonly (readonly (string | number)[])[]) =>
    rows.length === 0 ? [] : [`${title}\n${shortTable(head, rows)}`];
  return [
    ...part("Models", header, facts(diff.model)),
    ...part("Training programs", header, facts(diff.program)),
    ...part("Operators", ["operator", "before", "after"], operators),
    ...part(`Nodes: ${diff.nodes.length} differ`, ["change", "operator", "node", "what"], nodes),
    ...part(
      `Initializers: ${diff.parameters.length} differ, ${diff.equalParameters} have the same bits`,
      ["change", "name", "type", "max|Δ|", "‖Δ‖/‖before‖"],
      parameters,
    ),
  ].join("\n\n");
}

function shortTable(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const cut = rows.map((row) => row.map((cell) => (typeof cell === "number" ? cell : clip(cell))));
  const table = formatTable(head, cut.slice(0, SHOWN));
  return rows.length > SHOWN ? `${table}\n… and ${rows.length - SHOWN} more (--json has all)` : table;
}

const WIDEST = 100;

function clip(text: string): string {
  return text.length > WIDEST ? `${text.slice(0, WIDEST - 1)}…` : text;
}
