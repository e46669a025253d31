/** Where the shared material lies: models and data may be copied into the project, artifacts are read in place. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { decodeSafetensors, type SafetensorsFile } from "../../src/data/safetensors.js";
import { decodeModel } from "../../src/onnx/codec.js";
import type { ModelProto } from "../../src/onnx/proto.js";

export const GRAPHS = resolve(import.meta.dirname, "../../graphs");
export const SHARED = resolve(import.meta.dirname, "../../../shared");
export const hasArtifacts = existsSync(join(SHARED, "artifacts"));

export interface Golden {
  readonly model: ModelProto;
  readonly golden: SafetensorsFile;
}

/** A PyTorch export of `graphs/pytorch`, or another folder of `graphs`, and PyTorch's own float64 loss and gradients. */
export function loadGolden(name: string, from = "pytorch"): Golden {
  const folder = join(GRAPHS, from, name);
  return {
    model: decodeModel(readFileSync(join(folder, "model.onnx")), name),
    golden: decodeSafetensors(readFileSync(join(folder, "golden.safetensors")), name),
  };
}
