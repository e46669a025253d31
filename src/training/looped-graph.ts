/**
 * Several steps in one graph: an ONNX Loop whose carried values are parameters, running statistics and optimizer state,
 * so that they cross between the runtime and this process once in a run. The body is the graph of a step; where steps
 * differ (statistics, roots) it is an If whose branches are the graphs of each kind, unchanged, so that a step's bits are
 * those of a step by itself: the runtime's fusions depend on who reads a value, and a graph shared by several kinds would
 * be fused differently.
 */
import { attributesFrom } from "../onnx/attributes.js";
import { emptyGraph, type ValueType, valueInfo } from "../onnx/builder.js";
import { takenNames } from "../onnx/graph.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto } from "../onnx/proto.js";
import { tensorFromNumbers } from "../onnx/tensor.js";
import { declaredType } from "../onnx/types.js";
import type { Optimizer, StepSchedule } from "../optimizers/optimizer.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { buildStepGraph, type StepGraph, type StepGraphOptions } from "./step-graph.js";

/** A graph of several steps, and the names by which it is fed and read. */
export interface LoopedGraph {
  readonly model: ModelProto;
  /** Input: how many steps, an int64 scalar. */
  readonly steps: string;
  /** Input: which of `kinds` each step is, int32 [steps]; absent where all are of one kind. */
  readonly kind: string | undefined;
  /** Inputs of a value for each step, [steps, …]: by data input (or the seed), and by hyperparameter. */
  readonly stacked: ReadonlyMap<string, string>;
  readonly hyperparameters: ReadonlyMap<string, string>;
  /** Inputs that no step changes, under their own names: frozen weights, parameters that nothing updates. */
  readonly fixed: ReadonlySet<string>;
  /** The same, by optimizer state. */
  readonly fixedState: ReadonlyMap<string, string>;
  /** What steps change: parameters and running statistics, and optimizer state. */
  readonly carried: ReadonlyMap<string, Ends>;
  readonly state: ReadonlyMap<string, Ends>;
  /** Outputs of a value for each step, [steps] and [steps, blocks]. Meaningless at steps whose kind lacks them. */
  readonly loss: string;
  readonly metrics: ReadonlyMap<string, string>;
  readonly blockMetrics: ReadonlyMap<string, string>;
  readonly kinds: readonly StepKind[];
}

/** The input that holds a value before the first step, and the output that holds it after the last. */
export interface Ends {
  readonly input: string;
  readonly output: string;
}

/** Steps with the same parts. */
export interface StepKind {
  readonly parts: StepSchedule;
  readonly metrics: ReadonlySet<string>;
  readonly blockMetrics: ReadonlySet<string>;
}

export interface LoopedGraphOptions extends Omit<StepGraphOptions, "parts"> {
  /** The kinds of steps that there may be. */
  readonly kinds: readonly StepSchedule[];
}

/** A value that the body gives: its role and name, its type, and what a kind that does not make it gives instead. */
interface BodyOutput {
  readonly role: "loss" | "carried" | "state" | "metric" | "blockMetric";
  readonly name: string;
  readonly type: ValueType;
}

