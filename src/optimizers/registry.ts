/** The optimizers by name. A new one is one file and one line here. */
import { z } from "zod";
import { messageOf, UsageError } from "../errors.js";
import { adamOptions, adamwOptions, createAdam } from "./adam.js";
import { withAveraging } from "./averaging.js";
import { withClipping } from "./clipping.js";
import { assignGroups, combine } from "./groups.js";
import type { Optimizer, ParameterSpec } from "./optimizer.js";
import { parseOptions } from "./options.js";
import type { RunLength } from "./schedules.js";
import { createSgd, sgdOptions } from "./sgd.js";
import { fimShampooOptions, fishyOptions, shampooOptions } from "./shampoo/options.js";
import { withPreset } from "./shampoo/presets.js";
import { createShampoo } from "./shampoo/shampoo.js";
import { soapOptions } from "./soap/options.js";
import { createSoap } from "./soap/soap.js";

export const optimizerOptions = z.discriminatedUnion("name", [
  adamOptions,
  adamwOptions,
  sgdOptions,
  shampooOptions,
  fimShampooOptions,
  fishyOptions,
  soapOptions,
]);

/** The options of any optimizer: its `name` and, all optional, its own. */
export type OptimizerOptions = z.input<typeof optimizerOptions>;
/** The name of an optimizer. */
export type OptimizerName = OptimizerOptions["name"];

const SCHEMAS = {
  adam: adamOptions,
  adamw: adamwOptions,
  sgd: sgdOptions,
  shampoo: shampooOptions,
  "fim-shampoo": fimShampooOptions,
  fishy: fishyOptions,
  soap: soapOptions,
} satisfies Record<OptimizerName, z.ZodType>;

/** The names of the optimizers. */
export const OPTIMIZER_NAMES = Object.keys(SCHEMAS) as OptimizerName[];

/** The schema of an optimizer's options, whose `.describe()` texts document them. */
export function optionsSchema(name: OptimizerName): z.ZodType {
  return SCHEMAS[name];
}

type ParsedOptions = z.output<typeof optimizerOptions>;

/**
 * Checks options and fills in the defaults.
 * @throws UsageError naming every wrong option, its value and what is allowed.
 */
export function parseOptimizerOptions(options: OptimizerOptions): ParsedOptions {
  const parsed = parseOne(options);
  for (const [i, group] of (parsed.groups ?? []).entries()) {
    try {
      groupOptions(options, group.options);
    } catch (error) {
      throw new UsageError(`Parameter group ${i}: ${messageOf(error)}`);
    }
  }
  return parsed;
}

function parseOne(options: OptimizerOptions): ParsedOptions {
  const name = (options as { name?: unknown } | undefined)?.name;
  if (typeof name !== "string" || !Object.hasOwn(SCHEMAS, name)) {
    throw new UsageError(`There is no optimizer ${JSON.stringify(name)}. Optimizers: ${OPTIMIZER_NAMES.join(", ")}.`);
  }
  return parseOptions(SCHEMAS[name as OptimizerName], withPreset(options), name) as ParsedOptions;
}

/** The options of a group: the optimizer's own with the group's on top, or those of another optimizer. */
function groupOptions(base: OptimizerOptions, overrides: Readonly<Record<string, unknown>>): ParsedOptions {
  for (const name of ["maxGradientNorm", "averageDecay", "groups"]) {
    if (Object.hasOwn(overrides, name)) throw new UsageError(`'${name}' applies to all parameters and not to a group.`);
  }
  const { maxGradientNorm: _norm, averageDecay: _decay, groups: _groups, ...own } = base;
  const other = overrides.name !== undefined && overrides.name !== base.name;
  // Another optimizer keeps the schedule alone; its other options have other meanings.
  const inherited = other ? { ...(own.schedule && { schedule: own.schedule }) } : own;
  return parseOne({ ...inherited, ...overrides } as OptimizerOptions);
}

/** The options that hold for each parameter: those of its group, or the optimizer's own. Frozen ones have none. */
export function optionsByParameter(
  options: OptimizerOptions,
  parameters: readonly ParameterSpec[],
): Map<string, ParsedOptions> {
  const parsed = parseOptimizerOptions(options);
  const groups = parsed.groups ?? [];
  const result = new Map<string, ParsedOptions>();
  for (const [i, members] of assignGroups(parameters, groups).entries()) {
    const group = groups[i];
    if (group?.frozen) continue;
    const own = group ? groupOptions(options, group.options) : parsed;
    for (const { name } of members) result.set(name, own);
  }
  return result;
}

/**
 * Makes an optimizer for a list of parameters.
 * @param options its name and options; what is left out has its default.
 * @param run the length of the run, for schedules that end with it or count in epochs.
 * @throws UsageError for options that are wrong.
 */
export function createOptimizer(
  options: OptimizerOptions,
  parameters: readonly ParameterSpec[],
  run: RunLength = {},
): Optimizer {
  const parsed = parseOptimizerOptions(options);
  const groups = parsed.groups ?? [];
  const assigned = assignGroups(parameters, groups);
  const rest = assigned[groups.length] as ParameterSpec[];
  const members = [
    ...(rest.length > 0 || groups.every((group) => group.frozen) ? [createOne(parsed, rest, run)] : []),
    ...groups.flatMap((group, i) =>
      group.frozen ? [] : [createOne(groupOptions(options, group.options), assigned[i] as ParameterSpec[], run)],
    ),
  ];
  let optimizer = combine(parsed.name, members);
  if (parsed.maxGradientNorm !== undefined) optimizer = withClipping(optimizer, parsed.maxGradientNorm);
  if (parsed.averageDecay !== undefined) optimizer = withAveraging(optimizer, parsed.averageDecay);
  return optimizer;
}

function createOne(options: ParsedOptions, parameters: readonly ParameterSpec[], run: RunLength): Optimizer {
  switch (options.name) {
    case "adam":
    case "adamw":
      return createAdam(options, parameters, run);
    case "sgd":
      return createSgd(options, parameters, run);
    case "shampoo":
    case "fim-shampoo":
    case "fishy":
      return createShampoo(options, parameters, run);
    case "soap":
      return createSoap(options, parameters, run);
  }
}
