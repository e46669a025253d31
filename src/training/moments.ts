/** Moments of the gradient that another program gathered: where Adam, and the graft of Shampoo, go on. */
import type { TrainingCheckpoint } from "../artifacts/checkpoint.js";
import type { NamedTensor } from "../data/safetensors.js";
import { FishyError } from "../errors.js";
import { readTensor } from "../onnx/external.js";
import type { DataType, TensorProto } from "../onnx/proto.js";
import { dimsOf } from "../onnx/tensor.js";
import type { OptimizerOptions } from "../optimizers/registry.js";

export interface Moments {
  /** Steps that they are averages of. */
  readonly steps: number;
  /** By `<parameter>/first` and `<parameter>/second`: running averages of g and g², not bias-corrected. */
  readonly tensors: ReadonlyMap<string, NamedTensor>;
}

/** The moments in a checkpoint of ONNX Runtime; undefined when it holds no first and second ones. */
export async function momentsOf(checkpoint: TrainingCheckpoint): Promise<Moments | undefined> {
  const [group, ...others] = checkpoint.optimizerGroups;
  if (!group || group.step === 0 || group.moments.size === 0) return undefined;
  if (others.some(({ step }) => step !== group.step)) {
    throw new FishyError(
      "The checkpoint's optimizer groups are at different steps, which one optimizer cannot go on from. Delete its optimizer state.",
    );
  }
  const tensors = new Map<string, NamedTensor>();
  const load = async (key: string, tensor: TensorProto) => {
    const data = await readTensor(checkpoint, tensor);
    tensors.set(key, { type: tensor.dataType as DataType, dims: dimsOf(tensor), data });
  };
  for (const { moments } of checkpoint.optimizerGroups) {
    for (const [parameter, own] of moments) {
      const [first, second] = [own.get("momentum0"), own.get("momentum1")];
      if (!first || !second) return undefined;
      await load(`${parameter}/first`, first);
      await load(`${parameter}/second`, second);
    }
  }
  return { steps: group.step, tensors };
}

/**
 * Which moment a state of an optimizer starts from.
 * @param options those of the state's parameter.
 * @returns the key in `Moments.tensors`, or undefined for a state that starts as the optimizer says.
 */
export function momentOfState(state: string, options: OptimizerOptions | undefined): string | undefined {
  // SOAP's second moment is that of another basis.
  if (options?.name === "soap") return undefined;
  const slash = state.lastIndexOf("/");
  const [parameter, kind] = [state.slice(0, slash), state.slice(slash + 1)];
  if (kind === "exp_avg") return `${parameter}/first`;
  if (kind === "exp_avg_sq") return `${parameter}/second`;
  if (!options || !("graft" in options)) return undefined;
  // A sum of squares, or squares of normalized gradients, are other quantities.
  if (kind === "graft" && (options.graft === "adam" || options.graft === "rmsprop")) return `${parameter}/second`;
  const averagesGradients = options.momentumOrder === "before" && options.momentumKind === "ema";
  return kind === "momentum" && averagesGradients ? `${parameter}/first` : undefined;
}
