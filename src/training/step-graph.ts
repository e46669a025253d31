/**
 * The graph of one training step: the program's forward and backward pass and the optimizer's nodes in one graph, so
 * that gradients never leave the runtime. What a step does (statistics, roots) is decided when the graph is built; each
 * combination that the schedule asks for is a graph of its own, pruned to what it needs.
 */
import { FishyError } from "../errors.js";
import { GraphBuilder, type ValueType, valueInfo } from "../onnx/builder.js";
import { DataType, type ModelProto } from "../onnx/proto.js";
import { declaredType, tensorType } from "../onnx/types.js";
import type { Optimizer, StepResult, StepSchedule, StepValues } from "../optimizers/optimizer.js";
import { judgedByLoss } from "../rewrite/evaluation.js";
import { emitJudgement, type Judged, type JudgementOutputs } from "../rewrite/judgement.js";
import type { ManifestParameter, TrainingProgram } from "../rewrite/manifest.js";
import { Accumulators } from "./accumulation.js";
import { LOSS_SCALE } from "./precision.js";
import { copyProgramGraph, finishGraph, modelAround } from "./program-graph.js";

/** A graph and the names by which it is fed and read. Inputs that the graph does not read are absent. */
export interface StepGraph {
  readonly model: ModelProto;
  /** Graph input by optimizer state. */
  readonly stateInputs: ReadonlyMap<string, string>;
  /** Graph input by hyperparameter. */
  readonly hyperparameters: ReadonlyMap<string, string>;
  /** Graph inputs under their own names: data, seed, parameters, running statistics. */
  readonly inputs: ReadonlySet<string>;
  /** Graph output by parameter or running statistic. */
  readonly carried: ReadonlyMap<string, string>;
  /** Graph output by optimizer state. */
  readonly state: ReadonlyMap<string, string>;
  /** Graph input by accumulator (`batches` above 1). */
  readonly accumulators: ReadonlyMap<string, string>;
  /** Graph output with the weight of the last batch's loss, where several are taken together by their weights. */
  readonly lossWeight?: string;
  /** Graph output by metric: float scalars. */
  readonly metrics: ReadonlyMap<string, string>;
  /** Graph output by block metric: float vectors. */
  readonly blockMetrics: ReadonlyMap<string, string>;
}

export interface StepGraphOptions {
  readonly parts: StepSchedule;
  /** Static shapes of the data inputs, batch axis first. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** Batches whose gradients a step takes together, all but the last accumulated before (`accumulation.ts`). Default 1. */
  readonly batches?: number;
  /** Whether the step takes the program's statistics alone and leaves parameters as they are. Default false. */
  readonly statisticsOnly?: boolean;
  /** Where the graph runs; `cpu` by default, which alone has shifts. */
  readonly device?: "cpu" | "cuda" | "webgpu";
}

const SCALAR: ValueType = { elemType: DataType.FLOAT, shape: [] };

/**
 * Builds the graph of a step, in the reference order: statistics from this step's gradient, roots from the new
 * statistics, the update with the new roots.
 */
