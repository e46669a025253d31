/** The graph of a step as the bound engine runs it: all of it on WebGPU, but for what the host computes beforehand. */
import type { ModelProto } from "../onnx/proto.js";
import { DataType } from "../onnx/proto.js";
import { tensorFromNumbers } from "../onnx/tensor.js";
import type { Optimizer, StepSchedule } from "../optimizers/optimizer.js";
import { toWebGpuModel, type WebGpuModel } from "../placement/webgpu-model.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { wantedInputs } from "./inputs.js";
import { buildStepGraph, type StepGraph } from "./step-graph.js";

export interface BoundGraph extends WebGpuModel {
  readonly graph: StepGraph;
}

export interface BoundGraphOptions {
  readonly parts: StepSchedule;
  /** Static shapes of the data inputs, batch axis first. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** Hyperparameters that are constants of this graph. */
  readonly fixed: ReadonlyMap<string, number>;
  /** See `toWebGpuModel`. */
  readonly accepts?: "defects";
}

/**
 * Builds the graph of a step for WebGPU.
 * @throws FishyError for what WebGPU cannot run (see `toWebGpuModel`).
 */
export async function buildBoundGraph(
  program: TrainingProgram,
  optimizer: Optimizer,
  { parts, shapes, fixed, accepts }: BoundGraphOptions,
): Promise<BoundGraph> {
  const graph = buildStepGraph(program, optimizer, { parts, shapes, device: "webgpu" });
  const hyperparameters = new Map(graph.hyperparameters);
  for (const [name, value] of fixed) {
    const input = hyperparameters.get(name);
    if (input === undefined) continue;
    fixInput(graph.model, input, value);
    hyperparameters.delete(name);
  }
  const hostInputs = [
    ...wantedInputs(program).map(({ name }) => name),
    program.manifest.seed,
    ...hyperparameters.values(),
  ];
  return { graph: { ...graph, hyperparameters }, ...(await toWebGpuModel(graph.model, hostInputs, accepts)) };
}

/**
 * The hyperparameters that choose a branch, and their values at a step. A branch that the graph knows costs nothing; one
 * that a tensor chooses makes the host wait for the device.
 */
export function switchesOf(optimizer: Optimizer, step: number): Map<string, number> {
  const values = Object.entries(optimizer.hyperparameters(step));
  return new Map(values.filter(([name]) => /(^|\/)preconditioning$/.test(name)));
}

function fixInput({ graph }: ModelProto, name: string, value: number): void {
  graph.input = graph.input.filter((info) => info.name !== name);
  graph.initializer.push(tensorFromNumbers(name, DataType.FLOAT, [], [value]));
}
