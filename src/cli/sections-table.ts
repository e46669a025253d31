/** The table of sections: where each is sampled, from which family, and how much lies in it. */
import type { Section } from "../sections/plan.js";
import { formatTable } from "./table.js";

interface SampledAt {
  readonly preActivation: string;
  readonly family: string;
}

/** @param elements by parameter. */
export function formatSections(
  sections: readonly Section[],
  boundaries: readonly SampledAt[],
  elements: ReadonlyMap<string, number>,
): string {
  if (sections.length === 0) return "Sections: none; nothing is sampled.";
  return formatTable(
    ["section", "sampled at", "family", "parameters", "elements"],
    sections.map((section) => [
      section.name,
      section.boundaries.map((i) => boundaries[i]?.preActivation).join(", "),
      [...new Set(section.boundaries.map((i) => boundaries[i]?.family))].join(", "),
      section.parameters.length,
      section.parameters.reduce((sum, name) => sum + (elements.get(name) ?? 0), 0),
    ]),
  );
}
