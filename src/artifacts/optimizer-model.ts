/** What an `optimizer_model.onnx` does, as plain data. */
import { FishyError } from "../errors.js";
import { floatOf, intOf } from "../onnx/attributes.js";
import type { ModelProto } from "../onnx/proto.js";

/** Numbers as ONNX Runtime's optimizer nodes hold them (orttraining/core/graph/training_op_defs.cc). */
export type ArtifactOptimizer = AdamWModel | SgdModel;

interface Common {
  /** R, where the file says it; training artifacts take it as an input. */
  readonly learningRate?: number;
  /** `InplaceClipGradNorm`: gradients are scaled down to this norm over all of them. */
  readonly maxGradientNorm?: number;
}

export interface AdamWModel extends Common {
  readonly name: "adamw";
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** `adam_mode`: 0 as PyTorch, 1 as Hugging Face Transformers. */
  readonly mode: 0 | 1;
  readonly biasCorrection: boolean;
}

export interface SgdModel extends Common {
  readonly name: "sgd";
  readonly momentum?: number;
  readonly dampening?: number;
  readonly nesterov?: boolean;
  readonly weightDecay?: number;
}

/**
 * Reads an optimizer model.
 * @throws FishyError when it holds no optimizer that ONNX Runtime's artifacts have.
 */
export function readOptimizerModel(model: ModelProto, path = "the optimizer model"): ArtifactOptimizer {
  let clipping: Common = {};
  let optimizer: ArtifactOptimizer | undefined;
  for (const node of model.graph.node) {
    switch (node.opType) {
      case "AdamWOptimizer":
        optimizer = {
          name: "adamw",
          beta1: decimal(floatOf(node, "alpha", 0.9)),
          beta2: decimal(floatOf(node, "beta", 0.999)),
          epsilon: decimal(floatOf(node, "epsilon", 1e-8)),
          weightDecay: decimal(floatOf(node, "weight_decay", 1e-2)),
          mode: intOf(node, "adam_mode", 0) === 1 ? 1 : 0,
          biasCorrection: intOf(node, "correct_bias", 1) === 1,
        };
        break;
      case "SGDOptimizerV2":
        optimizer = { name: "sgd" };
        break;
      case "InplaceClipGradNorm":
        clipping = { maxGradientNorm: decimal(floatOf(node, "max_norm", 1)) };
        break;
    }
  }
  if (!optimizer) {
    const found = model.graph.node.map(({ opType }) => opType).join(", ");
    throw new FishyError(
      `${path} holds neither AdamWOptimizer nor SGDOptimizerV2, but ${found || "nothing"}. Choose an optimizer with --optimizer instead.`,
    );
  }
  return { ...optimizer, ...clipping };
}

/** The decimal number that a float32 attribute was written from: 0.999, not 0.9990000128746033. */
function decimal(value: number): number {
  return Number(Math.fround(value).toPrecision(7));
}