/** Builds the graph of several steps. */
export function buildLoopedGraph(
  program: TrainingProgram,
  optimizer: Optimizer,
  options: LoopedGraphOptions,
): LoopedGraph {
  const { kinds, ...rest } = options;
  const steps = kinds.map((parts) => buildStepGraph(program, optimizer, { ...rest, parts }));
  const outputs = bodyOutputs(steps, program.manifest.lossOutput);
  const prefix = freePrefix(steps);
  const outer = emptyGraph("steps");
  const body = emptyGraph(`${prefix}body`);
  const input = (name: string, type: ValueType): string => {
    outer.input.push(valueInfo(name, type));
    return name;
  };
  const trips = input(`${prefix}steps`, { elemType: DataType.INT64, shape: [] });
  const round = `${prefix}round`;
  const before = `${prefix}before`;
  body.input.push(valueInfo(round, { elemType: DataType.INT64, shape: [] }));
  body.input.push(valueInfo(before, { elemType: DataType.BOOL, shape: [] }));

  // What changes is carried under the name that steps know it by.
  const inputOf = stepInputs(steps);
  const changing = outputs.filter(({ role }) => role === "carried" || role === "state");
  const carried = new Map<string, Ends>();
  const state = new Map<string, Ends>();
  const changed = new Set<string>();
  for (const { role, name, type } of changing) {
    const inner = role === "state" ? (inputOf.state.get(name) ?? `${prefix}unread/${name}`) : name;
    changed.add(inner);
    body.input.push(valueInfo(inner, type));
    const ends = { input: input(`${prefix}first/${inner}`, type), output: `${prefix}last/${inner}` };
    (role === "state" ? state : carried).set(name, ends);
  }

  // Everything else is one value for each step, or the same for all.
  const stacked = new Map<string, string>();
  const hyperparameters = new Map<string, string>();
  const fixed = new Set<string>();
  const fixedState = new Map<string, string>();
  const slice = (inner: string, type: ValueType): string => {
    const stack = input(`${prefix}each/${inner}`, { elemType: type.elemType, shape: ["steps", ...(type.shape ?? [])] });
    body.node.push(node("Gather", [stack, round], [inner], { axis: 0 }));
    return stack;
  };
  const own = new Set(program.model.graph.initializer.map(({ name }) => name ?? ""));
  for (const [name, type] of inputOf.types) {
    const stateName = inputOf.stateNames.get(name);
    const hyperparameter = inputOf.hyperparameters.get(name);
    if (changed.has(name)) continue;
    if (hyperparameter !== undefined) hyperparameters.set(hyperparameter, slice(name, type));
    else if (stateName !== undefined) fixedState.set(stateName, input(name, type));
    else if (own.has(name)) fixed.add(input(name, type));
    else stacked.set(name, slice(name, type));
  }

  const changedName = (output: BodyOutput) =>
    output.role === "state" ? (inputOf.state.get(output.name) ?? `${prefix}unread/${output.name}`) : output.name;
  let kind: string | undefined;
  let results: string[];
  if (steps.length === 1) {
    const [only] = steps as [StepGraph];
    body.node.push(...only.model.graph.node);
    body.initializer.push(...only.model.graph.initializer);
    results = outputs.map((output) => outputNameOf(only, output) as string);
  } else {
    kind = input(`${prefix}kind`, { elemType: DataType.INT32, shape: ["steps"] });
    body.node.push(node("Gather", [kind, round], [`${prefix}now`], { axis: 0 }));
    const branches = steps.map((step, i) => branchOf(step, outputs, changedName, `${prefix}${i}`));
    results = emitChoice(body, branches, outputs, prefix);
  }
  const after = `${prefix}after`;
  body.node.push(node("Identity", [before], [after]));
  body.output.push(valueInfo(after, { elemType: DataType.BOOL, shape: [] }));
  // Carried values come first, then what is gathered over the steps.
  const order = [...changing, ...outputs.filter((output) => !changing.includes(output))];
  const loopOutputs = order.map((output) => {
    const value = results[outputs.indexOf(output)] as string;
    body.output.push(valueInfo(value, output.type));
    if (output.role === "carried") return (carried.get(output.name) as Ends).output;
    if (output.role === "state") return (state.get(output.name) as Ends).output;
    return `${prefix}all/${output.role}/${output.name}`;
  });
  const initial = changing.map(({ role, name }) => ((role === "state" ? state : carried).get(name) as Ends).input);
  outer.node.push({ ...node("Loop", [trips, "", ...initial], loopOutputs), attribute: attributesFrom({ body }) });
  order.forEach(({ type, role }, i) => {
    const isCarried = role === "carried" || role === "state";
    const shape = isCarried ? type.shape : ["steps", ...(type.shape ?? [])];
    outer.output.push(valueInfo(loopOutputs[i] as string, { elemType: type.elemType, shape }));
  });
  const gathered = (role: BodyOutput["role"]) =>
    new Map(
      order.flatMap((output, i) => (output.role === role ? [[output.name, loopOutputs[i] as string] as const] : [])),
    );
  return {
    model: { ...(steps[0] as StepGraph).model, graph: outer },
    ...{ steps: trips, kind, stacked, hyperparameters, fixed, fixedState, carried, state },
    loss: [...gathered("loss").values()][0] as string,
    metrics: gathered("metric"),
    blockMetrics: gathered("blockMetric"),
    kinds: steps.map(({ metrics, blockMetrics }, i) => ({
      parts: kinds[i] as StepSchedule,
      metrics: new Set(metrics.keys()),
      blockMetrics: new Set(blockMetrics.keys()),
    })),
  };
}

/** All that any kind gives. */
function bodyOutputs(steps: readonly StepGraph[], loss: string): BodyOutput[] {
  const found = new Map<string, BodyOutput>();
  for (const step of steps) {
    const types = new Map(step.model.graph.output.map((info) => [info.name ?? "", declaredType(info)]));
    const add = (role: BodyOutput["role"], names: Iterable<[string, string]>) => {
      for (const [name, value] of names) {
        const type = types.get(value);
        if (!type) throw new Error(`the step's output '${value}' has no type`);
        if (!found.has(`${role}:${name}`)) found.set(`${role}:${name}`, { role, name, type });
      }
    };
    add("loss", [[loss, loss]]);
    add("carried", step.carried);
    add("state", step.state);
    add("metric", step.metrics);
    add("blockMetric", step.blockMetrics);
  }
  return [...found.values()];
}

