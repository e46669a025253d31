/** What a loss is: it emits its value and, in closed form, its cotangent at the model's output. */
import type { Family } from "../families/family.js";
import type { GraphBuilder, ValueType } from "../onnx/builder.js";

/** The losses: three that are appended to a model, and `in-graph` for a model that ends in its loss. */
export const LOSS_NAMES = ["softmax-cross-entropy", "sigmoid-cross-entropy", "mean-squared-error", "in-graph"] as const;
/** The name of a loss. */
export type LossName = (typeof LOSS_NAMES)[number];
/** A loss that is appended to the model. */
export type AppendedLossName = Exclude<LossName, "in-graph">;

export interface LossInput {
  /** The model's output and its type; rank known. */
  readonly output: string;
  readonly type: ValueType;
  /** Labels or target values. */
  readonly target: string;
  /** Element type of the target. */
  readonly targetType: ValueType;
  /** The axis of the classes, counted from the front. */
  readonly classAxis: number;
  /** Number of examples in the batch: a float32 scalar. */
  readonly batchSize: string;
}

export interface EmittedLoss {
  /** Float32 scalar. */
  readonly loss: string;
  /** d loss / d output, of the output's shape. */
  readonly cotangent: string;
  /** The output layer's activation (softmax, sigmoid), which the cotangent needs anyway. */
  readonly activation?: string;
}

export interface Loss {
  readonly name: AppendedLossName;
  /** The name of the input that it adds: `labels` for class indices, `target` for values. */
  readonly targetName: "labels" | "target";
  /** The family of the output layer that the loss implies: its negative log-likelihood is the loss. */
  family(classAxis: number): Family;
  /** The type of the target for an output of `type`. */
  targetType(type: ValueType, classAxis: number): ValueType;
  emit(b: GraphBuilder, input: LossInput): EmittedLoss;
}
