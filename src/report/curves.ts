/** Curves over the records of a run: thinned to what a screen can show. */
import type { StepRecord } from "../training/metrics.js";

/** Where points lie, on each of the axes that the reader may choose. */
export interface Abscissae {
  readonly step: readonly number[];
  readonly examples: readonly number[];
  readonly seconds: readonly number[];
}

/** One curve with points of its own. */
export type Curve = Abscissae & { readonly value: readonly number[] };

/** Points that a curve keeps; more cannot be told apart on a screen. */
const MAX_POINTS = 1500;

export function abscissae(records: readonly StepRecord[]): Abscissae {
  const groups = thin(records);
  const at = (value: (record: StepRecord) => number) => groups.map((group) => value(group.at(-1) as StepRecord));
  return {
    step: at((record) => record.step),
    examples: at((record) => record.examples),
    seconds: at((record) => Number(record.seconds.toPrecision(6))),
  };
}

/** Values over the points of `abscissae`: the mean of the records that each point stands for. */
export function ordinates(records: readonly StepRecord[], value: (record: StepRecord) => number): number[] {
  return thin(records).map((group) =>
    Number((group.reduce((sum, record) => sum + value(record), 0) / group.length).toPrecision(7)),
  );
}

/** The curve of a value over the records that have it. */
export function curveOf(records: readonly StepRecord[], value: (record: StepRecord) => number | undefined): Curve {
  const having = records.filter((record) => Number.isFinite(value(record)));
  return { ...abscissae(having), value: ordinates(having, (record) => value(record) as number) };
}

/** Groups of neighbours, so that at most MAX_POINTS are left. */
function thin(records: readonly StepRecord[]): StepRecord[][] {
  const size = Math.ceil(records.length / MAX_POINTS);
  const groups: StepRecord[][] = [];
  for (let start = 0; start < records.length; start += size) groups.push(records.slice(start, start + size));
  return groups;
}
