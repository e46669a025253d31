/** `fishy inspect MODEL`: what a model is made of, and what fishy could do with it. */
import { Command } from "commander";
import { loadModel } from "../onnx/model-file.js";
import { inspectModel, type ModelDescription } from "../rewrite/inspect.js";
import { addModelOptions, type ModelFlags, rewriteOptionsOf } from "./model-options.js";
import { formatCount, formatTable } from "./table.js";

export function inspectCommand(): Command {
  const command = new Command("inspect")
    .description("show inputs, parameters, layers, boundaries, families, and operators without a gradient")
    .argument("<model>", "an ONNX model")
    .option("--json", "print the description as JSON");
  return addModelOptions(command).action(async (path: string, flags: ModelFlags & { json?: boolean }) => {
    const { proto } = await loadModel(path);
    const description = await inspectModel(proto, rewriteOptionsOf(flags));
    process.stdout.write(
      `${flags.json ? JSON.stringify(description, null, 2) : formatDescription(path, description)}\n`,
    );
  });
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
