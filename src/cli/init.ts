/** `fishy init MODEL -o OUT`: the model with fresh parameters. */
import { Command } from "commander";
import { UsageError } from "../errors.js";
import { loadModel, saveModel } from "../onnx/model-file.js";
import { type InitializeOptions, initializeParameters } from "../training/init/initialize.js";
import { parseScheme, SCHEME_SYNTAX } from "../training/init/schemes.js";
import { parseInteger } from "./model-options.js";
import { refuseOverwriting } from "./output-file.js";
import { formatTable } from "./table.js";

interface InitFlags {
  output: string;
  scheme?: string;
  only?: string[];
  keep?: string[];
  seed: number;
  json?: boolean;
}

export function initCommand(): Command {
  return new Command("init")
    .description("write the model with its parameters initialised anew: weights by a scheme, biases 0, scales 1")
    .argument("<model>", "an ONNX model or training program")
    .requiredOption("-o, --output <file>", "where to write it")
    .option("--scheme <scheme>", `${SCHEME_SYNTAX}; default glorot`)
    .option(
      "--only <patterns...>",
      "initialise these parameters alone: PATTERN or PATTERN=SCHEME, names with * and ?; the last that fits decides",
    )
    .option("--keep <patterns...>", "parameters that stay as they are")
    .option("--seed <n>", "seeds the draws", parseInteger, 0)
    .option("--json", "print what was initialised as JSON")
    .action(async (path: string, flags: InitFlags) => {
      const options = optionsOf(flags);
      refuseOverwriting(path, flags.output);
      const { proto, directory } = await loadModel(path);
      const { proto: fresh, parameters, unknown } = initializeParameters(proto, options);
      const saved = await saveModel({ proto: fresh, directory }, flags.output);
      if (flags.json) {
        process.stdout.write(`${JSON.stringify({ output: saved.path, parameters, unknown }, null, 2)}\n`);
        return;
      }
      const rows = parameters.map(({ name, dims, scheme, fanIn, fanOut }) => [
        ...[name, dims.join(" × ") || "scalar", scheme],
        ...[fanIn, fanOut].map((fan) => (fan === null ? "" : String(fan))),
      ]);
      const left =
        unknown.length > 0
          ? `\n\nLeft as they are, since no operator tells what they are: ${unknown.join(", ")}. To initialise one: --only NAME=normal:0.02.`
          : "";
      process.stdout.write(
        `${formatTable(["parameter", "shape", "scheme", "fan in", "fan out"], rows)}${left}\n\nWrote ${saved.path}${saved.dataPath ? ` and ${saved.dataPath}` : ""}\n`,
      );
    });
}

function optionsOf({ scheme, only, keep, seed }: InitFlags): InitializeOptions {
  return {
    seed,
    ...(scheme !== undefined && { scheme: parseScheme(scheme) }),
    ...(only && { only: only.map(parseOnly) }),
    ...(keep && { keep }),
  };
}

/** The pattern may hold a `=` itself: the scheme is what follows the last. */
function parseOnly(text: string): { pattern: string; scheme?: ReturnType<typeof parseScheme> } {
  const at = text.lastIndexOf("=");
  if (at < 0) return { pattern: text };
  if (at === 0) throw new UsageError(`--only '${text}' must be PATTERN or PATTERN=SCHEME.`);
  return { pattern: text.slice(0, at), scheme: parseScheme(text.slice(at + 1)) };
}
