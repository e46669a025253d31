/** How option objects are declared (zod) and refused: the message shows the option, the value and the allowed range. */
import { z } from "zod";
import { UsageError } from "../errors.js";

export interface Range {
  readonly min?: number;
  readonly max?: number;
  /** Whether the bound itself is excluded. */
  readonly openMin?: boolean;
  readonly openMax?: boolean;
  readonly integer?: boolean;
  /** Whether infinity is allowed. */
  readonly infinite?: boolean;
}

/** A number in a range. Not optional and without a default until `.default()` or `.optional()` is called on it. */
export function number(range: Range = {}): z.ZodType<number> {
  const inside = (value: unknown): value is number =>
    typeof value === "number" &&
    !Number.isNaN(value) &&
    (Number.isFinite(value) || range.infinite === true) &&
    (!range.integer || Number.isInteger(value) || (range.infinite === true && value === Number.POSITIVE_INFINITY)) &&
    (range.min === undefined || (range.openMin ? value > range.min : value >= range.min)) &&
    (range.max === undefined || (range.openMax ? value < range.max : value <= range.max));
  return z.custom<number>(inside, { error: `must be ${describeRange(range)}` });
}

function describeRange(range: Range): string {
  const kind = range.integer ? "an integer" : "a number";
  const { min, max } = range;
  const infinite = range.infinite ? " or infinity" : "";
  if (min !== undefined && max !== undefined) {
    return `${kind} in ${range.openMin ? "(" : "["}${min}, ${max}${range.openMax ? ")" : "]"}${infinite}`;
  }
  if (min !== undefined) return `${kind} ${range.openMin ? "above" : "of at least"} ${min}${infinite}`;
  if (max !== undefined) return `${kind} ${range.openMax ? "below" : "of at most"} ${max}${infinite}`;
  return `${kind}${infinite}`;
}

/** A default, described. zod's own `.default().describe()` in one call, so that option tables read as tables. */
export function option<T>(type: z.ZodType<T>, fallback: T, description: string) {
  // zod asks for the input type of the default; the options here have equal input and output types.
  return (type as z.ZodType<T, T>).default(fallback as never).describe(description);
}

/**
 * Parses options against their schema.
 * @param what names the options in a message, such as `adam`.
 * @throws UsageError that lists every wrong option with its value and what is allowed.
 */
export function parseOptions<S extends z.ZodType>(schema: S, input: unknown, what: string): z.output<S> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw new UsageError(result.error.issues.map((issue) => describeIssue(issue, schema, input, what)).join("\n"));
}

function describeIssue(issue: z.core.$ZodIssue, schema: z.ZodType, input: unknown, what: string): string {
  if (issue.code === "unrecognized_keys") {
    const known = schemaAt(schema, issue.path);
    const where = issue.path.length > 0 ? `${issue.path.join(".")} of ${what}` : what;
    const list = known instanceof z.ZodObject ? ` Known options: ${Object.keys(known.shape).join(", ")}.` : "";
    return `${where} has no option ${issue.keys.map((key) => `'${key}'`).join(", ")}.${list}`;
  }
  const name = issue.path.length > 0 ? `Option '${issue.path.join(".")}' of ${what}` : `The options of ${what}`;
  if (issue.code === "invalid_value") {
    return `${name} must be ${issue.values.map((value) => JSON.stringify(value)).join(", ")}; got ${show(valueAt(input, issue.path))}.`;
  }
  return `${name} ${lowerFirst(issue.message)}; got ${show(valueAt(input, issue.path))}.`;
}

function schemaAt(schema: z.ZodType, path: readonly PropertyKey[]): z.ZodType | undefined {
  let current: z.ZodType | undefined = schema;
  for (const key of [...path, undefined]) {
    while (current instanceof z.ZodDefault || current instanceof z.ZodPrefault || current instanceof z.ZodOptional) {
      current = current.unwrap() as z.ZodType;
    }
    if (key === undefined || !(current instanceof z.ZodObject)) break;
    current = current.shape[key as string] as z.ZodType | undefined;
  }
  return current;
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], input);
}

function show(value: unknown): string {
  if (typeof value === "number") return String(value);
  return JSON.stringify(value) ?? String(value);
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
