/** The plan of a model as text to edit: what `fishy inspect --plan` writes and `--sections FILE` reads. */
import type { ModelProto } from "../onnx/proto.js";
import { dimsOf, elementCount } from "../onnx/tensor.js";
import { boundaryLayers, type SectionPlan } from "../sections/plan.js";
import { formatPlan } from "../sections/plan-file.js";
import { prepare } from "./prepare.js";
import { type RewriteOptions, sectionsOf } from "./rewrite.js";

/**
 * Plans the sections as `rewrite` would with the same options, as YAML.
 * @param model what to call the model in it.
 * @throws FishyError as `planSections` does.
 */
export async function editablePlan(
  source: ModelProto,
  options: RewriteOptions,
  model: string,
): Promise<{ text: string; plan: SectionPlan }> {
  const prepared = await prepare(source, options);
  const plan = sectionsOf(prepared, options.sections ?? { kind: "per-layer" });
  const elements = new Map(
    prepared.parameters.trainable.map((tensor) => [tensor.name ?? "", elementCount(dimsOf(tensor))]),
  );
  const candidates = prepared.output ? boundaryLayers(prepared.layers, prepared.output) : prepared.layers;
  return { text: formatPlan({ plan, candidates, elements, model }), plan };
}
