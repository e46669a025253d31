/** docs/optimizers.md: every option of every optimizer, from the schemas that check them. */
import { z } from "zod";
import { OPTIMIZER_NAMES, optionsSchema } from "../../src/optimizers/registry.js";
import { scheduleOptions } from "../../src/optimizers/schedules.js";
import { PRESETS } from "../../src/optimizers/shampoo/presets.js";

interface Row {
  readonly name: string;
  readonly fallback: string;
  readonly allowed: string;
  readonly meaning: string;
}

/** The page, as tools/docs/options.mjs writes it. */
export function optimizersPage(): string {
  const shapes = new Map(OPTIMIZER_NAMES.map((name) => [name, shapeOf(optionsSchema(name))]));
  const all = [...shapes.values()];
  const shared = Object.keys(all[0] ?? {}).filter((key) =>
    all.every((shape) => shape[key] && describes(shape, all[0], key)),
  );
  const shampoo = shapes.get("shampoo") ?? {};
  const rowsOf = (shape: Record<string, z.ZodType>, skip: readonly string[]) =>
    Object.keys(shape)
      .filter((key) => key !== "name" && !skip.includes(key))
      .flatMap((key) => rows(key, shape[key] as z.ZodType));
  const parts = [
    HEAD,
    "## Options of every optimizer",
    SHARED,
    table(shared.filter((key) => key !== "name").flatMap((key) => rows(key, all[0]?.[key] as z.ZodType))).replace(
      "| `learningRate` | 0.001 |",
      `| \`learningRate\` | ${learningRates(shapes)} |`,
    ),
    "### `schedule`",
    SCHEDULE,
    ...scheduleOptions.options.flatMap((option) => {
      const shape = shapeOf(option);
      const kind = (shape.kind as z.ZodLiteral).value as string;
      return [`\`kind: ${kind}\`: ${option.description}`, table(rowsOf(shape, ["kind"]))];
    }),
  ];
  for (const name of ["adam", "adamw", "sgd", "soap"] as const) {
    const shape = shapes.get(name) ?? {};
    parts.push(`## \`${name}\``, optionsSchema(name).description ?? "", table(rowsOf(shape, shared)));
  }
  parts.push("## `shampoo`, `fim-shampoo` and `fishy`");
  const family = ["shampoo", "fim-shampoo", "fishy"] as const;
  parts.push(family.map((name) => `- \`${name}\`: ${optionsSchema(name).description}`).join("\n"));
  parts.push(SHAMPOO, table(rowsOf(shampoo, shared)), "### Presets", presets());
  return `${parts.join("\n\n")}\n`;
}

const HEAD = `# Optimizers and their options

<!-- Written by node tools/docs/options.mjs from src/optimizers; do not edit. -->

\`--optimizer NAME\` chooses one, \`-O OPTION=VALUE\` sets an option (nested names with dots: \`-O root.solver=newton\`), as does \`optimizer\` in a
configuration file or \`train({ optimizer: { name, … } })\`. A value outside its range is refused with what is allowed. θ is a parameter, g or G its
gradient, t the step from 1, lr the learning rate after the schedule.`;

const SHARED = `The gradient is the mean over the step's examples, over several batches with \`--accumulate N\`. Learning rates and intervals count steps.`;

const SCHEDULE = `What the learning rate is multiplied by. A schedule that ends needs the number of steps, which a run knows.`;

const SHAMPOO = `G names Google's \`scalable_shampoo\` (2022) and M Meta's \`distributed_shampoo\` (2026), where an option has another name or value there.
The order within a step: statistics, roots, direction, graft, weight decay and momentum as \`momentumOrder\` says.`;

/** The default learning rate, and those of the optimizers that have another. */
function learningRates(shapes: ReadonlyMap<string, Record<string, z.ZodType>>): string {
  const rates = [...shapes].map(
    ([name, shape]) => [name, unwrapped(shape.learningRate as z.ZodType).fallback] as const,
  );
  const [, usual] = rates[0] ?? [];
  return [String(usual), ...rates.filter(([, rate]) => rate !== usual).map(([name, rate]) => `${name}: ${rate}`)].join(
    "; ",
  );
}

/** Whether an option means the same for two optimizers: one that adds to it has a row of its own. */
function describes(
  shape: Record<string, z.ZodType>,
  other: Record<string, z.ZodType> | undefined,
  key: string,
): boolean {
  return shape[key]?.description === other?.[key]?.description;
}

