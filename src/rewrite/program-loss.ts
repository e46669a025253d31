/** The loss of a program: appended to the model, or recognised in it; its target, and the number of examples. */
import { FishyError } from "../errors.js";
import { lossByName } from "../losses/registry.js";
import type { GraphBuilder, ValueType } from "../onnx/builder.js";
import { GraphIndex } from "../onnx/graph.js";
import { DataType, type NodeProto } from "../onnx/proto.js";
import { tensorFromNumbers } from "../onnx/tensor.js";
import { emitLossWeight, lossReduction } from "./loss-reduction.js";
import type { ResolvedLoss } from "./loss-target.js";
import type { ManifestLoss } from "./manifest.js";
import type { PreparedModel } from "./prepare.js";
import type { RewriteOptions } from "./rewrite.js";

/** Output with the sum of the weights of the labels that an in-graph loss is the weighted mean over. */
const LOSS_WEIGHT = "loss_weight";

export interface ProgramLoss {
  /** Cotangents that start the true gradient. */
  readonly seeds: ReadonlyMap<string, string>;
  readonly activation: string | undefined;
  readonly manifest: ManifestLoss;
}

/**
 * Makes the loss an output of the program.
 * @throws FishyError for a target that does not fit, and for names that are taken.
 */
export function emitLoss(
  b: GraphBuilder,
  prepared: PreparedModel,
  loss: ResolvedLoss,
  options: RewriteOptions,
  batchSize: string,
): ProgramLoss {
  const { types } = prepared;
  const scalar: ValueType = { elemType: DataType.FLOAT, shape: [] };
  if (loss.name === "in-graph") {
    if (options.targetInput) {
      throw new FishyError(
        "--target-input has no meaning with --loss in-graph: the loss already reads its own inputs.",
      );
    }
    const type = types.get(loss.output) as ValueType;
    // A double or one-element loss becomes the program's float scalar.
    if (loss.output !== "loss" || type.shape?.length !== 0 || type.elemType !== DataType.FLOAT) {
      requireFreeName(b, "loss");
      const flat = type.shape?.length === 0 ? loss.output : b.reshape(loss.output, []);
      b.alias(type.elemType === DataType.FLOAT ? flat : b.cast(flat, DataType.FLOAT), "loss");
      b.output("loss", scalar);
    }
    const one = b.unique("cotangent");
    prepared.model.graph.initializer.push(
      tensorFromNumbers(one, type.elemType, type.shape?.length === 0 ? [] : [1], [1]),
    );
    const reduction = lossReduction(new GraphIndex(prepared.model.graph), types, loss.output, prepared.inputs);
    return {
      seeds: new Map([[loss.output, one]]),
      activation: undefined,
      manifest: {
        name: "in-graph",
        value: loss.output,
        ...(reduction.kind !== "unknown" && { reduction: reduction.kind }),
        ...(reduction.kind === "weighted" && { weight: declareLossWeight(b, reduction.node) }),
      },
    };
  }
  const definition = lossByName(loss.name);
  const target = targetOf(b, prepared, options, {
    loss,
    type: definition.targetType(loss.type, loss.classAxis),
    name: definition.targetName,
  });
  const emitted = definition.emit(b, { ...loss, target: target.name, targetType: target.type, batchSize });
  requireFreeName(b, "loss");
  b.alias(emitted.loss, "loss");
  b.output("loss", scalar);
  const classes = loss.type.shape?.[loss.classAxis];
  const isClassification = definition.targetName === "labels";
  return {
    seeds: new Map([[loss.output, emitted.cotangent]]),
    activation: emitted.activation,
    manifest: {
      name: loss.name,
      output: loss.output,
      target: target.name,
      reduction: "mean",
      ...(isClassification && { classAxis: loss.classAxis, ...(typeof classes === "number" && { classes }) }),
    },
  };
}

function declareLossWeight(b: GraphBuilder, node: NodeProto): string {
  requireFreeName(b, LOSS_WEIGHT);
  b.alias(emitLossWeight(b, node), LOSS_WEIGHT);
  b.output(LOSS_WEIGHT, { elemType: DataType.FLOAT, shape: [] });
  return LOSS_WEIGHT;
}

/** The target: a new input, or the input that `--target-input` names. */
export function targetOf(
  b: GraphBuilder,
  prepared: Pick<PreparedModel, "inputs" | "types">,
  options: Pick<RewriteOptions, "targetInput">,
  { loss, type: wanted, name: defaultName }: { loss: ResolvedLoss; type: ValueType; name: "labels" | "target" },
): { name: string; type: ValueType } {
  const name = options.targetInput;
  if (name === undefined) {
    requireFreeName(b, defaultName);
    return { name: b.input(defaultName, wanted), type: wanted };
  }
  const type = prepared.types.get(name);
  if (!prepared.inputs.includes(name) || !type) {
    throw new FishyError(
      `--target-input '${name}' is no input of the model. Its inputs are: ${prepared.inputs.join(", ")}. Leave the option out to add an input '${defaultName}'.`,
    );
  }
  const isInteger = type.elemType === DataType.INT64 || type.elemType === DataType.INT32;
  if ((wanted.elemType === DataType.INT64) !== isInteger || (!isInteger && type.elemType !== wanted.elemType)) {
    throw new FishyError(
      `--target-input '${name}' has the wrong element type for --loss ${loss.name}, which takes ${defaultName === "labels" ? "int64 class indices" : "float values"}.`,
    );
  }
  if (type.shape && wanted.shape && !compatible(type.shape, wanted.shape)) {
    throw new FishyError(
      `--target-input '${name}' has the shape [${type.shape.join(", ")}], but --loss ${loss.name} of '${loss.output}' needs [${wanted.shape.join(", ")}].`,
    );
  }
  return { name, type };
}

function compatible(a: NonNullable<ValueType["shape"]>, b: NonNullable<ValueType["shape"]>): boolean {
  return (
    a.length === b.length && a.every((dim, i) => typeof dim !== "number" || typeof b[i] !== "number" || dim === b[i])
  );
}

/** The number of examples, from the first dimension of the model's first input that has one: a float32 scalar. */
export function emitBatchSize(b: GraphBuilder, { inputs, types }: Pick<PreparedModel, "inputs" | "types">): string {
  for (const name of inputs) {
    const batch = types.get(name)?.shape?.[0];
    if (batch === undefined) continue;
    if (typeof batch === "number") return b.f32(batch);
    return b.squeeze(b.cast(b.op("Shape", [name], { start: 0, end: 1 }), DataType.FLOAT), [0]);
  }
  return b.f32(1);
}

/** @throws FishyError when the model has something of a name that the program needs. */
export function requireFreeName(b: GraphBuilder, name: string): void {
  if (!b.isTaken(name)) return;
  throw new FishyError(
    `The model has a value or node named '${name}', which the training program needs for its own. Rename it.`,
  );
}
