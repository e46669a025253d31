/** Runs a training program on the inputs of a golden file. */
import * as ort from "onnxruntime-node";
import type { NamedTensor } from "../../src/data/safetensors.js";
import { DataType } from "../../src/onnx/proto.js";
import type { TrainingProgram } from "../../src/rewrite/manifest.js";
import type { RewriteOptions } from "../../src/rewrite/rewrite.js";
import { type Feeds, runModel } from "./run.js";
import type { Golden } from "./shared.js";

const LOSSES = {
  softmax_cross_entropy: "softmax-cross-entropy",
  sigmoid_cross_entropy: "sigmoid-cross-entropy",
  mean_squared_error: "mean-squared-error",
  "in-graph": "in-graph",
} as const;

/** The loss that the golden file was made with. */
export function goldenLoss({ golden }: Golden): NonNullable<RewriteOptions["loss"]> {
  const loss = LOSSES[golden.metadata.loss as keyof typeof LOSSES];
  if (!loss) throw new Error(`unknown loss ${golden.metadata.loss}`);
  return loss;
}

export function toOrt({ type, dims, data }: NamedTensor): ort.Tensor {
  if (type === DataType.INT64) return new ort.Tensor("int64", data as BigInt64Array, [...dims]);
  if (type === DataType.BOOL) return new ort.Tensor("bool", data as Uint8Array, [...dims]);
  return new ort.Tensor("float32", Float32Array.from(data as Float64Array), [...dims]);
}

export function goldenFeeds({ golden }: Golden, program: TrainingProgram, seed = 1): Feeds {
  const feeds: Feeds = { seed: new ort.Tensor("int64", BigInt64Array.of(BigInt(seed)), []) };
  for (const [name, tensor] of golden.tensors) {
    if (name.startsWith("input/")) feeds[name.slice("input/".length)] = toOrt(tensor);
  }
  const { target } = program.manifest.loss;
  const values = golden.tensors.get("target");
  if (target && values) feeds[target] = toOrt(values);
  return feeds;
}

export async function runGolden(golden: Golden, program: TrainingProgram): Promise<Record<string, ort.Tensor>> {
  return runModel(program.model, goldenFeeds(golden, program));
}
