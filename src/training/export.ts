/**
 * The trained inference model: the source model with its parameters and running statistics replaced, Dropout and
 * BatchNormalization in inference mode, nothing else changed. A source that came from training artifacts is cut back to its own outputs.
 */
import { existsSync } from "node:fs";
import { inferenceModel } from "../artifacts/inference.js";
import { provenanceOf } from "../artifacts/provenance.js";
import type { NamedTensor } from "../data/safetensors.js";
import { FishyError } from "../errors.js";
import { withFields } from "../onnx/codec.js";
import type { ExternalSource } from "../onnx/external.js";
import { prune } from "../onnx/graph.js";
import { isHalf, narrow } from "../onnx/half.js";
import { inInferenceMode } from "../onnx/inference-mode.js";
import { mapTensors } from "../onnx/map-tensors.js";
import { loadModel, type SavedModel, saveModel } from "../onnx/model-file.js";
import { DataType, type ModelProto, type TensorProto } from "../onnx/proto.js";
import { dataTypeName, dimsOf } from "../onnx/tensor.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { averagedCheckpoint } from "./averages.js";
import { loadCheckpoint } from "./checkpoint.js";
import { RunDirectory } from "./run-directory.js";

/**
 * Replaces initializers by name.
 * @throws FishyError when a value has no initializer of its name, type and shape in the source.
 */
export function replaceInitializers(source: ModelProto, values: ReadonlyMap<string, NamedTensor>): ModelProto {
  const missing = new Set(values.keys());
  const model = mapTensors(source, (tensor, role) => {
    const name = tensor.name ?? "";
    const value = role === "initializer" ? values.get(name) : undefined;
    if (!value) return tensor;
    missing.delete(name);
    return withContents(tensor, value);
  });
  if (missing.size > 0) {
    throw new FishyError(
      `The source model has no initializers named ${[...missing].map((name) => `'${name}'`).join(", ")}, which were trained. It is not the model that the run started from.`,
    );
  }
  return model;
}

function withContents(tensor: TensorProto, trained: NamedTensor): TensorProto {
  const type = tensor.dataType ?? DataType.UNDEFINED;
  // What is of half precision in the source trained in float32.
  const value =
    isHalf(type) && trained.type === DataType.FLOAT
      ? { ...trained, type, data: narrow(type, trained.data as Float32Array) }
      : trained;
  if (tensor.dataType !== value.type || dimsOf(tensor).join() !== value.dims.join()) {
    throw new FishyError(
      `The source model's '${tensor.name}' is ${dataTypeName(tensor.dataType ?? 0)} [${dimsOf(tensor).join(", ")}], and the trained one ${dataTypeName(value.type)} [${value.dims.join(", ")}]. It is not the model that the run started from.`,
    );
  }
  const { data } = value;
  const copy = withFields(tensor, { rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) });
  for (const field of OTHER_CONTENTS) delete copy[field];
  return copy;
}

/** Where else a tensor's contents may stand. */
const OTHER_CONTENTS = ["floatData", "doubleData", "int32Data", "int64Data", "externalData", "dataLocation"] as const;

/**
 * The inference model of a program that was trained without its source: the program's forward pass.
 * @throws FishyError when the program's forward pass is not that of inference (dropout, batch statistics).
 */
export function forwardOf(program: TrainingProgram): ModelProto {
  const { manifest } = program;
  const graph = { ...program.model.graph, valueInfo: [] };
  graph.output = graph.output.filter((info) => manifest.outputs.includes(info.name ?? ""));
  prune(graph);
  const used = new Set(graph.node.flatMap((node) => node.input));
  if (manifest.runningStatistics.length > 0 || used.has(manifest.seed)) {
    throw new FishyError(
      "The training program's forward pass is that of training (dropout or batch statistics), so that no inference model can be cut out of it. Train the source model instead of the program.",
    );
  }
  // Initializers were made inputs so that they can be fed; an inference model has them as constants.
  const constants = new Set(graph.initializer.map((tensor) => tensor.name ?? ""));
  graph.input = graph.input.filter(({ name = "" }) => used.has(name) && !constants.has(name));
  return withFields(program.model, { graph, metadataProps: [] });
}

/** Writes the trained model. */
export async function saveTrained(
  run: RunDirectory,
  program: TrainingProgram & ExternalSource,
  values: ReadonlyMap<string, NamedTensor>,
  path: string,
): Promise<SavedModel> {
  if (existsSync(run.sourceFile)) {
    const source = await loadModel(run.sourceFile);
    const trained = replaceInitializers(source.proto, values);
    const provenance = provenanceOf(trained);
    const proto = provenance ? await inferenceModel(trained, provenance.outputs) : inInferenceMode(trained);
    return saveModel({ proto, directory: source.directory }, path);
  }
  const proto = replaceInitializers(forwardOf(program), values);
  return saveModel({ proto, directory: program.directory }, path);
}

/** What is exported. */
export interface ExportOptions {
  /** Which checkpoint's parameters; default that of the best evaluation when the run keeps it, else the newest. */
  readonly checkpoint?: string;
  /** Take the running averages of the parameters (`averageDecay`); default whether the run evaluated them. */
  readonly averaged?: boolean;
}

/**
 * Writes the trained inference model of a run to `path`.
 * @throws FishyError when the folder holds no run or no whole checkpoint.
 */
export async function exportModel(directory: string, path: string, options: ExportOptions = {}): Promise<SavedModel> {
  const run = new RunDirectory(directory);
  const { averaged = run.readOptions().run.averaged ?? false } = options;
  const checkpoint = options.checkpoint ?? run.bestCheckpoint();
  const { state } = loadCheckpoint(checkpoint);
  const program = await run.readProgram();
  const model = averaged ? averagedCheckpoint(state, program.manifest.parameters, checkpoint) : state.model;
  return saveTrained(run, program, model, path);
}

/** Whether `run`'s trained model can be exported: it has its source, or its program's forward pass is that of inference. */
export function canExport(run: RunDirectory, program: TrainingProgram): boolean {
  if (existsSync(run.sourceFile)) return true;
  try {
    forwardOf(program);
    return true;
  } catch {
    return false;
  }
}
