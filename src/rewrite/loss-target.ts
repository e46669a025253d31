/** Deciding what the loss is taken of: the output and class axis of an appended loss, or the loss in the graph. */
import { FishyError } from "../errors.js";
import { type AppendedLossName, LOSS_NAMES, type LossName } from "../losses/loss.js";
import type { Dim, ValueType } from "../onnx/builder.js";
import { DataType, type GraphProto } from "../onnx/proto.js";
import { dataTypeName } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";

export interface LossChoice {
  /** Default: in-graph when the model's only output is a scalar. */
  readonly loss?: LossName;
  /** The output that the loss is taken of, or the in-graph loss; default the first output, or the only scalar one. */
  readonly output?: string;
  readonly classAxis?: number;
}

export type ResolvedLoss =
  | { readonly name: "in-graph"; readonly output: string }
  | { readonly name: AppendedLossName; readonly output: string; readonly type: ValueType; readonly classAxis: number };

/** @throws FishyError when no loss is given and none is in the graph, or when it does not fit the output. */
export function resolveLoss(graph: GraphProto, types: TypeMap, choice: LossChoice): ResolvedLoss {
  const outputs = graph.output.map((output) => output.name ?? "");
  const described = outputs.map((name) => `'${name}' ${describe(types.get(name))}`).join(", ");
  if (choice.output !== undefined && !outputs.includes(choice.output)) {
    throw new FishyError(`The model has no output '${choice.output}'. Its outputs are: ${described}.`);
  }
  const name = choice.loss ?? defaultLoss(outputs, types, described);
  if (name === "in-graph") {
    const scalars = outputs.filter((output) => isScalar(types.get(output)));
    const output = choice.output ?? scalars[0];
    if (output === undefined || !isScalar(types.get(output)) || (choice.output === undefined && scalars.length > 1)) {
      throw new FishyError(
        `--loss in-graph needs exactly one scalar float output, or --loss-output NAME; the model's outputs are: ${described}. ` +
          `Append a loss instead: --loss ${LOSS_NAMES.filter((loss) => loss !== "in-graph").join("|")}.`,
      );
    }
    return { name, output };
  }
  const output = choice.output ?? (outputs[0] as string);
  const type = types.get(output);
  if (!type?.shape || type.elemType !== DataType.FLOAT || type.shape.length === 0) {
    throw new FishyError(
      `--loss ${name} needs a float output with a batch dimension; '${output}' is ${describe(type)}. ` +
        (isScalar(type)
          ? "A scalar output is a loss already: use --loss in-graph."
          : "Choose another with --loss-output."),
    );
  }
  return { name, output, type, classAxis: name === "softmax-cross-entropy" ? classAxisOf(type, output, choice) : 1 };
}

function defaultLoss(outputs: readonly string[], types: TypeMap, described: string): LossName {
  if (outputs.length === 1 && isScalar(types.get(outputs[0] as string))) return "in-graph";
  throw new FishyError(
    `The model has no loss: its outputs are ${described}. Choose one with --loss: softmax-cross-entropy (class indices), ` +
      "sigmoid-cross-entropy (targets in [0, 1]), mean-squared-error (values), or in-graph when an output is a scalar loss.",
  );
}

/** Default: 1 for outputs of rank 2 and of rank 4 and more, the last for rank 3. */
function classAxisOf(type: ValueType, output: string, choice: LossChoice): number {
  const rank = type.shape?.length ?? 0;
  const chosen = choice.classAxis ?? (rank === 3 ? 2 : 1);
  const axis = chosen < 0 ? chosen + rank : chosen;
  if (rank < 2 || !Number.isInteger(axis) || axis < 1 || axis >= rank) {
    throw new FishyError(
      `softmax-cross-entropy needs an output [batch, …] with its classes on an axis from 1 to ${rank - 1}; ` +
        `'${output}' is ${describe(type)} and the class axis is ${chosen}. Set --class-axis, or choose another loss.`,
    );
  }
  if (type.shape?.[axis] === 1) {
    throw new FishyError(
      `softmax-cross-entropy over one class is always zero: axis ${axis} of '${output}' ${describe(type)} has size 1. Use --loss sigmoid-cross-entropy for a binary output.`,
    );
  }
  return axis;
}

function isScalar(type: ValueType | undefined): boolean {
  if (!type?.shape || (type.elemType !== DataType.FLOAT && type.elemType !== DataType.DOUBLE)) return false;
  return type.shape.length === 0 || (type.shape.length === 1 && type.shape[0] === 1);
}

/** Such as `float [batch, 10]`. */
export function describe(type: ValueType | undefined): string {
  if (!type) return "(not a tensor)";
  const dims = type.shape?.map((dim: Dim) => (dim === null ? "?" : String(dim))).join(", ");
  return `${dataTypeName(type.elemType)} ${dims === undefined ? "of unknown rank" : `[${dims}]`}`;
}
