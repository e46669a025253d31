/** What `fishy train` prints at the end. */
import type { Metric } from "../training/best.js";
import type { Evaluation } from "../training/evaluator.js";
import type { TrainResult } from "../training/train.js";
import { formatTable } from "./table.js";

/** What a program reads: everything but the tensors. */
export function summaryOf({
  state: _state,
  losses: _losses,
  ...summary
}: TrainResult): Omit<TrainResult, "state" | "losses"> {
  return summary;
}

const OUTCOMES = {
  completed: "Trained",
  interrupted: "Stopped after",
  "stopped early": "Stopped early after",
  paused: "Paused after",
} as const;

export function formatResult(result: TrainResult): string {
  const { train: fit, heldOut, best, outcome } = result;
  const caveat = heldOut?.caveat ?? fit?.caveat;
  return [
    `${OUTCOMES[outcome]} ${result.steps} steps in ${result.seconds.toFixed(1)} s (${(1000 * result.secondsPerStep).toFixed(1)} ms a step, median ${(1000 * result.medianSecondsPerStep).toFixed(1)} ms)`,
    ...(fit || heldOut ? [evaluationTable({ training: fit, "held out": heldOut })] : []),
    ...(best ? [`Best ${best.metric}: ${best.value.toPrecision(6)} at step ${best.step}`] : []),
    ...(caveat ? [`Note: ${caveat}`] : []),
    ...(result.modelFile ? [`Model: ${result.modelFile}`] : []),
    ...(result.directory ? [`Run: ${result.directory}`] : []),
  ].join("\n");
}

function evaluationTable(evaluations: Readonly<Record<string, Evaluation | undefined>>): string {
  const percent = (value: number) => `${(100 * value).toFixed(2)} %`;
  const digits = (value: number) => value.toPrecision(6);
  const columns: [name: string, metric: Metric, format: (value: number) => string][] = [
    ["loss", "loss", digits],
    ["accuracy", "accuracy", percent],
    ["top-5", "top5", percent],
    ["perplexity", "perplexity", digits],
    ["squared error", "reconstructionError", digits],
  ];
  const rows = Object.entries(evaluations).filter((row): row is [string, Evaluation] => row[1] !== undefined);
  const shown = columns.filter(([, metric]) => rows.some(([, evaluation]) => evaluation[metric] !== undefined));
  const cell = (value: number | undefined, format: (value: number) => string) =>
    value === undefined ? "" : format(value);
  return formatTable(
    ["examples", ...shown.map(([name]) => name)],
    rows.map(([name, evaluation]) => [name, ...shown.map(([, metric, format]) => cell(evaluation[metric], format))]),
  );
}
