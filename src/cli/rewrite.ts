/** `fishy rewrite MODEL -o OUT.onnx`: writes the training program. */
import { Command, Option } from "commander";
import type { SampledOutputs } from "../artifacts/keep-backward.js";
import type { LoadedArtifacts } from "../artifacts/load.js";
import { polyfill } from "../artifacts/polyfill/polyfill.js";
import { inferenceOutputs } from "../artifacts/provenance.js";
import { type AlgorithmName, withTrainingInfo } from "../artifacts/training-info-writer.js";
import { UsageError } from "../errors.js";
import { float } from "../onnx/attributes.js";
import { withFields } from "../onnx/codec.js";
import { type OnnxModel, saveModel } from "../onnx/model-file.js";
import { compareOperators } from "../onnx/opcount.js";
import { elementCount } from "../onnx/tensor.js";
import { familyLabel } from "../rewrite/inspect.js";
import type { Manifest, TrainingProgram } from "../rewrite/manifest.js";
import { type RewriteOptions, rewrite } from "../rewrite/rewrite.js";
import { keepBackward } from "../training/keep-backward.js";
import { artifactRewriteOptions, isLoadedArtifacts, openSource } from "../training/source.js";
import { addModelOptions, type ModelFlags, rewriteOptionsOf } from "./model-options.js";
import { refuseOverwriting } from "./output-file.js";
import { formatSections } from "./sections-table.js";
import { addSourceOptions, type SourceFlags, sourceOptionsOf } from "./source-options.js";
import { formatTable } from "./table.js";

interface RewriteFlags extends ModelFlags, SourceFlags {
  output: string;
  trainingInfo?: AlgorithmName | true;
  keepBackward?: SampledOutputs | true;
  polyfill?: boolean;
  json?: boolean;
}

export function rewriteCommand(): Command {
  const command = new Command("rewrite")
    .description("add the loss, the gradients, local sampling and the sampled backward pass to a model")
    .argument("[model]", "an ONNX model, or a folder of ONNX Runtime's training artifacts")
    .requiredOption("-o, --output <file>", "where to write the training program")
    .addOption(
      new Option(
        "--training-info [algorithm]",
        "write ONNX's own form of a training step instead: a Gradient and an optimizer in training_info; default adam",
      ).choices(["adam", "adagrad", "momentum"]),
    )
    .addOption(
      new Option(
        "--keep-backward [how]",
        "keep the gradients of training artifacts and add the sampled ones, as outputs (default), in accumulation buffers, or both; for training builds of ONNX Runtime",
      ).choices(["outputs", "buffers", "both"]),
    )
    .option("--polyfill", "with --keep-backward: make the file run on inference builds, by model-local functions")
    .option("--json", "print the manifest and operator counts as JSON");
  return addSourceOptions(addModelOptions(command)).action(async (path: string | undefined, flags: RewriteFlags) => {
    refuseOverwriting(path, flags.output);
    const source = await openSource(path, sourceOptionsOf(flags));
    const options = rewriteOptionsOf(flags);
    if (flags.trainingInfo && flags.keepBackward) {
      throw new UsageError("--training-info and --keep-backward write different files: give one of them.");
    }
    if (flags.trainingInfo && flags.sections !== undefined) {
      throw new UsageError("--training-info writes a training step without samples: leave --sections out.");
    }
    if (flags.polyfill && !flags.keepBackward) {
      throw new UsageError("--polyfill needs --keep-backward: other programs have standard operators alone.");
    }
    if (flags.trainingInfo) {
      await writeTrainingInfo(source, options, flags.trainingInfo === true ? "adam" : flags.trainingInfo, flags.output);
      process.stdout.write(`Wrote ${flags.output}\n`);
      return;
    }
    const program = flags.keepBackward
      ? await keptBackward(source, options, flags)
      : await rewrite(source.proto, {
          ...(isLoadedArtifacts(source) ? artifactRewriteOptions(source, options) : options),
          directory: source.directory,
        });
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
        sectionsOf(program.manifest),
        `Wrote ${flags.output}`,
      ].join("\n\n")}\n`,
    );
  });
}

async function keptBackward(
  source: OnnxModel | LoadedArtifacts,
  options: RewriteOptions,
  { keepBackward: how, polyfill: polyfilled }: RewriteFlags,
): Promise<TrainingProgram> {
  if (!isLoadedArtifacts(source)) throw new UsageError("--keep-backward takes training artifacts.");
  const kept = await keepBackward(source, options, how === true ? "outputs" : how);
  return polyfilled ? { ...kept, model: await polyfill(kept.model) } : kept;
}

const LEARNING_RATES = { adam: 1e-3, adagrad: 1e-2, momentum: 1e-2 } as const;
/** Attributes as PyTorch's optimizers of these names have them by default, with a momentum of 0.9. */
const ATTRIBUTES = {
  adam: { alpha: float(0.9), beta: float(0.999), epsilon: float(1e-8), norm_coefficient: float(0) },
  adagrad: { epsilon: float(1e-10), norm_coefficient: float(0), decay_factor: float(0) },
  momentum: { alpha: float(0.9), beta: float(1), mode: "standard", norm_coefficient: float(0) },
} as const;

async function writeTrainingInfo(
  source: OnnxModel | LoadedArtifacts,
  options: RewriteOptions,
  algorithm: AlgorithmName,
  path: string,
): Promise<void> {
  const artifacts = isLoadedArtifacts(source) ? source : undefined;
  const { model, manifest } = await rewrite(source.proto, {
    ...(artifacts ? artifactRewriteOptions(artifacts, options) : options),
    sections: { kind: "none" },
    directory: source.directory,
  });
  const inGraph = manifest.loss.name === "in-graph" ? (artifacts?.loss ?? options.output) : undefined;
  const own = manifest.outputs.filter((name) => name !== inGraph);
  const lossOnly = withFields(model.graph, { output: [{ name: manifest.lossOutput }] });
  // A model whose only output is its loss returns what the loss is taken of.
  const outputs = artifacts?.outputs ?? (own.length > 0 ? own : inferenceOutputs(model, lossOnly, manifest.lossOutput));
  const proto = withTrainingInfo(
    withFields(model, { metadataProps: [] }),
    { loss: manifest.lossOutput, trainable: manifest.parameters.map(({ name }) => name), outputs },
    { algorithm, learningRate: LEARNING_RATES[algorithm], attributes: ATTRIBUTES[algorithm] },
  );
  await saveModel({ proto, directory: source.directory }, path);
}

function sectionsOf({ sections, boundaries, parameters }: Manifest): string {
  const sampledAt = boundaries.map(({ preActivation, family: name, familyParameters: parameters }) => ({
    preActivation,
    family: familyLabel({ name, parameters }),
  }));
  return formatSections(sections, sampledAt, new Map(parameters.map(({ name, dims }) => [name, elementCount(dims)])));
}
