/** `fishy inspect MODEL`: what a model is made of, and what fishy could do with it. */
import { Command, Option } from "commander";
import type { LoadedArtifacts } from "../artifacts/load.js";
import { UsageError } from "../errors.js";
import type { Gpu } from "../placement/kernel-table.js";
import { outlinePage } from "../report/outline-page.js";
import { writePage } from "../report/page.js";
import { editablePlan } from "../rewrite/editable-plan.js";
import { familyLabel, inspectModel, type ModelDescription } from "../rewrite/inspect.js";
import { outlineModel } from "../rewrite/outline.js";
import { planSections } from "../rewrite/rewrite.js";
import type { Boundary, Section, SectionPlan } from "../sections/plan.js";
import { formatPlacement, reportPlacement } from "../training/placement-report.js";
import { artifactRewriteOptions, isLoadedArtifacts, openSource } from "../training/source.js";
import { printDiff } from "./diff.js";
import { addModelOptions, type ModelFlags, rewriteOptionsOf } from "./model-options.js";
import { formatSections } from "./sections-table.js";
import { addSourceOptions, type SourceFlags, sourceOptionsOf } from "./source-options.js";
import { formatCount, formatTable } from "./table.js";

export function inspectCommand(): Command {
  const command = new Command("inspect")
    .description("show inputs, parameters, layers, boundaries, families, and operators without a gradient")
    .argument("[model]", "an ONNX model, or a folder of ONNX Runtime's training artifacts")
    .option("--diff <models...>", "compare two models or training programs instead: nodes, plans, parameters' values")
    .option("--plan <file>", "write the boundaries and sections as YAML to edit, for --sections FILE")
    .option(
      "--html <file>",
      "write a page of the sections: what is sampled, what its gradient reaches, sizes and FLOPs",
    )
    .option(
      "--size <assignments...>",
      "symbolic dimensions as numbers, NAME=N; default 1 with --html, 64 (batch) and 16 with --device",
    )
    .addOption(
      new Option(
        "--device <gpu>",
        "tell instead which nodes of a training step would not run on a GPU, and why",
      ).choices(["cuda", "webgpu"]),
    )
    .option("--json", "print the description as JSON");
  return addSourceOptions(addModelOptions(command)).action(async (path: string | undefined, flags: InspectFlags) => {
    if (flags.diff) {
      await printDiff(path, flags.diff, flags.json ?? false);
      return;
    }
    const views = (["plan", "html", "device"] as const).filter((name) => flags[name] !== undefined);
    if (views.length > 1) {
      throw new UsageError(`${views.map((name) => `--${name}`).join(" and ")} are different views: give one of them.`);
    }
    if (flags.size && flags.html === undefined && flags.device === undefined) {
      throw new UsageError("--size is for --html and --device, which need numbers for symbolic dimensions.");
    }
    const source = await openSource(path, sourceOptionsOf(flags));
    const artifacts = isLoadedArtifacts(source) ? source : undefined;
    const options = rewriteOptionsOf(flags);
    const resolved = artifacts ? artifactRewriteOptions(artifacts, options) : options;
    const title = path ?? artifacts?.files.eval ?? artifacts?.files.training ?? "";
    if (flags.plan !== undefined) {
      const { text, plan } = await editablePlan(source.proto, { ...resolved, directory: source.directory }, title);
      writePage(flags.plan, text);
      const counts = { boundaries: plan.boundaries.length, sections: plan.sections.length };
      process.stdout.write(
        flags.json
          ? `${JSON.stringify({ plan: flags.plan, ...counts })}\n`
          : `Wrote ${flags.plan} (boundaries: ${counts.boundaries}, sections: ${counts.sections})\n`,
      );
      return;
    }
    if (flags.html !== undefined) {
      const options = { ...resolved, directory: source.directory };
      const outline = await outlineModel(source.proto, options, sizesOf(flags.size ?? []));
      writePage(flags.html, outlinePage(outline, title));
      process.stdout.write(flags.json ? `${JSON.stringify(outline, null, 2)}\n` : `Wrote ${flags.html}\n`);
      return;
    }
    if (flags.device !== undefined) {
      const report = await reportPlacement(source.proto, flags.device, resolved, sizesOf(flags.size ?? []));
      process.stdout.write(`${flags.json ? JSON.stringify(report, null, 2) : formatPlacement(report)}\n`);
      return;
    }
    const description = await inspectModel(source.proto, resolved);
    const plan =
      flags.sections === undefined
        ? undefined
        : await planSections(source.proto, { ...resolved, directory: source.directory });
    const text = flags.json
      ? JSON.stringify(
          {
            ...description,
            ...(plan && { sections: plan.sections.map((section) => describeSection(section, plan)) }),
            ...(artifacts && { artifacts: describeArtifacts(artifacts) }),
          },
          null,
          2,
        )
      : [
          ...(artifacts ? [formatArtifacts(artifacts)] : []),
          formatDescription(title, description),
          ...(plan ? [sectionsOf(plan, description)] : []),
        ].join("\n\n");
    process.stdout.write(`${text}\n`);
  });
}

