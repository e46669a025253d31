/** Search spaces: which options are searched, over which values. */
import { z } from "zod";
import { UsageError } from "../errors.js";
import { parseOptions } from "../optimizers/options.js";

const finite = z.number({ error: "must be a number" });
const range = z
  .tuple([finite, finite], { error: "must be two numbers, [LOWEST, HIGHEST]" })
  .refine(([low, high]) => low < high, { error: "must be [LOWEST, HIGHEST], the lowest first" });
const positiveRange = range.refine(([low]) => low > 0, { error: "must be above 0 for a logarithmic scale" });
const integers = ([low, high]: readonly [number, number]) => Number.isInteger(low) && Number.isInteger(high);
const whole = { error: "must be whole numbers" };

const dimension = z.union(
  [
    z.strictObject({ uniform: range }),
    z.strictObject({ logUniform: positiveRange }),
    z.strictObject({
      oneMinusLogUniform: positiveRange.refine(([, high]) => high <= 1, { error: "must be at most 1" }),
    }),
    z.strictObject({ integer: range.refine(integers, whole) }),
    z.strictObject({ logInteger: positiveRange.refine(integers, whole) }),
    z.strictObject({ choice: z.array(z.json()).min(1) }),
  ],
  {
    error:
      "must be one of { uniform: [A, B] }, { logUniform: [A, B] } (A above 0), { oneMinusLogUniform: [A, B] } (up to 1), { integer: [A, B] }, { logInteger: [A, B] }, { choice: [VALUE, …] }, with A below B",
  },
);

const space = z.record(z.string().min(1), dimension).refine((all) => Object.keys(all).length > 0, {
  error: "must name at least one option",
});

/**
 * Values of an option: uniform; uniform in the logarithm; 1 − x with x uniform in the logarithm, for decays near 1;
 * whole numbers, both ends included, alike or by their logarithm; one of a list.
 */
export type Dimension = z.output<typeof dimension>;
/** The searched options by their names in the configuration, nested ones with dots: `optimizer.learningRate`. */
export type SearchSpace = Readonly<Record<string, Dimension>>;
/** What JSON can hold. */
export type Value = z.output<ReturnType<typeof z.json>>;
/** One value for each searched option. */
export type Values = Readonly<Record<string, Value>>;

/** @throws UsageError naming each wrong entry. */
export function parseSpace(value: unknown, what: string): SearchSpace {
  return parseOptions(space, value, what);
}

/** The values at a point of the unit cube, whose coordinates follow the order of the space's names. */
export function valuesAt(space: SearchSpace, point: readonly number[]): Values {
  return Object.fromEntries(
    Object.entries(space).map(([name, dimension], i) => [name, valueAt(dimension, point[i] as number)]),
  );
}

/** @param u in [0, 1]. */
export function valueAt(dimension: Dimension, u: number): Value {
  if ("uniform" in dimension) return rounded(between(dimension.uniform, u), dimension.uniform);
  if ("logUniform" in dimension) return rounded(logBetween(dimension.logUniform, u), dimension.logUniform);
  if ("oneMinusLogUniform" in dimension) {
    const bounds = dimension.oneMinusLogUniform;
    // 1 − 0.9 is 0.09999999999999998.
    return Number((1 - rounded(logBetween(bounds, u), bounds)).toPrecision(12));
  }
  if ("integer" in dimension) return integerBetween(dimension.integer, (a, b) => between([a, b + 1], u));
  if ("logInteger" in dimension) return integerBetween(dimension.logInteger, (a, b) => logBetween([a, b + 1], u));
  const { choice } = dimension;
  return choice[Math.min(choice.length - 1, Math.floor(u * choice.length))] as Value;
}

/**
 * One value for each end of every range and for every choice, the other options in the middle: what must be valid for
 * a search to make sense.
 */
export function corners(space: SearchSpace): Values[] {
  const names = Object.keys(space);
  return Object.values(space).flatMap((dimension, i) => {
    const count = "choice" in dimension ? dimension.choice.length : 2;
    const places = Array.from({ length: count }, (_, k) => ("choice" in dimension ? (k + 0.5) / count : k));
    return places.map((place) =>
      valuesAt(
        space,
        names.map((_, j) => (j === i ? place : 0.5)),
      ),
    );
  });
}

/** Where a value lies in its dimension, in [0, 1]: the inverse of `valueAt`, the middle of a whole number's or a choice's share. */
export function placeOf(dimension: Dimension, value: Value): number {
  const x = Number(value);
  const linear = ([a, b]: readonly [number, number], at: number) => (at - a) / (b - a);
  const logarithmic = ([a, b]: readonly [number, number], at: number) => Math.log(at / a) / Math.log(b / a);
  if ("uniform" in dimension) return linear(dimension.uniform, x);
  if ("logUniform" in dimension) return logarithmic(dimension.logUniform, x);
  if ("oneMinusLogUniform" in dimension) return logarithmic(dimension.oneMinusLogUniform, 1 - x);
  if ("integer" in dimension) return linear([dimension.integer[0] - 0.5, dimension.integer[1] + 0.5], x);
  if ("logInteger" in dimension) return logarithmic([dimension.logInteger[0], dimension.logInteger[1] + 1], x + 0.5);
  const found = dimension.choice.findIndex((choice) => JSON.stringify(choice) === JSON.stringify(value));
  return (found + 0.5) / dimension.choice.length;
}

/**
 * A configuration with values in their places. Names are applied from the shortest on, so that a choice between whole
 * optimizers comes before the options inside of the chosen one.
 * @throws UsageError when a name leads into something that holds no options.
 */
export function withValues(config: Readonly<Record<string, unknown>>, values: Values): Record<string, unknown> {
  const result = structuredClone(config) as Record<string, unknown>;
  const byDepth = Object.entries(values).sort(([a], [b]) => a.split(".").length - b.split(".").length);
  for (const [name, value] of byDepth) {
    const path = name.split(".");
    const last = path.pop() as string;
    let target = result;
    for (const key of path) {
      // `optimizer: adam` is short for its name.
      const inner = key === "optimizer" && typeof target[key] === "string" ? { name: target[key] } : target[key];
      if (inner !== undefined && (typeof inner !== "object" || inner === null || Array.isArray(inner))) {
        throw new UsageError(`The searched option '${name}' lies in '${key}', which is ${JSON.stringify(inner)}.`);
      }
      target[key] = inner ?? {};
      target = target[key] as Record<string, unknown>;
    }
    target[last] = structuredClone(value);
  }
  return result;
}

function between([a, b]: readonly [number, number], u: number): number {
  return a + (b - a) * u;
}

function logBetween([a, b]: readonly [number, number], u: number): number {
  return a * (b / a) ** u;
}

function integerBetween([a, b]: readonly [number, number], draw: (a: number, b: number) => number): number {
  return Math.min(b, Math.max(a, Math.floor(draw(a, b))));
}

/** Four digits of the range, so that a value can be read and typed, unless that leaves the bounds. */
function rounded(value: number, [a, b]: readonly [number, number]): number {
  const shared = Math.floor(Math.log10(Math.max(Math.abs(a), Math.abs(b)) / (b - a)));
  const short = Number(value.toPrecision(Math.min(17, 4 + Math.max(0, shared))));
  return short >= a && short <= b ? short : Math.min(b, Math.max(a, value));
}
