/** Options that name training artifacts file by file. */
import type { Command } from "commander";
import type { SourceOptions } from "../training/source.js";

export interface SourceFlags {
  trainingModel?: string;
  evalModel?: string;
  optimizerModel?: string;
  checkpoint?: string;
  parameters?: string;
}

export function addSourceOptions(command: Command): Command {
  return command
    .option("--training-model <file>", "training_model.onnx of ONNX Runtime's training artifacts")
    .option("--eval-model <file>", "their eval_model.onnx")
    .option("--optimizer-model <file>", "their optimizer_model.onnx")
    .option("--checkpoint <path>", "their checkpoint: a file, or the folder of an older one")
    .option(
      "--parameters <file>",
      "parameter values for them: .safetensors, .onnx, or one flat float32 array (.npy, .bin)",
    );
}

export function sourceOptionsOf(flags: SourceFlags): SourceOptions {
  const files = {
    ...(flags.trainingModel !== undefined && { training: flags.trainingModel }),
    ...(flags.evalModel !== undefined && { eval: flags.evalModel }),
    ...(flags.optimizerModel !== undefined && { optimizer: flags.optimizerModel }),
    ...(flags.checkpoint !== undefined && { checkpoint: flags.checkpoint }),
  };
  return { files, ...(flags.parameters !== undefined && { parameters: flags.parameters }) };
}
