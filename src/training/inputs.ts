/** What a training program wants to be fed. */
import type { WantedInput } from "../data/bind.js";
import { FishyError } from "../errors.js";
import type { DataType, TensorProto } from "../onnx/proto.js";
import { isExternal } from "../onnx/tensor.js";
import { declaredType } from "../onnx/types.js";
import type { TrainingProgram } from "../rewrite/manifest.js";

/** Names of the program's parameters and running statistics: what steps change. */
export function carriedNames({ manifest }: TrainingProgram): string[] {
  return [...manifest.parameters, ...manifest.runningStatistics].map(({ name }) => name);
}

/**
 * Initializers that are fed at every run instead of lying in the graph: the carried values, and frozen weights in
 * external files (a graph handed over in memory cannot point to files, nor pass 2 GB).
 */
export function fedTensors(program: TrainingProgram): TensorProto[] {
  const carried = new Set(carriedNames(program));
  return program.model.graph.initializer.filter((tensor) => carried.has(tensor.name ?? "") || isExternal(tensor));
}

/** The inputs that data must fill: everything but what fishy itself feeds and initializers. */
export function wantedInputs(program: TrainingProgram): WantedInput[] {
  const { model, manifest } = program;
  const own = new Set([manifest.seed, ...model.graph.initializer.map((tensor) => tensor.name ?? "")]);
  return model.graph.input
    .filter((info) => !own.has(info.name ?? ""))
    .map((info) => {
      const name = info.name ?? "";
      const type = declaredType(info);
      if (!type) throw new FishyError(`The input '${name}' of the program is no tensor; fishy cannot feed it.`);
      const isLossTarget = name === manifest.loss.target;
      const { classes } = manifest.loss;
      return {
        name,
        type: type.elemType as DataType,
        shape: type.shape,
        // An autoencoder's input is its own target, and wants the examples, not the labels.
        isTarget: isLossTarget && !manifest.inputs.includes(name),
        ...(isLossTarget && classes !== undefined && { classes }),
      };
    });
}
