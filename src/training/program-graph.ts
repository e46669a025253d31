/** Copies of a program's graph that runs are built around. */
import { emptyGraph, valueInfo } from "../onnx/builder.js";
import { importsOf } from "../onnx/contributed.js";
import { capturedBy, prune } from "../onnx/graph.js";
import type { GraphProto, ModelProto } from "../onnx/proto.js";
import { declaredType, tensorType } from "../onnx/types.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { productsForSmallMaps } from "../rewrite/small-maps.js";
import { softmaxLossForCpu } from "./cpu-loss.js";
import { reluMasksForCpu } from "./cpu-masks.js";
import { fedTensors } from "./inputs.js";
import { shiftsForDivisions } from "./shifts.js";

/**
 * The program's graph. What is fed at every run (carried values, and frozen weights that lie in external files) turns
 * from initializers into inputs; data inputs get static shapes.
 */
export function copyProgramGraph(program: TrainingProgram, shapes: ReadonlyMap<string, readonly number[]>): GraphProto {
  const source = program.model.graph;
  const fed = new Set(fedTensors(program).map((tensor) => tensor.name ?? ""));
  const own = new Set(source.initializer.map((tensor) => tensor.name ?? ""));
  const dataInputs = source.input.filter((info) => !own.has(info.name ?? ""));
  return {
    ...emptyGraph(source.name ?? "program"),
    node: [...source.node],
    initializer: source.initializer.filter((tensor) => !fed.has(tensor.name ?? "")),
    input: [
      ...dataInputs.map((info) => {
        const shape = shapes.get(info.name ?? "");
        const type = declaredType(info);
        return shape && type ? valueInfo(info.name ?? "", { elemType: type.elemType, shape }) : info;
      }),
      ...source.initializer
        .filter((tensor) => fed.has(tensor.name ?? ""))
        .map((tensor) => valueInfo(tensor.name ?? "", tensorType(tensor))),
    ],
    output: [...source.output],
  };
}

/** Leaves only what the outputs need, inputs included; on the CPU, in the forms that are fastest there. */
export function finishGraph(
  graph: GraphProto,
  { model }: TrainingProgram,
  device: "cpu" | "cuda" | "webgpu" = "cpu",
): void {
  prune(graph);
  if (device === "cpu") {
    shiftsForDivisions(graph);
    productsForSmallMaps(graph, model.graph);
    softmaxLossForCpu(graph);
    reluMasksForCpu(graph);
    prune(graph);
  }
  const used = new Set(graph.node.flatMap((node) => [...node.input, ...capturedBy(node)]));
  graph.input = graph.input.filter((info) => used.has(info.name ?? ""));
}

export function modelAround(graph: GraphProto, { model }: TrainingProgram): ModelProto {
  const { irVersion, opsetImport, functions } = model;
  return {
    ...(irVersion !== undefined && { irVersion }),
    producerName: "fishy",
    graph,
    opsetImport: importsOf(graph, opsetImport),
    functions,
    metadataProps: [],
    trainingInfo: [],
  };
}