/** The output of a kind; undefined when the kind leaves the value as it is. */
function outputNameOf(step: StepGraph, { role, name }: BodyOutput): string | undefined {
  switch (role) {
    case "loss":
      return name;
    case "carried":
      return step.carried.get(name);
    case "state":
      return step.state.get(name);
    case "metric":
      return step.metrics.get(name);
    case "blockMetric":
      return step.blockMetrics.get(name);
  }
}

/** The inputs of all kinds by name, which is the same in each kind that has them. */
function stepInputs(steps: readonly StepGraph[]) {
  const types = new Map<string, ValueType>();
  const state = new Map<string, string>();
  const stateNames = new Map<string, string>();
  const hyperparameters = new Map<string, string>();
  for (const step of steps) {
    for (const info of step.model.graph.input) {
      const type = declaredType(info);
      if (!type) throw new Error(`the step's input '${info.name}' has no type`);
      types.set(info.name ?? "", type);
    }
    for (const [name, value] of step.stateInputs) {
      state.set(name, value);
      stateNames.set(value, name);
    }
    for (const [name, value] of step.hyperparameters) hyperparameters.set(value, name);
  }
  return { types, state, stateNames, hyperparameters };
}

/** The graph of a kind as a branch: what it does not make it passes on (values) or gives as NaN (metrics). */
function branchOf(
  step: StepGraph,
  outputs: readonly BodyOutput[],
  changedName: (output: BodyOutput) => string,
  prefix: string,
): GraphProto {
  const { graph } = step.model;
  const branch: GraphProto = {
    ...emptyGraph(`${prefix}/branch`),
    node: [...graph.node],
    initializer: [...graph.initializer],
  };
  for (const output of outputs) {
    const { role, name, type } = output;
    let value = outputNameOf(step, output);
    if (value === undefined) {
      value = `${prefix}/kept/${role}/${name}`;
      let source = changedName(output);
      if (role === "metric" || role === "blockMetric") {
        source = `${prefix}/none/${role}/${name}`;
        const dims = (type.shape ?? []) as number[];
        const count = dims.reduce((product, dim) => product * dim, 1);
        branch.initializer.push(
          tensorFromNumbers(source, type.elemType, dims, new Array<number>(count).fill(Number.NaN)),
        );
      }
      branch.node.push(node("Identity", [source], [value]));
    }
    branch.output.push(valueInfo(value, type));
  }
  return branch;
}

/** Runs branch number `now`. @returns the values of `outputs`. */
function emitChoice(
  graph: GraphProto,
  branches: readonly GraphProto[],
  outputs: readonly BodyOutput[],
  prefix: string,
  first = 0,
): string[] {
  const names = outputs.map(({ role, name }) => `${prefix}${first}/chosen/${role}/${name}`);
  const [number, isThis] = [`${prefix}${first}/number`, `${prefix}${first}/is`];
  graph.initializer.push(tensorFromNumbers(number, DataType.INT32, [], [first]));
  graph.node.push(node("Equal", [`${prefix}now`, number], [isThis]));
  let otherwise = branches[first + 1] as GraphProto;
  if (first + 2 < branches.length) {
    otherwise = emptyGraph(`${prefix}${first}/otherwise`);
    const values = emitChoice(otherwise, branches, outputs, prefix, first + 1);
    outputs.forEach(({ type }, i) => {
      otherwise.output.push(valueInfo(values[i] as string, type));
    });
  }
  const attribute = attributesFrom({ then_branch: branches[first] as GraphProto, else_branch: otherwise });
  graph.node.push({ ...node("If", [isThis], names), attribute });
  return names;
}

function node(
  opType: string,
  input: string[],
  output: string[],
  attributes: Parameters<typeof attributesFrom>[0] = {},
): NodeProto {
  return { input, output, name: output[0] ?? opType, opType, attribute: attributesFrom(attributes) };
}

/** A prefix that no name of the steps begins with. */
function freePrefix(steps: readonly StepGraph[]): string {
  const names = steps.flatMap(({ model }) => [...takenNames(model.graph)]);
  let prefix = "steps/";
  while (names.some((name) => name.startsWith(prefix))) prefix = `_${prefix}`;
  return prefix;
}
