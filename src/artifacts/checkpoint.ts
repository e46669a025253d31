/** What a checkpoint of ONNX Runtime's training API holds, in whichever of its formats, and reading one. */
import { stat } from "node:fs/promises";
import { FishyError, messageOf } from "../errors.js";
import type { TensorProto } from "../onnx/proto.js";
import { isExternal } from "../onnx/tensor.js";
import { readFlatCheckpoint } from "./checkpoint-flat.js";
import { readSequenceCheckpoint } from "./checkpoint-sequence.js";

export interface TrainingCheckpoint {
  /** `flat`: one file, ONNX Runtime 1.16 and later; `sequence`: a folder of `.pbseq` files, 1.15 and earlier. */
  readonly format: "flat" | "sequence";
  /** Of the flat format: 1 or 2. */
  readonly version?: number;
  /** Names without values, for parameters that come from elsewhere. */
  readonly nominal: boolean;
  /** By name, in the file's order, which need not be the model's. */
  readonly trainable: ReadonlyMap<string, TensorProto>;
  readonly frozen: ReadonlyMap<string, TensorProto>;
  readonly optimizerGroups: readonly OptimizerGroup[];
  /** What the user's program kept: epochs, losses. int64 as bigint. */
  readonly properties: ReadonlyMap<string, bigint | number | string>;
  /** Where external data lies: the checkpoint's folder. */
  readonly directory: string;
}

/** ONNX Runtime makes one, `group0`. */
export interface OptimizerGroup {
  readonly name: string;
  /** Steps done. */
  readonly step: number;
  readonly learningRate: number;
  /** By parameter, then by `momentum0` (first moment) and `momentum1` (second moment, of AdamW). */
  readonly moments: ReadonlyMap<string, ReadonlyMap<string, TensorProto>>;
}

/**
 * Reads a checkpoint: a file or an older checkpoint's folder. Data in a sidecar (`<path>.data`) stays there, as external
 * tensors.
 * @throws FishyError when it is missing, no checkpoint, or damaged anywhere: nothing is loaded in part.
 */
export async function readCheckpoint(path: string): Promise<TrainingCheckpoint> {
  let isFolder: boolean;
  try {
    isFolder = (await stat(path)).isDirectory();
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw new FishyError(`Cannot read the checkpoint ${path}: ${missing ? "there is none" : messageOf(error)}.`);
  }
  return isFolder ? readSequenceCheckpoint(path) : readFlatCheckpoint(path);
}

/** Every tensor with a value of its own: parameters and moments. */
function checkpointTensors(checkpoint: TrainingCheckpoint): TensorProto[] {
  return [
    ...checkpoint.trainable.values(),
    ...checkpoint.frozen.values(),
    ...checkpoint.optimizerGroups.flatMap(({ moments }) => [...moments.values()].flatMap((each) => [...each.values()])),
  ];
}

/** Whether any value lies in a sidecar. */
export function hasExternalData(checkpoint: TrainingCheckpoint): boolean {
  return checkpointTensors(checkpoint).some(isExternal);
}