export function buildStepGraph(program: TrainingProgram, optimizer: Optimizer, options: StepGraphOptions): StepGraph {
  const { manifest } = program;
  const graph = copyProgramGraph(program, options.shapes);
  const b = new GraphBuilder(graph);
  const newInput = (hint: string, type: ValueType): string => {
    const name = b.unique(hint);
    graph.input.push(valueInfo(name, type));
    return name;
  };
  const stateInputs = new Map<string, string>();
  const types = new Map<string, ValueType>();
  for (const spec of optimizer.state) {
    types.set(spec.name, { elemType: spec.type, shape: spec.dims });
    stateInputs.set(spec.name, newInput(`state/${spec.name}`, { elemType: spec.type, shape: spec.dims }));
  }
  const lossScale = stateInputs.get(LOSS_SCALE);
  if (lossScale !== undefined) {
    // What is an input of the program is state of the optimizer.
    graph.input = graph.input.filter((info) => info.name !== LOSS_SCALE);
    const [input, output] = [[lossScale], [LOSS_SCALE]];
    graph.node.unshift({ opType: "Identity", input, output, name: LOSS_SCALE, attribute: [] });
  }
  const hyperparameters = new Map<string, string>();
  for (const name of Object.keys(optimizer.hyperparameters(1))) {
    hyperparameters.set(name, newInput(`hyperparameter/${name}`, SCALAR));
  }

  const state = new Map<string, string>();
  const metrics = new Map<string, string>();
  const blockMetrics = new Map<string, string>();
  const parameters = new Map<string, string>();
  const byName = new Map(manifest.parameters.map((parameter) => [parameter.name, parameter]));
  const parameterOf = (name: string) => required(byName.get(name), `the program has no parameter '${name}'`);
  const { batches = 1, statisticsOnly = false } = options;
  const accumulators = new Accumulators(b, manifest);
  const whole = (output: string, dims: readonly number[]) =>
    batches === 1 ? output : accumulators.mean(output, dims, batches);
  const values: StepValues = {
    parameter: (name) => parameters.get(name) ?? parameterOf(name).name,
    gradient: (name) => whole(parameterOf(name).gradient, parameterOf(name).dims),
    statisticsGradient: (name) => {
      const parameter = parameterOf(name);
      const { statisticsSource } = optimizer;
      return whole(
        statisticsSource === "sampled" ? sampledGradient(parameter, optimizer) : parameter.gradient,
        parameter.dims,
      );
    },
    statisticsTerms: (name) => parameterOf(name).statistics,
    state: (name) => state.get(name) ?? required(stateInputs.get(name), `the optimizer declares no state '${name}'`),
    hyperparameter: (name) => required(hyperparameters.get(name), `the optimizer feeds no hyperparameter '${name}'`),
    ...(options.device === "webgpu" && { target: "webgpu" }),
  };
  const absorb = (result: StepResult) => {
    for (const [name, value] of result.parameters) parameters.set(name, value);
    for (const [name, value] of result.state) state.set(name, value);
    for (const [name, value] of result.metrics ?? []) metrics.set(name, value);
    for (const [name, value] of result.blockMetrics ?? []) blockMetrics.set(name, value);
  };
  b.scope(optimizer.name, () => {
    if (options.parts.statistics && optimizer.emitStatistics) absorb(optimizer.emitStatistics(b, values));
    if (options.parts.roots && optimizer.emitRoots) absorb(optimizer.emitRoots(b, values));
    if (!statisticsOnly) absorb(optimizer.emitUpdate(b, values));
  });

  graph.output = [];
  // What a node makes becomes an output as it is: an Identity behind it would copy it where others read it too.
  const taken = new Set([...graph.input, ...graph.initializer].map(({ name }) => name ?? ""));
  for (const name of [manifest.lossOutput, manifest.loss.weight]) taken.add(name ?? "");
  const declare = (kind: string, name: string, value: string, type: ValueType): string => {
    const output = taken.has(value) ? b.op("Identity", [value], {}, `${kind}/${name}`) : value;
    taken.add(output);
    b.output(output, type);
    return output;
  };
  if (!statisticsOnly) b.output(manifest.lossOutput, SCALAR);
  const lossWeight = batches > 1 ? manifest.loss.weight : undefined;
  if (lossWeight !== undefined) b.output(lossWeight, SCALAR);
  const carried = new Map<string, string>();
  for (const [name, value] of parameters) {
    const { dims } = parameterOf(name);
    carried.set(name, declare("next", name, value, { elemType: DataType.FLOAT, shape: dims }));
  }
  for (const { name, next } of statisticsOnly ? [] : manifest.runningStatistics) {
    const tensor = program.model.graph.initializer.find((initializer) => initializer.name === name);
    carried.set(
      name,
      declare("next", name, next, tensorType(required(tensor, `the program has no initializer '${name}'`))),
    );
  }
  const outputs = (kind: string, made: ReadonlyMap<string, string>, typeOf: (name: string) => ValueType) =>
    new Map([...made].map(([name, value]) => [name, declare(kind, name, value, typeOf(name))]));
  const stateOutputs = outputs("next_state", state, (name) => required(types.get(name), `no state '${name}'`));
  const metricOutputs = outputs("metric", metrics, () => SCALAR);
  const blockMetricOutputs = outputs("block_metric", blockMetrics, (name) => ({
    elemType: DataType.FLOAT,
    shape: [required(optimizer.blocks?.get(name), `the optimizer lists no blocks of '${name}'`).length],
  }));

  finishGraph(graph, program, options.device);
  const read = new Set(graph.input.map((info) => info.name ?? ""));
  const kept = (names: ReadonlyMap<string, string>) => new Map([...names].filter(([, input]) => read.has(input)));
  const own = new Set([...stateInputs.values(), ...hyperparameters.values(), ...accumulators.inputs.values()]);
  return {
    model: modelAround(graph, program),
    stateInputs: kept(stateInputs),
    hyperparameters: kept(hyperparameters),
    inputs: new Set([...read].filter((name) => !own.has(name))),
    carried,
    state: stateOutputs,
    accumulators: kept(accumulators.inputs),
    ...(lossWeight !== undefined && { lossWeight }),
    metrics: metricOutputs,
    blockMetrics: blockMetricOutputs,
  };
}

/**
 * The program's forward pass alone: the loss, and what is counted beside it. Data inputs keep their symbolic batch axis,
 * so that any batch size runs.
 */
export function buildForwardGraph(program: TrainingProgram): { model: ModelProto } & JudgementOutputs {
  const { manifest } = program;
  const graph = copyProgramGraph(program, new Map());
  const b = new GraphBuilder(graph);
  const { name, output, target, classAxis = 1, classes } = manifest.loss;
  let judged: Judged | undefined;
  if (name !== "in-graph" && output !== undefined && target !== undefined) {
    const info = program.model.graph.output.find((candidate) => candidate.name === output);
    const shape = [...((info && declaredType(info)?.shape) ?? [])];
    if (name === "softmax-cross-entropy") shape[classAxis] = classes ?? null;
    judged = judgedByLoss({ name, output, classAxis, type: { shape } }, target);
  }
  graph.output = [];
  b.output(manifest.lossOutput, SCALAR);
  const judgement = emitJudgement(b, judged);
  finishGraph(graph, program);
  return { model: modelAround(graph, program), ...judgement };
}

function sampledGradient({ name, sampledGradient: value }: ManifestParameter, optimizer: Optimizer): string {
  if (value === undefined) {
    throw new FishyError(
      `${optimizer.name} takes its statistics from sampled gradients, and the training program samples nothing for '${name}'. Rewrite the model with sections (--sections per-layer or output), or use shampoo.`,
    );
  }
  return value;
}

function required<T>(value: T | undefined, problem: string): T {
  if (value === undefined) throw new Error(problem);
  return value;
}
