/** Options that say how a dataset fills a program's inputs: shared by train and eval. */
import type { Command } from "commander";
import type { Scale } from "../data/convert.js";
import { UsageError } from "../errors.js";

export interface DataFlags {
  input?: string[];
  scale?: string;
}

export function addDataOptions(command: Command): Command {
  return command
    .option("--input <mappings...>", "program input by dataset column: INPUT=COLUMN")
    .option("--scale <how>", "integers to floats: auto divides bytes by 255, none, or a factor");
}

export function dataOptionsOf({ input, scale }: DataFlags): { inputs?: Record<string, string>; scale?: Scale } {
  return {
    ...(input && { inputs: mappingsOf(input) }),
    ...(scale !== undefined && { scale: Number.isFinite(Number(scale)) ? Number(scale) : (scale as "auto" | "none") }),
  };
}

function mappingsOf(mappings: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    mappings.map((mapping) => {
      const at = mapping.indexOf("=");
      if (at < 1) throw new UsageError(`--input '${mapping}' must be INPUT=COLUMN.`);
      return [mapping.slice(0, at), mapping.slice(at + 1)];
    }),
  );
}
