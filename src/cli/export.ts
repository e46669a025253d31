/** `fishy export RUN -o MODEL.onnx`: the trained inference model. */
import { Command } from "commander";
import { exportModel } from "../training/export.js";

interface ExportFlags {
  output: string;
  checkpoint?: string;
  json?: boolean;
}

export function exportCommand(): Command {
  return new Command("export")
    .description("write a run's trained model: the source model with its parameters replaced, nothing else changed")
    .argument("<run>", "the folder of a run")
    .requiredOption("-o, --output <file>", "where to write the model")
    .option("--checkpoint <dir>", "take the parameters of this checkpoint instead of the newest")
    .option("--json", "print the written paths as JSON")
    .action(async (run: string, flags: ExportFlags) => {
      const { checkpoint } = flags;
      const saved = await exportModel(run, flags.output, { ...(checkpoint !== undefined && { checkpoint }) });
      const text = `Wrote ${saved.path}${saved.dataPath ? ` and ${saved.dataPath}` : ""}`;
      process.stdout.write(`${flags.json ? JSON.stringify(saved) : text}\n`);
    });
}
