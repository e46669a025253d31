/** `fishy rewrite MODEL -o OUT.onnx`: writes the training program. */
import { Command } from "commander";
import { saveModel } from "../onnx/model-file.js";
import { compareOperators } from "../onnx/opcount.js";
import type { Manifest } from "../rewrite/manifest.js";
import { rewrite } from "../rewrite/rewrite.js";
import { artifactRewriteOptions, isLoadedArtifacts, openSource } from "../training/source.js";
import { addModelOptions, type ModelFlags, rewriteOptionsOf } from "./model-options.js";
import { addSourceOptions, type SourceFlags, sourceOptionsOf } from "./source-options.js";
import { formatTable } from "./table.js";

interface RewriteFlags extends ModelFlags, SourceFlags {
  output: string;
  json?: boolean;
}

export function rewriteCommand(): Command {
  const command = new Command("rewrite")
    .description("add the loss, the gradients, local sampling and the sampled backward pass to a model")
    .argument("[model]", "an ONNX model, or a folder of ONNX Runtime's training artifacts")
    .requiredOption("-o, --output <file>", "where to write the training program")
    .option("--json", "print the manifest and operator counts as JSON");
  return addSourceOptions(addModelOptions(command)).action(async (path: string | undefined, flags: RewriteFlags) => {
    const source = await openSource(path, sourceOptionsOf(flags));
    const options = rewriteOptionsOf(flags);
    const program = await rewrite(
      source.proto,
      isLoadedArtifacts(source) ? artifactRewriteOptions(source, options) : options,
    );
    await saveModel({ proto: program.model, directory: source.directory }, flags.output);
    const { rows, total } = compareOperators(source.proto, program.model);
    if (flags.json) {
      const operators = Object.fromEntries(rows.map(({ operator, before, after }) => [operator, { before, after }]));
      process.stdout.write(
        `${JSON.stringify({ output: flags.output, manifest: program.manifest, operators }, null, 2)}\n`,
      );
      return;
    }
    process.stdout.write(
      `${[
        formatTable(
          ["operator", "before", "after"],
          [...rows, { operator: "total", ...total }].map(({ operator, before, after }) => [operator, before, after]),
        ),
        formatSections(program.manifest),
        `Wrote ${flags.output}`,
      ].join("\n\n")}\n`,
    );
  });
}

function formatSections({ sections, boundaries, parameters }: Manifest): string {
  if (sections.length === 0) return "Sections: none; nothing is sampled.";
  const sizes = new Map(parameters.map(({ name, dims }) => [name, dims.reduce((product, dim) => product * dim, 1)]));
  return formatTable(
    ["section", "sampled at", "family", "parameters", "elements"],
    sections.map((section) => [
      section.name,
      section.boundaries.map((i) => boundaries[i]?.preActivation).join(", "),
      [...new Set(section.boundaries.map((i) => boundaries[i]?.family))].join(", "),
      section.parameters.length,
      section.parameters.reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0),
    ]),
  );
}