function shapeOf(schema: z.ZodType): Record<string, z.ZodType> {
  return schema instanceof z.ZodObject ? (schema.shape as Record<string, z.ZodType>) : {};
}

/** A row for an option, and one for each of those inside it. */
function rows(name: string, schema: z.ZodType): Row[] {
  const { inner, fallback } = unwrapped(schema);
  const own: Row = {
    name,
    fallback: fallback === undefined ? "" : show(fallback),
    allowed: allowedOf(inner),
    meaning: schema.description ?? inner.description ?? "",
  };
  if (inner instanceof z.ZodObject) {
    return [
      { ...own, fallback: "", allowed: "an object" },
      ...Object.entries(shapeOf(inner)).flatMap(([key, option]) => rows(`${name}.${key}`, option)),
    ];
  }
  if (inner instanceof z.ZodArray && inner.element instanceof z.ZodObject) {
    return [
      { ...own, allowed: "a list of objects" },
      ...Object.entries(shapeOf(inner.element)).flatMap(([key, option]) => rows(`${name}[].${key}`, option)),
    ];
  }
  return [own];
}

function unwrapped(schema: z.ZodType): { inner: z.ZodType; fallback?: unknown } {
  let inner: z.ZodType = schema;
  let fallback: unknown;
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault || inner instanceof z.ZodOptional) {
    if (inner instanceof z.ZodDefault) fallback ??= inner.def.defaultValue;
    inner = inner.unwrap() as z.ZodType;
  }
  return { inner, fallback };
}

/** What a schema takes, in the words of its refusal. */
function allowedOf(schema: z.ZodType): string {
  if (schema instanceof z.ZodBoolean) return "`true`, `false`";
  if (schema instanceof z.ZodEnum) return schema.options.map((value) => `\`${value}\``).join(", ");
  if (schema instanceof z.ZodRecord) return "an object";
  const message = schema.safeParse(Symbol("no value")).error?.issues[0]?.message ?? "";
  return message.replace(/^must be /, "");
}

function show(value: unknown): string {
  if (typeof value === "number" && value > 0 && value < 0.001) return value.toExponential().replace("e-", "e−");
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean"
    ? String(value)
    : JSON.stringify(value).replaceAll('"', "").replaceAll(":", ": ").replaceAll(",", ", ");
}

function table(list: readonly Row[]): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  return [
    "| option | default | allowed | meaning |",
    "| --- | --- | --- | --- |",
    ...list.map(
      ({ name, fallback, allowed, meaning }) => `| \`${name}\` | ${fallback} | ${cell(allowed)} | ${cell(meaning)} |`,
    ),
  ].join("\n");
}

/** Every value of every preset, beside fishy's own. */
function presets(): string {
  const shape = shapeOf(optionsSchema("shampoo"));
  const names = Object.keys(PRESETS) as (keyof typeof PRESETS)[];
  const flat = (values: object, prefix = ""): [string, unknown][] =>
    Object.entries(values).flatMap(([key, value]) =>
      typeof value === "object" && value !== null
        ? flat(value, `${prefix}${key}.`)
        : [[`${prefix}${key}`, value] as [string, unknown]],
    );
  const values = new Map(names.map((name) => [name, new Map(flat(PRESETS[name]))]));
  const set = [...new Set([...values.values()].flatMap((preset) => [...preset.keys()]))];
  const own = (key: string) => {
    const [outer, inside] = key.split(".") as [string, string | undefined];
    const schema = unwrapped(shape[outer] as z.ZodType);
    const option = inside === undefined ? schema : unwrapped(shapeOf(schema.inner)[inside] as z.ZodType);
    return option.fallback === undefined ? "" : show(option.fallback);
  };
  return [
    "`preset: google`, `meta` or `paper` starts from published settings (src/optimizers/shampoo/presets.ts says which); an empty cell is fishy's own value, and an option given beside the preset wins.",
    "",
    `| option | fishy's own | ${names.join(" | ")} |`,
    `| --- | --- | ${names.map(() => "---").join(" | ")} |`,
    ...set.map((key) => {
      const cells = names.map((name) => (values.get(name)?.has(key) ? show(values.get(name)?.get(key)) : ""));
      return `| \`${key}\` | ${own(key)} | ${cells.join(" | ")} |`;
    }),
  ].join("\n");
}
