/** Opening what a user names as a model: an ONNX file, a training program, or ONNX Runtime's training artifacts. */
import { readFileSync } from "node:fs";
import { extname } from "node:path";
import { type ArtifactFiles, findArtifacts, isArtifacts } from "../artifacts/artifact-files.js";
import { type ArtifactOptions, type LoadedArtifacts, loadArtifacts } from "../artifacts/load.js";
import { withProvenance } from "../artifacts/provenance.js";
import { readTrainingInfo } from "../artifacts/training-info.js";
import { expandTrainingOperators, isTrainingOperator } from "../artifacts/training-operators.js";
import { decodeNpy } from "../data/npy.js";
import { decodeSafetensors, type NamedTensor } from "../data/safetensors.js";
import { FishyError, messageOf, UsageError } from "../errors.js";
import { readTensor } from "../onnx/external.js";
import { loadModel, type OnnxModel } from "../onnx/model-file.js";
import { DataType, type TensorProto } from "../onnx/proto.js";
import { dimsOf, tensorFromData } from "../onnx/tensor.js";
import type { OptimizerOptions } from "../optimizers/registry.js";
import type { RewriteOptions } from "../rewrite/rewrite.js";

export interface SourceOptions {
  /** Artifacts file by file; what is named here replaces what a folder holds. */
  readonly files?: ArtifactFiles;
  /** Parameter values for artifacts: safetensors, an ONNX model's initializers, or one flat float32 array (.npy, .bin). */
  readonly parameters?: string;
}

/**
 * Opens a model.
 * @param path an ONNX file, or a folder of training artifacts or one of its models; undefined when `files` tell all.
 * @throws FishyError when something is missing or damaged; UsageError for options without artifacts.
 */
export async function openSource(
  path: string | undefined,
  options: SourceOptions = {},
): Promise<OnnxModel | LoadedArtifacts> {
  const { files, parameters } = options;
  const named = files && Object.values(files).some((file) => file !== undefined);
  if (path !== undefined && !(await isArtifacts(path))) {
    if (named || parameters !== undefined) {
      throw new UsageError(
        `${path} is no folder of training artifacts, which alone have files and parameters of their own.`,
      );
    }
    const model = await loadModel(path);
    if (model.proto.trainingInfo.length > 0) return withTrainingStep(model);
    const hasTraining = model.proto.graph.node.some((node) => isTrainingOperator(node));
    return hasTraining ? { ...model, proto: await expandTrainingOperators(model.proto) } : model;
  }
  if (path === undefined && !named) throw new UsageError("No model is given.");
  const values = parameters === undefined ? {} : await readParameters(parameters);
  if (path === undefined) return loadArtifacts(files as ArtifactFiles, values);
  if (!named) return loadArtifacts(path, values);
  return loadArtifacts({ ...(await findArtifacts(path)), ...files }, values);
}

/** A model with ONNX's own training_info, as artifacts are. */
function withTrainingStep({ proto, path, directory }: OnnxModel): LoadedArtifacts {
  const { proto: forward, loss, trainable, outputs, optimizer, notes } = readTrainingInfo(proto);
  const provenance = { loss, outputs, trainable, frozen: [], steps: 0 };
  return {
    proto: withProvenance(forward, provenance),
    directory,
    loss,
    outputs,
    trainable,
    frozen: [],
    ...(optimizer && { optimizer }),
    files: { model: path },
    notes,
  };
}

export function isLoadedArtifacts(model: object): model is LoadedArtifacts {
  return "files" in model && "trainable" in model;
}

/** How artifacts are rewritten: their own loss, and what they train; the user's options win. */
export function artifactRewriteOptions(artifacts: LoadedArtifacts, options: RewriteOptions = {}): RewriteOptions {
  const own = options.loss === undefined || options.loss === "in-graph";
  return {
    ...(own && { loss: "in-graph", output: artifacts.loss }),
    trainable: artifacts.trainable,
    ...options,
  };
}

/**
 * The optimizer that `optimizer_model.onnx` describes; undefined without one.
 * @throws FishyError for one that fishy cannot do.
 */
export function artifactOptimizer(artifacts: LoadedArtifacts): OptimizerOptions | undefined {
  const { optimizer, checkpoint } = artifacts;
  if (!optimizer) return undefined;
  const clipping = optimizer.maxGradientNorm === undefined ? {} : { maxGradientNorm: optimizer.maxGradientNorm };
  // ONNX Runtime's own default.
  const learningRate = optimizer.learningRate ?? (checkpoint?.optimizerGroups[0]?.learningRate || 1e-3);
  if (optimizer.name === "sgd") {
    const { maxGradientNorm: _norm, ...own } = optimizer;
    return { ...own, learningRate, ...clipping } as OptimizerOptions;
  }
  if (!optimizer.biasCorrection) {
    throw new FishyError(
      "The artifacts' AdamW does without bias correction (correct_bias 0), which fishy's Adam does not offer. Choose an optimizer with --optimizer.",
    );
  }
  const { beta1, beta2, epsilon, weightDecay, mode } = optimizer;
  const variant = mode === 1 ? "transformers" : "pytorch";
  return { name: "adamw", variant, learningRate, beta1, beta2, epsilon, weightDecay, ...clipping } as OptimizerOptions;
}

async function readParameters(path: string): Promise<ArtifactOptions> {
  const extension = extname(path).toLowerCase();
  if (extension === ".onnx") {
    const model = await loadModel(path);
    const parameters = new Map<string, TensorProto>();
    for (const tensor of model.proto.graph.initializer) {
      const name = tensor.name ?? "";
      parameters.set(
        name,
        tensorFromData(name, tensor.dataType as DataType, dimsOf(tensor), await readTensor(model, tensor)),
      );
    }
    return { parameters };
  }
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new FishyError(`The parameters ${path} cannot be read: ${messageOf(error)}.`);
  }
  if (extension === ".safetensors") {
    const { tensors } = decodeSafetensors(bytes, path);
    return { parameters: new Map([...tensors].map(([name, tensor]) => [name, toProto(name, tensor)])) };
  }
  if (extension === ".npy") {
    const { type, data } = decodeNpy(bytes, path);
    if (type !== DataType.FLOAT) throw new FishyError(`The parameters ${path} are not float32.`);
    return { parameterBuffer: data as Float32Array };
  }
  if (extension === ".bin" && bytes.length % 4 === 0) {
    return { parameterBuffer: new Float32Array(Uint8Array.from(bytes).buffer) };
  }
  throw new UsageError(
    `--parameters ${path}: expected .safetensors, .onnx, or one flat float32 array (.npy, .bin of whole float32 numbers).`,
  );
}

export function toProto(name: string, { type, dims, data }: NamedTensor): TensorProto {
  return tensorFromData(name, type, dims, data);
}
