/** `fishy report RUN…`: one HTML page with the curves, diagnostics and options of runs. */
import { join } from "node:path";
import { Command } from "commander";
import { findRuns } from "../report/find-runs.js";
import { writeReport } from "../report/report.js";

interface ReportFlags {
  output?: string;
  json?: boolean;
}

const DEFAULT_NAME = "report.html";

export function reportCommand(): Command {
  return new Command("report")
    .description("write one HTML page with the loss curves, diagnostics and options of runs")
    .argument("<runs...>", "folders of runs, each RUN or NAME=RUN, or folders that hold runs")
    .option(
      "-o, --output <file>",
      `where to write it; default ${DEFAULT_NAME} in the folder of a single run, else here`,
    )
    .option("--json", "print what the page sums up as JSON: the file, the runs' figures and the options that differ")
    .action(async (references: string[], flags: ReportFlags) => {
      const runs = findRuns(references);
      const [first] = runs;
      const output = flags.output ?? (runs.length === 1 && first ? join(first.directory, DEFAULT_NAME) : DEFAULT_NAME);
      const data = await writeReport(runs, output);
      if (!flags.json) {
        process.stdout.write(`Wrote ${output}\n`);
        return;
      }
      const shown = data.runs.map(({ name, optimizer, summary }, i) => ({
        name,
        directory: runs[i]?.directory,
        optimizer,
        ...summary,
      }));
      const options = data.options
        .filter((option) => option.differs)
        .map(({ name, values }) => [name, values] as const);
      const result = { output, runs: shown, differing: Object.fromEntries(options) };
      process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
    });
}