function describeSection({ name, boundaries, parameters }: Section, plan: SectionPlan) {
  const sampledAt = boundaries.map((i) => {
    const { preActivation, family } = plan.boundaries[i] as Boundary;
    return { value: preActivation, family: familyLabel(family) };
  });
  return { name, sampledAt, parameters };
}

function sectionsOf({ sections, boundaries }: SectionPlan, { parameters }: ModelDescription): string {
  return formatSections(
    sections,
    boundaries.map(({ preActivation, family }) => ({ preActivation, family: familyLabel(family) })),
    new Map(parameters.map(({ name, elements }) => [name, elements])),
  );
}

/** `sequence=128`. */
function sizesOf(assignments: readonly string[]): Map<string, number> {
  return new Map(
    assignments.map((assignment) => {
      const [, name, size] = /^(.+)=(\d+)$/.exec(assignment) ?? [];
      if (name === undefined || Number(size) < 1) {
        throw new UsageError(`--size '${assignment}' must be NAME=N, such as sequence=128.`);
      }
      return [name, Number(size)];
    }),
  );
}

interface InspectFlags extends ModelFlags, SourceFlags {
  plan?: string;
  html?: string;
  size?: string[];
  diff?: string[];
  device?: Gpu;
  json?: boolean;
}

function describeArtifacts({ files, checkpoint, optimizer, trainable, frozen, outputs, notes }: LoadedArtifacts) {
  const groups = checkpoint?.optimizerGroups.map(({ name, step, learningRate, moments }) => ({
    name,
    step,
    learningRate,
    parameters: moments.size,
  }));
  return {
    files,
    ...(checkpoint && {
      checkpoint: {
        format: checkpoint.format,
        ...(checkpoint.version !== undefined && { version: checkpoint.version }),
        nominal: checkpoint.nominal,
        optimizerGroups: groups,
        // JSON has no integers of 64 bits.
        properties: Object.fromEntries(
          [...checkpoint.properties].map(([name, value]) => [name, typeof value === "bigint" ? Number(value) : value]),
        ),
      },
    }),
    ...(optimizer && { optimizer }),
    trainable,
    frozen,
    outputs,
    notes,
  };
}

function formatArtifacts({ files, checkpoint, optimizer, outputs, notes }: LoadedArtifacts): string {
  const format = checkpoint?.format === "flat" ? `ODTC, version ${checkpoint.version}` : "folder of .pbseq";
  const state = checkpoint?.optimizerGroups
    .map(
      ({ name, step, moments }) => `optimizer group '${name}' at step ${step}, moments of ${moments.size} parameters`,
    )
    .join("; ");
  return [
    files.model ? "A model with training_info" : "Training artifacts of ONNX Runtime",
    formatTable(
      ["", "file"],
      Object.entries(files).map(([kind, file]) => [kind, file]),
    ),
    ...(checkpoint ? [`Checkpoint: ${format}; ${state || "no optimizer state"}`] : []),
    ...(optimizer
      ? [
          `Optimizer: ${Object.entries(optimizer)
            .map(([key, value]) => (key === "name" ? value : `${key} ${value}`))
            .join(", ")}`,
        ]
      : []),
    `Outputs before the loss: ${outputs.join(", ")}`,
    ...notes,
  ].join("\n");
}

function formatDescription(path: string, model: ModelDescription): string {
  const elements = model.parameters.reduce((sum, parameter) => sum + parameter.elements, 0);
  const sections = [
    `${path}: opset ${model.opset}, ${formatCount(model.nodes)} nodes${model.producer && `, by ${model.producer}`}`,
    formatTable(
      ["", "name", "type"],
      [
        ...model.inputs.map(({ name, type }) => ["input", name, type]),
        ...model.outputs.map(({ name, type }) => ["output", name, type]),
      ],
    ),
    model.loss
      ? `Loss: ${model.loss.name} of '${model.loss.output}'`
      : "Loss: none in the graph. Choose one with --loss; the output's family follows from it.",
    `Parameters: ${formatCount(elements)} elements in ${model.parameters.length} tensors`,
    formatTable(
      ["parameter", "shape", "elements", "layer"],
      model.parameters.map(({ name, dims, elements: count, layer }) => [
        name,
        dims.join(" × ") || "scalar",
        count,
        layer ?? "",
      ]),
    ),
    `Layers: ${model.layers.length}, in the order of their boundaries`,
    formatTable(
      ["layer", "operator", "activation", "family", "boundary"],
      model.layers.map((layer) => [layer.name, layer.operator, layer.activation ?? "", layer.family, layer.boundary]),
    ),
  ];
  const notes = model.layers.filter((layer) => layer.note).map((layer) => `  ${layer.name}: ${layer.note}`);
  if (notes.length > 0) sections.push(`Notes:\n${notes.join("\n")}`);
  if (model.frozen.length > 0) sections.push(`Frozen: ${model.frozen.join(", ")}`);
  if (model.buffers.length > 0) sections.push(`Running statistics (not trained): ${model.buffers.join(", ")}`);
  sections.push(
    model.withoutGradient.length === 0
      ? "Every operator between the parameters and the loss has a gradient."
      : `Operators without a gradient:\n${model.withoutGradient.map(({ opType, name, reason }) => `  ${opType}  '${name}'${reason ? `: ${reason}.` : ""}`).join("\n")}`,
  );
  return sections.join("\n\n");
}
