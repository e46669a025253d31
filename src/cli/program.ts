/** The command line: `fishy COMMAND`. Exit code 1 for bad input, 2 for wrong usage. */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { FishyError, messageOf, UsageError } from "../errors.js";
import { completionCommand } from "./completion.js";
import { doctorCommand } from "./doctor.js";
import { evalCommand } from "./eval.js";
import { exportCommand } from "./export.js";
import { familiesCommand } from "./families.js";
import { initCommand } from "./init.js";
import { inspectCommand } from "./inspect.js";
import { reportCommand } from "./report.js";
import { rewriteCommand } from "./rewrite.js";
import { trainCommand } from "./train.js";
import { tuneCommand } from "./tune.js";

// Set before the runtime loads: official builds of ONNX Runtime upload usage data otherwise.
process.env.ORT_DISABLE_TELEMETRY ??= "1";

export function createProgram(): Command {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return new Command("fishy")
    .description("Second-order training for ONNX models")
    .version(version)
    .showHelpAfterError("(add --help for the options)")
    .hook("preAction", (_, command) => refuseEmpty(command))
    .addCommand(inspectCommand())
    .addCommand(rewriteCommand())
    .addCommand(trainCommand())
    .addCommand(tuneCommand())
    .addCommand(evalCommand())
    .addCommand(exportCommand())
    .addCommand(reportCommand())
    .addCommand(familiesCommand())
    .addCommand(initCommand())
    .addCommand(doctorCommand(version))
    .addCommand(completionCommand());
}

/** An empty text comes from a variable of the shell that is not set; it would be read as 0, or as this folder. */
function refuseEmpty(command: Command): void {
  const isEmpty = (value: unknown) => [value].flat().some((text) => typeof text === "string" && text.trim() === "");
  const option = command.options.find((one) => isEmpty(command.getOptionValue(one.attributeName())));
  if (option) throw new UsageError(`${option.long ?? option.flags} is given an empty text.`);
  const index = command.processedArgs.findIndex(isEmpty);
  if (index >= 0) throw new UsageError(`${command.registeredArguments[index]?.name()} is an empty text.`);
}

/** Runs the command line and returns the exit code. */
export async function run(argv: readonly string[]): Promise<number> {
  const program = createProgram();
  for (const command of [program, ...program.commands]) command.exitOverride();
  try {
    await program.parseAsync([...argv], { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof FishyError) {
      process.stderr.write(`fishy: ${error.message}\n`);
      return error.exitCode;
    }
    process.stderr.write(`fishy: ${process.env.FISHY_DEBUG ? (error as Error).stack : messageOf(error)}\n`);
    return 1;
  }
}
