/** The optimizers by name. A new one is one file and one line here. */
import { z } from "zod";
import { UsageError } from "../errors.js";
import { adamOptions, adamwOptions, createAdam } from "./adam.js";
import type { Optimizer, ParameterSpec } from "./optimizer.js";
import { parseOptions } from "./options.js";
import type { RunLength } from "./schedules.js";
import { createSgd, sgdOptions } from "./sgd.js";
import { fimShampooOptions, fishyOptions, shampooOptions } from "./shampoo/options.js";
import { withPreset } from "./shampoo/presets.js";
import { createShampoo } from "./shampoo/shampoo.js";

export const optimizerOptions = z.discriminatedUnion("name", [
  adamOptions,
  adamwOptions,
  sgdOptions,
  shampooOptions,
  fimShampooOptions,
  fishyOptions,
]);

/** The options of any optimizer: its `name` and, all optional, its own. */
export type OptimizerOptions = z.input<typeof optimizerOptions>;
export type OptimizerName = OptimizerOptions["name"];

const SCHEMAS = {
  adam: adamOptions,
  adamw: adamwOptions,
  sgd: sgdOptions,
  shampoo: shampooOptions,
  "fim-shampoo": fimShampooOptions,
  fishy: fishyOptions,
} satisfies Record<OptimizerName, z.ZodType>;

export const OPTIMIZER_NAMES = Object.keys(SCHEMAS) as OptimizerName[];

/** The schema of an optimizer's options, whose `.describe()` texts document them. */
export function optionsSchema(name: OptimizerName): z.ZodType {
  return SCHEMAS[name];
}

/**
 * Checks options and fills in the defaults.
 * @throws UsageError naming every wrong option, its value and what is allowed.
 */
export function parseOptimizerOptions(options: OptimizerOptions): z.output<typeof optimizerOptions> {
  const name = (options as { name?: unknown } | undefined)?.name;
  if (typeof name !== "string" || !Object.hasOwn(SCHEMAS, name)) {
    throw new UsageError(`There is no optimizer ${JSON.stringify(name)}. Optimizers: ${OPTIMIZER_NAMES.join(", ")}.`);
  }
  return parseOptions(SCHEMAS[name as OptimizerName], withPreset(options), name) as z.output<typeof optimizerOptions>;
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
  switch (parsed.name) {
    case "adam":
    case "adamw":
      return createAdam(parsed, parameters, run);
    case "sgd":
      return createSgd(parsed, parameters, run);
    case "shampoo":
    case "fim-shampoo":
    case "fishy":
      return createShampoo(parsed, parameters, run);
  }
}
