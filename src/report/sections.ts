/** What a run's optimizer measured in each section: its block metrics, gathered by the section of their parameters. */
import { existsSync } from "node:fs";
import { PARAMETER_COSINE } from "../optimizers/shampoo/diagnostics.js";
import { BLOCK_METRICS } from "../optimizers/shampoo/roots.js";
import type { Manifest } from "../rewrite/manifest.js";
import type { StepRecord } from "../training/metrics.js";
import { RunDirectory } from "../training/run-directory.js";
import { type Curve, curveOf } from "./curves.js";

/** The section of each parameter, or its own name where nothing is sampled; sections in the order of the network. */
export type SectionOf = ReadonlyMap<string, string>;

/** Curves by section, by the metric's name on the page. */
export type SectionDiagnostics = Readonly<Record<string, Readonly<Record<string, Curve>>>>;

/** How the blocks of a section become one value: their worst. */
const METRICS: readonly { readonly name: string; readonly matches: RegExp; worst(values: number[]): number }[] = [
  ...BLOCK_METRICS.map((metric) => ({
    name: {
      residual: "Residual of the roots",
      condition: "Condition number",
      iterations: "Iterations of the roots",
      retries: "Retries of the roots",
      failures: "Refreshes failed in a row",
    }[metric],
    matches: new RegExp(`^roots/.*/${metric}$`),
    worst: (values: number[]) => Math.max(...values),
  })),
  {
    name: "Cosine of the sampled and the true gradient",
    matches: new RegExp(`^${PARAMETER_COSINE}$`),
    worst: (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length,
  },
];

/** Reads which parameter is of which section from a run's training program; undefined when the program is gone. */
export async function readSections(directory: string): Promise<SectionOf | undefined> {
  const run = new RunDirectory(directory);
  if (!existsSync(run.programFile)) return undefined;
  return sectionsOf((await run.readProgram()).manifest);
}

function sectionsOf({ parameters, sections }: Manifest): SectionOf {
  return new Map(parameters.map(({ name, section }) => [name, sections[section ?? -1]?.name ?? name]));
}

/**
 * The block metrics of a run by section. A section's residual, condition, iterations, retries and failures are the
 * largest of its blocks; its cosine is the mean over its parameters. Metrics that are zero throughout are left out.
 *
 * @param blocks what the entries of each block metric stand for: labels that begin with a parameter's name
 */
export function sectionDiagnostics(
  records: readonly StepRecord[],
  blocks: ReadonlyMap<string, readonly string[]>,
  sectionOf: SectionOf,
): SectionDiagnostics {
  const measured = records.filter((record) => record.block_diagnostics);
  const result: Record<string, Record<string, Curve>> = {};
  for (const { name, matches, worst } of METRICS) {
    const places = new Map<string, { metric: string; index: number }[]>();
    for (const [metric, labels] of blocks) {
      if (!matches.test(metric)) continue;
      for (const [index, label] of labels.entries()) {
        const section = sectionOf.get(parameterOf(label, sectionOf)) ?? label;
        places.set(section, [...(places.get(section) ?? []), { metric, index }]);
      }
    }
    const order = [...new Set(sectionOf.values())];
    const sections = [...places.keys()].sort((a, b) => order.indexOf(a) - order.indexOf(b));
    const curves = sections.map((section): [string, Curve] => {
      const own = places.get(section) ?? [];
      const value = (record: StepRecord) => {
        const values = own.map(({ metric, index }) => record.block_diagnostics?.[metric]?.[index]);
        const known = values.filter((entry): entry is number => Number.isFinite(entry));
        return known.length > 0 ? worst(known) : undefined;
      };
      return [section, curveOf(measured, value)];
    });
    const shown = curves.filter(([, curve]) => curve.value.length > 0);
    if (shown.some(([, curve]) => curve.value.some((entry) => entry !== 0))) result[name] = Object.fromEntries(shown);
  }
  return result;
}

/** The parameter that a block's label begins with: the longest, as names may begin with one another. */
function parameterOf(label: string, sectionOf: SectionOf): string {
  for (let end = label.length; end > 0; end = label.lastIndexOf("/", end - 1)) {
    const name = label.slice(0, end);
    if (sectionOf.has(name)) return name;
  }
  return label;
}
