/** `fishy export RUN -o FILE`: the trained inference model, or its parameters for other programs. */
import { extname } from "node:path";
import { Command, Option } from "commander";
import { exportModel } from "../training/export.js";
import { exportCheckpoint, exportSafetensors } from "../training/export-parameters.js";

interface ExportFlags {
  output: string;
  as?: "model" | "checkpoint" | "safetensors";
  checkpoint?: string;
  averaged?: boolean;
  json?: boolean;
}

export function exportCommand(): Command {
  return new Command("export")
    .description("write a run's trained model: the source model with its parameters replaced, in inference mode")
    .argument("<run>", "the folder of a run")
    .requiredOption("-o, --output <file>", "where to write it")
    .addOption(
      new Option(
        "--as <kind>",
        "model; checkpoint, which ONNX Runtime's training API loads; safetensors, the default for files of that ending",
      ).choices(["model", "checkpoint", "safetensors"]),
    )
    .option("--checkpoint <dir>", "take the parameters of this checkpoint instead of the newest")
    .option("--averaged", "take the averages of the parameters; default whether the run evaluated them")
    .option("--no-averaged", "take the parameters themselves")
    .option("--json", "print the written paths as JSON")
    .action(async (run: string, flags: ExportFlags) => {
      const { output } = flags;
      const options = {
        ...(flags.checkpoint !== undefined && { checkpoint: flags.checkpoint }),
        ...(flags.averaged !== undefined && { averaged: flags.averaged }),
      };
      const kind = flags.as ?? (extname(output) === ".safetensors" ? "safetensors" : "model");
      let saved: { path: string; dataPath?: string } = { path: output };
      if (kind === "model") saved = await exportModel(run, output, options);
      else if (kind === "checkpoint") await exportCheckpoint(run, output, options);
      else await exportSafetensors(run, output, options);
      const text = `Wrote ${saved.path}${saved.dataPath ? ` and ${saved.dataPath}` : ""}`;
      process.stdout.write(`${flags.json ? JSON.stringify(saved) : text}\n`);
    });
}
