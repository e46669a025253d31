/** Configuration files of `fishy train`: the options in JSON or YAML. Flags win over them. */
import { readFileSync } from "node:fs";
import { dirname, isAbsolute, resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { FishyError, messageOf, UsageError } from "../errors.js";
import { LOSS_NAMES } from "../losses/loss.js";
import { number, parseOptions } from "../optimizers/options.js";
import { isPlanFile } from "./model-options.js";

/** Everything that says how a source model becomes a program, as a file writes it. */
const modelConfig = z.strictObject({
  loss: z.enum(LOSS_NAMES).optional(),
  lossOutput: z.string().optional(),
  targetInput: z.string().optional(),
  classAxis: z.number().int().optional(),
  sections: z.string().optional(),
  score: z.enum(["paper", "centred"]).optional(),
  draw: z.enum(["exact", "fast", "two-point", "expected"]).optional(),
  sampledShare: number({ min: 0, openMin: true, max: 1 }).optional(),
  freeze: z.array(z.string()).optional(),
  trainBatchNorm: z.boolean().optional(),
  straightThrough: z.boolean().optional(),
  trainable: z.array(z.string()).optional(),
});

/** `rewrite` holds the options of `fishy rewrite`, `optimizer` a name or a name and options; the rest are run options. */
const trainConfig = z.looseObject({
  model: z.string().optional(),
  out: z.string().optional(),
  rewrite: modelConfig.optional(),
  optimizer: z.union([z.string(), z.looseObject({ name: z.string() })]).optional(),
  data: z.union([z.string(), z.array(z.string())]).optional(),
});

export type TrainConfig = z.output<typeof trainConfig>;

/**
 * Reads a configuration file; relative paths of what is read are relative to its folder, `out` to the working folder.
 * @throws FishyError when it cannot be read or parsed; UsageError for options that are wrong.
 */
export function readConfig(path: string): TrainConfig {
  return parseConfig(readConfigFile(path), path);
}

/**
 * The options in a file, unchecked.
 * @throws FishyError when it cannot be read or parsed; UsageError when it holds no options by name.
 */
export function readConfigFile(path: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new FishyError(`The configuration ${path} cannot be read: ${messageOf(error)}.`);
  }
  let value: unknown;
  try {
    // JSON is YAML.
    value = parse(text);
  } catch (error) {
    throw new FishyError(`The configuration ${path} is neither JSON nor YAML: ${messageOf(error).split(":\n")[0]}.`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UsageError(`The configuration ${path} must hold options by name, such as 'optimizer: fishy'.`);
  }
  return value as Record<string, unknown>;
}

/** Checks the options of a file and locates what they read, relative to its folder. */
export function parseConfig(value: unknown, path: string): TrainConfig {
  const config = parseOptions(trainConfig, value, path);
  const located = (source: string) => {
    const [, name = "", file = source] = /^([\w.-]+=)?(.+)$/.exec(source) ?? [];
    return `${name}${isAbsolute(file) ? file : resolve(dirname(path), file)}`;
  };
  const { model, data, rewrite, heldOut } = config as TrainConfig & { heldOut?: unknown };
  const isPaths = typeof heldOut === "string" || Array.isArray(heldOut);
  return {
    ...config,
    ...(model !== undefined && { model: located(model) }),
    ...(rewrite?.sections !== undefined &&
      isPlanFile(rewrite.sections) && { rewrite: { ...rewrite, sections: resolve(dirname(path), rewrite.sections) } }),
    ...(data !== undefined && { data: (typeof data === "string" ? [data] : data).map(located) }),
    ...(isPaths && { heldOut: [heldOut].flat().map((path) => located(String(path))) }),
  };
}

/** `--option shampoo.x=1` flags as nested options; values are JSON where they can be, text otherwise. */
export function parseAssignments(assignments: readonly string[]): Record<string, unknown> {
  const options: Record<string, unknown> = {};
  for (const assignment of assignments) {
    const at = assignment.indexOf("=");
    if (at < 1) throw new UsageError(`--option '${assignment}' must be NAME=VALUE, such as beta2=0.99.`);
    const path = assignment.slice(0, at).split(".");
    const last = path.pop() as string;
    let target = options;
    for (const key of path) {
      const inner = target[key] ?? {};
      if (typeof inner !== "object" || Array.isArray(inner)) {
        throw new UsageError(
          `--option '${assignment}' lies in '${key}', which another --option makes ${JSON.stringify(inner)}.`,
        );
      }
      target[key] = inner;
      target = inner as Record<string, unknown>;
    }
    target[last] = parseValue(assignment.slice(at + 1));
  }
  return options;
}

function parseValue(text: string): unknown {
  if (text === "Infinity" || text === "infinity") return Number.POSITIVE_INFINITY;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
