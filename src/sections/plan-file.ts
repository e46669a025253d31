/** The editable plan: boundaries as YAML, written from a plan and read back as a `SectionSpec`. */
import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, stringify } from "yaml";
import { FishyError } from "../errors.js";
import type { Family } from "../families/family.js";
import { familyByName, familyNames } from "../families/registry.js";
import type { Layer } from "./layers.js";
import type { SectionPlan } from "./plan.js";
import type { PlannedBoundary, SectionSpec } from "./spec.js";

const PLAN_VERSION = 1;
const KEYS = ["name", "at", "family", "parameters"];

export interface PlanText {
  readonly plan: SectionPlan;
  /** What could be sampled: the layers with distinct boundaries, the output's last. */
  readonly candidates: readonly Layer[];
  /** Elements by parameter. */
  readonly elements: ReadonlyMap<string, number>;
  /** The model, as the user names it. */
  readonly model: string;
}

/** Writes a plan as text that `parsePlan` reads back. */
export function formatPlan({ plan, candidates, elements, model }: PlanText): string {
  const sampled = new Set(plan.boundaries.map(({ preActivation }) => preActivation));
  const others = candidates.filter(({ preActivation }) => !sampled.has(preActivation));
  const activations = new Map(candidates.map((layer) => [layer.preActivation, layer.activationType]));
  const count = (names: readonly string[]) =>
    names.reduce((sum, name) => sum + (elements.get(name) ?? 0), 0).toLocaleString("en-US");
  const commented = (text: string) => text.replace(/^(?=.)/gm, "#");
  return [
    `# Where fishy samples ${model.replaceAll("\n", " ")}. Edit it, then: fishy rewrite MODEL --sections THIS_FILE -o PROGRAM`,
    "#",
    "# A boundary lies at a value: the pre-activation of a layer, or another value of the graph, whose family must be given.",
    "# Of a layer the family is that of its activation; another may be written here (fishy families lists them).",
    "# Take a boundary out, and the parameters before it go to the section of the boundary behind it. The output's stays.",
    `version: ${PLAN_VERSION}`,
    "boundaries:",
    ...plan.boundaries.map(({ name, preActivation, family }) =>
      formatBoundary(name, preActivation, family, activations.get(preActivation)),
    ),
    ...(others.length > 0
      ? [
          "# Layers that are not sampled; uncomment to sample them:",
          ...others.map(({ name, preActivation, family, activationType }) =>
            commented(formatBoundary(name, preActivation, family, activationType)),
          ),
        ]
      : []),
    "",
    "# The sections that follow:",
    ...plan.sections.map(
      ({ name, parameters }) => `#   ${name}: ${parameters.join(", ")} (${count(parameters)} elements)`,
    ),
    "",
  ].join("\n");
}

function formatBoundary(name: string, at: string, family: Family, activation: string | undefined): string {
  const hasParameters = Object.keys(family.parameters).length > 0;
  const lines = stringify(
    { name, at, family: family.name, ...(hasParameters && { parameters: family.parameters }) },
    { lineWidth: 0 },
  )
    .trimEnd()
    .split("\n");
  const commented = lines.map((line) => (activation && line.startsWith("family:") ? `${line} # ${activation}` : line));
  return commented.map((line, i) => `  ${i === 0 ? "- " : "  "}${line}`).join("\n");
}

/**
 * Reads a plan.
 * @param source what to call it in errors: its path.
 * @throws FishyError that names the line, for text that is no YAML, unknown keys, families or parameters, and values that come twice.
 */
export function parsePlan(text: string, source: string): SectionSpec {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const lineOf = (node: Node | null | undefined) => lines.linePos(node?.range?.[0] ?? 0).line;
  const fail = (where: string, message: string) => new FishyError(`${where}: ${message}`);
  const [error] = document.errors;
  if (error)
    throw fail(`${source}:${error.linePos?.[0].line ?? 1}`, `this is no YAML: ${error.message.split("\n")[0]}`);
  const root = document.contents;
  if (!isMap(root))
    throw fail(source, "a plan holds 'version' and 'boundaries' (fishy inspect MODEL --plan FILE writes one).");
  for (const { key } of root.items) {
    if (!["version", "boundaries"].includes(String(key))) {
      throw fail(
        `${source}:${lineOf(key as Node)}`,
        `'${key}' is no part of a plan, which holds 'version' and 'boundaries'.`,
      );
    }
  }
  const version: unknown = root.get("version");
  if (version !== PLAN_VERSION) {
    throw fail(source, `the plan's version is ${version ?? "not given"}; this fishy reads version ${PLAN_VERSION}.`);
  }
  const list = root.get("boundaries", true);
  if (!isSeq(list) || list.items.length === 0)
    throw fail(source, "'boundaries' must list at least the output's boundary.");
  const seen = new Map<string, string>();
  const boundaries = list.items.map((item): PlannedBoundary => {
    const where = `${source}:${lineOf(item as Node)}`;
    if (!isMap(item)) throw fail(where, "a boundary is written by its name: and at:.");
    const line = (key: string) => `${source}:${lineOf(item.get(key, true) as Node)}`;
    for (const { key } of item.items) {
      if (!KEYS.includes(String(key))) {
        throw fail(`${source}:${lineOf(key as Node)}`, `a boundary has no '${key}'; it has ${KEYS.join(", ")}.`);
      }
    }
    const word = (key: string): string | undefined => {
      const node = item.get(key, true);
      if (node === undefined) return undefined;
      // A name such as 12 is a number to YAML.
      const value = isScalar(node) ? (typeof node.value === "string" ? node.value : node.source) : undefined;
      if (!value) throw fail(line(key), `'${key}' must be text.`);
      return value;
    };
    const [name, at, family] = [word("name"), word("at"), word("family")];
    if (at === undefined) throw fail(where, "a boundary needs 'at', the value that it lies at.");
    const before = seen.get(at);
    if (before) throw fail(where, `the boundary at '${at}' is there already (${before}).`);
    seen.set(at, where);
    const given = item.get("parameters", true);
    if (given !== undefined && (family === undefined || !isMap(given))) {
      throw fail(line("parameters"), "'parameters' are those of 'family', such as { alpha: 0.1 }.");
    }
    const parameters = (given === undefined ? {} : (given as unknown as Node).toJS(document)) as Record<string, number>;
    for (const [key, value] of Object.entries(parameters)) {
      if (typeof value !== "number")
        throw fail(line("parameters"), `the family's parameter '${key}' must be a number.`);
    }
    if (family !== undefined) checkFamily(family, parameters, line("family"));
    return {
      at,
      where,
      ...(name !== undefined && { name }),
      ...(family !== undefined && { family: { name: family, parameters } }),
    };
  });
  return { kind: "plan", boundaries };
}

function checkFamily(name: string, parameters: Readonly<Record<string, number>>, where: string): void {
  if (!familyNames.includes(name)) {
    throw new FishyError(`${where}: there is no family '${name}'. Families: ${familyNames.join(", ")}.`);
  }
  try {
    familyByName(name, parameters);
  } catch (error) {
    throw new FishyError(`${where}: ${(error as Error).message}`);
  }
}
