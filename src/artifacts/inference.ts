/** The inference model behind training artifacts: what ONNX Runtime's `export_model_for_inferencing` makes. */
import { FishyError } from "../errors.js";
import { valueInfo } from "../onnx/builder.js";
import { withFields } from "../onnx/codec.js";
import { prune } from "../onnx/graph.js";
import type { ModelProto } from "../onnx/proto.js";
import { inferTypes } from "../onnx/types.js";
import { toProgramOpset } from "../onnx/upgrade/upgrade.js";
import { isDefaultDomain } from "../onnx/versions.js";

/**
 * Cuts a model that came from artifacts back to `outputs`, Dropout and BatchNormalization as in inference.
 * @throws FishyError for an output that the model does not make.
 */
export async function inferenceModel(source: ModelProto, outputs: readonly string[]): Promise<ModelProto> {
  // One opset for all, in which the operators say themselves whether they train.
  const model = await toProgramOpset(source);
  const { graph } = model;
  const made = new Set(graph.node.flatMap((node) => node.output));
  const unknown = outputs.filter((name) => !made.has(name));
  if (unknown.length > 0 || outputs.length === 0) {
    throw new FishyError(
      outputs.length === 0
        ? "The model's own outputs are not known. Name them."
        : `The model makes no value named ${unknown.map((name) => `'${name}'`).join(", ")}, so it cannot be an output.`,
    );
  }
  const types = await inferTypes(model);
  graph.node = graph.node.map((node) => {
    if (!isDefaultDomain(node.domain)) return node;
    if (node.opType === "Dropout") {
      return withFields(node, { input: node.input.slice(0, 2), output: node.output.slice(0, 1) });
    }
    if (node.opType !== "BatchNormalization") return node;
    const attribute = node.attribute.filter(({ name }) => name !== "training_mode");
    return withFields(node, { output: node.output.slice(0, 1), attribute });
  });
  graph.output = outputs.map((name) => {
    const type = types.get(name);
    return type ? valueInfo(name, type) : { name };
  });
  graph.valueInfo = [];
  prune(graph);
  const used = new Set(graph.node.flatMap((node) => node.input));
  graph.input = graph.input.filter(({ name = "" }) => used.has(name));
  return withFields(model, { metadataProps: [] });
}
