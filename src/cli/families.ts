/** `fishy families [NAME…]`: densities, samples and moments of families, as a picture, a page, a table or JSON. */
import { Command } from "commander";
import { UsageError } from "../errors.js";
import { familyNames } from "../families/registry.js";
import { type FamilyPicture, type FamilyRequest, pictureFamilies } from "../report/families.js";
import { familiesFigure } from "../report/families-figure.js";
import { familiesPage } from "../report/families-page.js";
import { writePage } from "../report/page.js";
import { numbersOf } from "./data-options.js";
import { parseInteger } from "./model-options.js";
import { formatTable } from "./table.js";

interface FamiliesFlags {
  html?: string;
  svg?: string;
  at?: string;
  yhat?: string;
  samples: number;
  seed: number;
  json?: boolean;
}

/** What else families go by: the activation that they belong to. */
const ALIASES: Readonly<Record<string, string>> = { linear: "gaussian", identity: "gaussian", sigmoid: "bernoulli" };

/** Of which a picture does not tell more from. */
const MOST_SAMPLES = 1_000_000;

export function familiesCommand(): Command {
  return new Command("families")
    .description("show the densities, samples and moments of the families of activations")
    .argument("[names...]", "families, such as tanh or leaky-relu:alpha=0.1; default all")
    .option("--html <file>", "write a page with pictures and tables")
    .option("--svg <file>", "write the pictures; of tanh and leaky-relu, Figure 1 of the paper")
    .option("--at <numbers>", "pre-activations to show each family at, separated by commas; default -2,-1,0,1,2")
    .option("--yhat <numbers>", "activations to show each family at, instead")
    .option("--samples <n>", "draws at each of them", parseInteger, 20_000)
    .option("--seed <n>", "seeds the draws", parseInteger, 0)
    .option("--json", "print densities, histograms and moments as JSON")
    .addHelpText("after", `\nFamilies: ${familyNames.map((name) => name.replaceAll("_", "-")).join(", ")}.`)
    .action(async (names: string[], flags: FamiliesFlags) => {
      const requests = names.length > 0 ? names.map(parseFamily) : familyNames.map((name) => ({ name }));
      if (flags.samples < 2 || flags.samples > MOST_SAMPLES) {
        throw new UsageError(`--samples ${flags.samples} must be at least 2 and at most ${MOST_SAMPLES}.`);
      }
      if (flags.at !== undefined && flags.yhat !== undefined) {
        throw new UsageError("--at and --yhat exclude each other: give pre-activations or activations.");
      }
      const { samples, seed } = flags;
      const pictures = await pictureFamilies(requests, {
        ...{ samples, seed },
        ...(flags.at !== undefined && { at: pointsOf("--at", flags.at) }),
        ...(flags.yhat !== undefined && { yhat: pointsOf("--yhat", flags.yhat) }),
      });
      if (flags.svg !== undefined) writePage(flags.svg, familiesFigure(pictures));
      if (flags.html !== undefined) writePage(flags.html, familiesPage(pictures, samples));
      const files = [flags.svg, flags.html].filter((file) => file !== undefined);
      const text = flags.json
        ? JSON.stringify({ samples, seed, families: pictures })
        : files.length > 0
          ? files.map((file) => `Wrote ${file}`).join("\n")
          : pictures.map(describe).join("\n\n");
      process.stdout.write(`${text}\n`);
    });
}

/** `leaky-relu:alpha=0.1`. */
function parseFamily(text: string): FamilyRequest {
  const [head = "", ...rest] = text.split(":");
  const written = head.replaceAll("-", "_").toLowerCase();
  const name =
    ALIASES[written] ?? familyNames.find((known) => known.replaceAll("_", "") === written.replaceAll("_", ""));
  if (name === undefined) {
    const known = familyNames.map((family) => family.replaceAll("_", "-")).join(", ");
    throw new UsageError(`There is no family '${head}'. Families: ${known}.`);
  }
  const assignments = rest.join(":").split(",").filter(Boolean);
  const parameters = assignments.map((assignment): [string, number] => {
    const [, key, value] = /^([a-z]+)=(.+)$/i.exec(assignment) ?? [];
    if (key === undefined || value === undefined || !Number.isFinite(Number(value))) {
      throw new UsageError(`'${text}': parameters of a family are NAME=NUMBER, such as leaky-relu:alpha=0.1.`);
    }
    return [key, Number(value)];
  });
  return { name, parameters: Object.fromEntries(parameters) };
}

function pointsOf(flag: string, text: string): number[] {
  const points = numbersOf(flag, text);
  if (points.length > 12) throw new UsageError(`${flag} takes at most 12 numbers; more cannot be told apart.`);
  return points;
}

function describe({ label, support, isDiscrete, grid, curves }: FamilyPicture): string {
  const [low, high] = support;
  const where = isDiscrete
    ? `{${grid.join(", ")}}`
    : `${low === null ? "(−∞" : `[${low}`}, ${high === null ? "∞)" : `${high}]`}`;
  // No "-0.0000".
  const digits = (value: number) => (Number(value.toFixed(4)) + 0).toFixed(4);
  return [
    `${label} on ${where}`,
    formatTable(
      ["a", "ŷ", "E[y]", "drawn", "± error", "sd", "drawn sd"],
      curves.map(({ a, yhat, mean, variance, sampled }) =>
        [a, yhat, mean, sampled.mean, sampled.meanError, Math.sqrt(variance), Math.sqrt(sampled.variance)].map(digits),
      ),
    ),
  ].join("\n");
}
