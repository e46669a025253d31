/** Which files a set of training artifacts consists of. */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FishyError, messageOf, UsageError } from "../errors.js";
import { loadModel } from "../onnx/model-file.js";
import { accumulatedParameters } from "./training-names.js";

/** Paths; `onnxruntime.training.artifacts.generate_artifacts` names them so, with an optional prefix. */
export interface ArtifactFiles {
  /** `training_model.onnx`: forward pass, loss, gradients, accumulation. */
  readonly training?: string;
  /** `eval_model.onnx`: forward pass and loss. */
  readonly eval?: string;
  /** `optimizer_model.onnx`. */
  readonly optimizer?: string;
  /** `checkpoint`: a file, or the folder that ONNX Runtime 1.15 and earlier wrote. */
  readonly checkpoint?: string;
  /** Instead of all of these: a model with ONNX's own training_info. */
  readonly model?: string;
}

const MODEL = /^(.*?)(training|eval|optimizer)_model\.onnx$/;
/** A nominal checkpoint is taken only where there is no other. */
const CHECKPOINTS = ["checkpoint", "checkpoint.ckpt", "nominal_checkpoint"];

/**
 * Whether `path` is a folder of training artifacts, or the training or eval model in one.
 * @returns false for what does not exist.
 */
export async function isArtifacts(path: string): Promise<boolean> {
  const info = await stat(path).catch(() => undefined);
  if (info?.isDirectory()) return (await readdir(path)).some((name) => MODEL.test(name) || name.endsWith("_model.ort"));
  if (info === undefined || !/(training|eval)_model\.onnx$/.test(basename(path))) return false;
  // Any model may have such a name.
  const { training, eval: evalModel, checkpoint } = await findArtifacts(path);
  if (checkpoint !== undefined || (training !== undefined && evalModel !== undefined)) return true;
  return training !== undefined && accumulatedParameters((await loadModel(training)).proto.graph).length > 0;
}

/**
 * The artifacts in a folder, or those that belong to a `training_model.onnx` or `eval_model.onnx`: of its folder and
 * prefix.
 * @throws FishyError when there is no model, or there are several sets; UsageError for a file of another name.
 */
export async function findArtifacts(path: string): Promise<ArtifactFiles> {
  let isFolder: boolean;
  let names: string[];
  try {
    isFolder = (await stat(path)).isDirectory();
    names = (await readdir(isFolder ? path : dirname(path))).sort();
  } catch (error) {
    throw new FishyError(`Cannot read ${path}: ${messageOf(error)}.`);
  }
  const folder = isFolder ? path : dirname(path);
  const prefixes = new Set<string>();
  for (const name of names) {
    const [, prefix, kind] = MODEL.exec(name) ?? [];
    if (prefix !== undefined && kind !== "optimizer") prefixes.add(prefix);
  }
  const own = MODEL.exec(basename(path))?.[1];
  if (!isFolder && own === undefined) {
    throw new UsageError(`${path} is neither a training_model.onnx nor an eval_model.onnx.`);
  }
  if (isFolder && prefixes.size !== 1) {
    if (prefixes.size > 1) {
      throw new FishyError(
        `${path} holds several sets of training artifacts, with the prefixes ${[...prefixes].map((prefix) => `'${prefix}'`).join(", ")}. Name the training_model.onnx of one.`,
      );
    }
    if (names.some((name) => name.endsWith("_model.ort"))) {
      throw new FishyError(
        `${path} holds artifacts in ONNX Runtime's own format (.ort), which cannot be rewritten. Use the .onnx files that they were made from (generate_artifacts with ort_format=False).`,
      );
    }
    throw new FishyError(
      `${path} holds no training artifacts: there is no training_model.onnx and no eval_model.onnx in it.`,
    );
  }
  const prefix = isFolder ? ([...prefixes][0] as string) : (own as string);
  const found = (name: string) => (names.includes(`${prefix}${name}`) ? join(folder, `${prefix}${name}`) : undefined);
  const checkpoint = CHECKPOINTS.map(found).find(Boolean);
  const files = {
    training: found("training_model.onnx"),
    eval: found("eval_model.onnx"),
    optimizer: found("optimizer_model.onnx"),
    checkpoint,
  };
  return Object.fromEntries(Object.entries(files).filter(([, file]) => file !== undefined));
}
