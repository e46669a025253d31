/** `rewrite --keep-backward`: artifacts whose own gradients stay, with the sampled backward pass added. */

import { type SampledOutputs, withSampledBackward } from "../artifacts/keep-backward.js";
import { type LoadedArtifacts, loadArtifacts, loadTrainingModel } from "../artifacts/load.js";
import { withoutUint32 } from "../artifacts/wide-integers.js";
import { FishyError } from "../errors.js";
import { withFields } from "../onnx/codec.js";
import { allNames } from "../onnx/graph.js";
import type { ModelProto } from "../onnx/proto.js";
import { inferTypes } from "../onnx/types.js";
import { toProgramOpset } from "../onnx/upgrade/upgrade.js";
import { type Manifest, writeManifest } from "../rewrite/manifest.js";
import { type RewriteOptions, rewrite } from "../rewrite/rewrite.js";
import { hasHalf } from "../rewrite/widen-half.js";
import { artifactRewriteOptions } from "./source.js";

export interface KeptBackward {
  /** In opset 18, with ONNX Runtime's training operators. */
  readonly model: ModelProto;
  readonly manifest: Manifest;
}

/**
 * Adds sampling and the sampled backward pass to `training_model.onnx`.
 * @throws FishyError without a training model, or when nothing is sampled.
 */
export async function keepBackward(
  artifacts: LoadedArtifacts,
  options: RewriteOptions = {},
  outputs: SampledOutputs = "outputs",
): Promise<KeptBackward> {
  const { training } = artifacts.files;
  if (training === undefined) throw new FishyError("--keep-backward needs the training_model.onnx.");
  const { proto } = await loadTrainingModel(training);
  // The same forward pass that the gradient nodes go back through, dropout masks included.
  const values = new Map(artifacts.proto.graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
  const forward = await loadArtifacts(
    { training, ...(artifacts.files.checkpoint !== undefined && { checkpoint: artifacts.files.checkpoint }) },
    { parameters: values, keepMasks: true },
  );
  if (hasHalf(forward.proto)) {
    throw new FishyError(
      "--keep-backward keeps the gradients as they are, and these are of half precision, while fishy samples in float32. Leave the option out, or export the model in float32.",
    );
  }
  const program = await rewrite(forward.proto, artifactRewriteOptions(forward, options));
  const sampled = new Map(
    program.manifest.parameters.flatMap(({ name, sampledGradient }): [string, string][] =>
      sampledGradient === undefined ? [] : [[name, sampledGradient]],
    ),
  );
  if (sampled.size === 0) {
    throw new FishyError(
      "--keep-backward adds the sampled backward pass, but nothing is sampled: choose other --sections.",
    );
  }
  const graph = withoutUint32(program.model.graph, await inferTypes(program.model));
  const model = withSampledBackward(
    await toProgramOpset(proto),
    {
      model: withFields(program.model, { graph }),
      seed: program.manifest.seed,
      parameters: [...forward.trainable, ...forward.frozen],
      sampled,
    },
    allNames(forward.proto.graph),
    outputs,
  );
  writeManifest(model, program.manifest);
  return { model, manifest: program.manifest };
}
