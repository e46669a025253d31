/** The graph of a step as the bound engine runs it: all of it on WebGPU, but for what the host computes beforehand. */
import { capturedBy } from "../onnx/graph.js";
import { DataType, type ModelProto, type NodeProto } from "../onnx/proto.js";
import { tensorFromNumbers } from "../onnx/tensor.js";
import type { Optimizer, StepSchedule } from "../optimizers/optimizer.js";
import { toWebGpuModel, type WebGpuModel } from "../placement/webgpu-model.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { wantedInputs } from "./inputs.js";
import { buildStepGraph, type StepGraph } from "./step-graph.js";

export interface BoundGraph extends WebGpuModel {
  readonly graph: StepGraph;
  /** Hyperparameters that are constants of this graph, and their values. */
  readonly fixed: ReadonlyMap<string, number>;
}

export interface BoundGraphOptions {
  readonly parts: StepSchedule;
  /** Static shapes of the data inputs, batch axis first. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /**
   * The hyperparameters of a step. Those that choose a branch become constants: a branch that the graph knows costs
   * nothing; one that a tensor chooses makes the host wait for the device. Default: none becomes one.
   */
  readonly hyperparameters?: Readonly<Record<string, number>>;
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
  { parts, shapes, hyperparameters: values = {}, accepts }: BoundGraphOptions,
): Promise<BoundGraph> {
  const graph = buildStepGraph(program, optimizer, { parts, shapes, device: "webgpu" });
  const hyperparameters = new Map(graph.hyperparameters);
  const fixed = new Map<string, number>();
  for (const name of switchesOf(graph)) {
    const value = values[name];
    if (value === undefined) continue;
    fixInput(graph.model, graph.hyperparameters.get(name) as string, value);
    hyperparameters.delete(name);
    fixed.set(name, value);
  }
  const hostInputs = [
    ...wantedInputs(program).map(({ name }) => name),
    program.manifest.seed,
    ...hyperparameters.values(),
  ];
  return { graph: { ...graph, hyperparameters }, fixed, ...(await toWebGpuModel(graph.model, hostInputs, accepts)) };
}

/** The hyperparameters that choose a branch by themselves: nothing else that is fed decides with them. */
function switchesOf({ model: { graph }, hyperparameters }: StepGraph): Set<string> {
  const producers = new Map(graph.node.flatMap((node) => node.output.map((output) => [output, node] as const)));
  const constants = new Set(graph.initializer.map(({ name }) => name ?? ""));
  const byInput = new Map([...hyperparameters].map(([name, input]) => [input, name]));
  const switches = new Set<string>();
  for (const node of graph.node) {
    if (node.opType !== "If") continue;
    const sources = sourcesOf(node.input[0] as string, producers).filter((name) => !constants.has(name));
    const names = sources.map((input) => byInput.get(input));
    if (names.includes(undefined)) continue;
    for (const name of names as string[]) switches.add(name);
  }
  return switches;
}

/** The inputs and initializers of the graph that a value is computed from. */
function sourcesOf(value: string, producers: ReadonlyMap<string, NodeProto>): string[] {
  const seen = new Set<string>();
  const open = [value];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (name === "" || seen.has(name)) continue;
    seen.add(name);
    const node = producers.get(name);
    if (node) open.push(...node.input, ...capturedBy(node));
  }
  return [...seen].filter((name) => !producers.has(name));
}

function fixInput({ graph }: ModelProto, name: string, value: number): void {
  graph.input = graph.input.filter((info) => info.name !== name);
  graph.initializer.push(tensorFromNumbers(name, DataType.FLOAT, [], [value]));
}
