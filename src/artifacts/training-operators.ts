/**
 * The operators of `ai.onnx.preview.training`, version 1 (https://onnx.ai/onnx/operators/onnx_aionnxpreview_training_*.html),
 * as standard ones: no ONNX Runtime has kernels for them.
 *
 *     Gradient   dy/dxᵢ at the values given, which may be others than those in the graph
 *     Momentum   G ← λX + G      V ← αV + β′G, β′ = β or at the first step 1      X ← X − R·(V, or G + αV for nesterov)
 *     Adam       G ← λX + G      V ← αV + (1 − α)G      H ← βH + (1 − β)G²
 *                X ← (1 − λₚ)(X − R′·V/(√H + ε)), R′ = R·√(1 − βᵀ)/(1 − αᵀ), or R at the first step
 *     Adagrad    G ← λX + G      H ← H + G²      X ← X − R/(1 + T·decay)·G/(√H + ε)
 */
import { differentiate } from "../autodiff/reverse.js";
import { FishyError } from "../errors.js";
import { floatOf, stringOf, stringsOf } from "../onnx/attributes.js";
import { GraphBuilder } from "../onnx/builder.js";
import { withFields } from "../onnx/codec.js";
import { topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto } from "../onnx/proto.js";
import { declaredType, inferTypes, type TypeMap, tensorType } from "../onnx/types.js";
import { toProgramOpset } from "../onnx/upgrade/upgrade.js";
import { defaultOpset, PROGRAM_OPSET } from "../onnx/versions.js";

export const TRAINING_DOMAIN = "ai.onnx.preview.training";

/** Whether a node is one of them. */
export function isTrainingOperator(node: NodeProto, opType?: string): boolean {
  return node.domain === TRAINING_DOMAIN && (opType === undefined || node.opType === opType);
}

/**
 * A copy of a model in the program's opset in which every Gradient, Adam, Adagrad and Momentum is written out.
 * @throws FishyError for a Gradient whose `y` does not follow from its `xs` and `zs`, or through an operator without one.
 */
export async function expandTrainingOperators(source: ModelProto): Promise<ModelProto> {
  const hasStandard = defaultOpset(source.opsetImport) !== undefined;
  // A model of training operators alone need not import the default domain.
  const opsetImport = [...source.opsetImport, ...(hasStandard ? [] : [{ domain: "", version: PROGRAM_OPSET }])];
  let model = await toProgramOpset(withFields(source, { opsetImport }));
  for (;;) {
    const { graph } = model;
    const node = topologicalOrder(graph).find((each) => isTrainingOperator(each));
    if (!node) break;
    const before = upTo(graph, node);
    // ONNX Runtime loads no model without nodes.
    const types = before.node.length > 0 ? await inferTypes({ ...model, graph: before }) : declaredTypes(before);
    const expanded: GraphProto = { ...graph, node: [...before.node], initializer: [...graph.initializer] };
    // Names of the nodes that follow are taken too.
    const b = new GraphBuilder(expanded, { names: namesOf(graph), counters: new Map() });
    const rest = graph.node.filter((each) => each !== node && !before.node.includes(each));
    b.scope(node.name || (node.opType ?? ""), () => expand(node, b, before, types));
    model = {
      ...model,
      graph: withFields(graph, { node: [...expanded.node, ...rest], initializer: expanded.initializer }),
    };
  }
  return withFields(model, { opsetImport: model.opsetImport.filter(({ domain }) => domain !== TRAINING_DOMAIN) });
}

/** The nodes before `node` that need no training operator, with no output but theirs. */
function upTo(graph: GraphProto, node: NodeProto): GraphProto {
  const unknown = new Set<string>();
  const nodes: NodeProto[] = [];
  for (const each of topologicalOrder(graph)) {
    if (each === node || each.input.some((name) => unknown.has(name))) {
      for (const output of each.output) unknown.add(output);
    } else nodes.push(each);
  }
  return { ...graph, node: nodes, output: [], valueInfo: [] };
}

function declaredTypes({ input, initializer }: GraphProto): TypeMap {
  const types = new Map(initializer.map((tensor) => [tensor.name ?? "", tensorType(tensor)]));
  for (const info of input) {
    const type = declaredType(info);
    if (type) types.set(info.name ?? "", type);
  }
  return types;
}

function namesOf(graph: GraphProto): Set<string> {
  const values = [...graph.input, ...graph.initializer].map(({ name = "" }) => name);
  return new Set([...values, ...graph.node.flatMap((node) => [...node.output, node.name ?? ""])]);
}

function expand(node: NodeProto, b: GraphBuilder, forward: GraphProto, types: TypeMap): void {
  switch (node.opType) {
    case "Gradient":
      expandGradient(node, b, forward, types);
      break;
    case "Adagrad":
    case "Adam":
    case "Momentum":
      expandOptimizer(node, b, types);
      break;
    default:
      throw new FishyError(
        `Node '${node.name || node.output[0]}': the domain ${TRAINING_DOMAIN} has no operator '${node.opType}'.`,
      );
  }
}

/** Lays the nodes between xs, zs and y again, at the values given, and differentiates them. */
function expandGradient(node: NodeProto, b: GraphBuilder, forward: GraphProto, types: TypeMap): void {
  const xs = stringsOf(node, "xs") ?? [];
  const sources = [...xs, ...(stringsOf(node, "zs") ?? [])];
  const y = stringOf(node, "y", "");
  const label = `Node '${node.name || node.output[0]}' (Gradient)`;
  if (node.input.length !== sources.length || sources.length === 0) {
    throw new FishyError(`${label} has ${node.input.length} inputs for ${sources.length} names in xs and zs.`);
  }
  const producers = new Map(forward.node.flatMap((each) => each.output.map((output) => [output, each] as const)));
  const given = new Map(sources.map((source, i) => [source, node.input[i] as string]));
  const needed = new Set<NodeProto>();
  const pending = [y];
  let reaches = false;
  while (pending.length > 0) {
    const name = pending.pop() as string;
    reaches ||= given.has(name);
    const producer = given.has(name) ? undefined : producers.get(name);
    if (!producer || needed.has(producer)) continue;
    needed.add(producer);
    pending.push(...producer.input);
  }
  if (!types.has(y) || !reaches) {
    throw new FishyError(`${label}: '${y}' does not follow from ${sources.map((name) => `'${name}'`).join(", ")}.`);
  }
  const renamed = new Map<string, string>();
  const replayed: NodeProto[] = [];
  const typesHere = new Map(types);
  // Every x has a name of its own, so that two of the same value are told apart.
  for (const [source, value] of given) {
    const own = b.unique(source);
    replayed.push({ opType: "Identity", input: [value], output: [own], attribute: [], name: own });
    renamed.set(source, own);
    const type = types.get(value) ?? types.get(source);
    if (type) typesHere.set(own, type);
  }
  for (const each of topologicalOrder({ ...forward, node: [...needed] })) {
    const output = each.output.map((name) => {
      if (!name) return "";
      const own = b.unique(name);
      const type = types.get(name);
      if (type) typesHere.set(own, type);
      return own;
    });
    replayed.push(
      withFields(each, { input: each.input.map((name) => renamed.get(name) ?? name), output, name: output[0] ?? "" }),
    );
    for (const [i, name] of each.output.entries()) if (name) renamed.set(name, output[i] as string);
  }
  b.graph.node.push(...replayed);
  const target = renamed.get(y) as string;
  const wrt = xs.map((name) => renamed.get(name) as string);
  const type = typesHere.get(target);
  const one = b.constant(type?.elemType ?? DataType.FLOAT, 1);
  const seed = type?.shape?.length === 0 ? one : b.expand(one, b.shape(target));
  const snapshot: GraphProto = { ...b.graph, node: [...b.graph.node] };
  const gradients = differentiate({
    builder: b,
    forward: snapshot,
    types: typesHere,
    wrt,
    seeds: new Map([[target, seed]]),
  });
  for (const [i, output] of node.output.entries()) {
    if (!output) continue;
    const x = wrt[i] as string;
    const gradient = gradients.get(x) ?? b.mul(x, b.constant(typesHere.get(x)?.elemType ?? DataType.FLOAT, 0));
    b.node("Identity", [gradient], { outputs: [output] });
  }
}

/** Inputs: R, T, then all X, all G, and all of each state; outputs: all X, then all of each state. */
function expandOptimizer(node: NodeProto, b: GraphBuilder, types: TypeMap): void {
  const states = node.opType === "Adam" ? 2 : 1;
  const [rate, count] = node.input as [string, string];
  const n = (node.input.length - 2) / (2 + states);
  if (!Number.isInteger(n) || n < 1 || node.output.length !== n * (1 + states)) {
    throw new FishyError(
      `Node '${node.name || node.output[0]}' (${node.opType}) has ${node.input.length} inputs and ${node.output.length} outputs, which belong to no number of tensors.`,
    );
  }
  const at = (group: number, i: number) => node.input[2 + group * n + i] as string;
  for (let i = 0; i < n; i++) {
    const type = types.get(at(0, i))?.elemType ?? types.get(rate)?.elemType ?? DataType.FLOAT;
    const c = (value: number) => b.constant(type, value);
    const scalar = (name: string) => (types.get(name)?.elemType === type ? name : b.cast(name, type));
    const values: OptimizerValues = {
      b,
      node,
      c,
      rate: scalar(rate),
      count: b.cast(count, type),
      x: at(0, i),
      gradient: at(1, i),
      states: Array.from({ length: states }, (_, k) => at(2 + k, i)),
    };
    const next = EXPANSIONS[node.opType as keyof typeof EXPANSIONS](values);
    for (const [k, value] of next.entries())
      b.node("Identity", [value], { outputs: [node.output[k * n + i] as string] });
  }
}

interface OptimizerValues {
  readonly b: GraphBuilder;
  readonly node: NodeProto;
  /** A constant of the tensors' type. */
  readonly c: (value: number) => string;
  /** R and T, of the tensors' type. */
  readonly rate: string;
  readonly count: string;
  readonly x: string;
  readonly gradient: string;
  readonly states: readonly string[];
}

function regularized({ b, node, c, x, gradient }: OptimizerValues): string {
  const coefficient = floatOf(node, "norm_coefficient", 0);
  return coefficient === 0 ? gradient : b.add(b.mul(x, c(coefficient)), gradient);
}

/** decay·average + (1 − decay)·value. */
function average({ b, c }: OptimizerValues, state: string, value: string, decay: number): string {
  return b.add(b.mul(state, c(decay)), b.mul(value, c(1 - decay)));
}

const EXPANSIONS = {
  Momentum(values: OptimizerValues): string[] {
    const { b, node, c, count, rate, x, states } = values;
    const g = regularized(values);
    const alpha = c(floatOf(node, "alpha", 0));
    const beta = b.where(b.greater(count, c(0)), c(floatOf(node, "beta", 0)), c(1));
    const v = b.add(b.mul(states[0] as string, alpha), b.mul(g, beta));
    const step = stringOf(node, "mode", "standard") === "nesterov" ? b.add(g, b.mul(v, alpha)) : v;
    return [b.sub(x, b.mul(step, rate)), v];
  },
  Adam(values: OptimizerValues): string[] {
    const { b, node, c, count, rate, x, states } = values;
    const g = regularized(values);
    const [alpha, beta] = [floatOf(node, "alpha", 0.9), floatOf(node, "beta", 0.999)];
    const v = average(values, states[0] as string, g, alpha);
    const h = average(values, states[1] as string, b.mul(g, g), beta);
    const one = c(1);
    const started = b.greater(count, c(0));
    const corrected = b.div(
      b.mul(rate, b.sqrt(b.sub(one, b.pow(c(beta), count)))),
      // At T = 0 this branch is not taken, and must not divide by zero.
      b.where(started, b.sub(one, b.pow(c(alpha), count)), one),
    );
    const step = b.div(
      b.mul(v, b.where(started, corrected, rate)),
      b.add(b.sqrt(h), c(floatOf(node, "epsilon", 1e-6))),
    );
    const post = floatOf(node, "norm_coefficient_post", 0);
    const updated = b.sub(x, step);
    return [post === 0 ? updated : b.mul(updated, c(1 - post)), v, h];
  },
  Adagrad(values: OptimizerValues): string[] {
    const { b, node, c, count, rate, x, states } = values;
    const g = regularized(values);
    const h = b.add(states[0] as string, b.mul(g, g));
    const decayed = b.div(rate, b.add(c(1), b.mul(count, c(floatOf(node, "decay_factor", 0)))));
    const step = b.div(b.mul(g, decayed), b.add(b.sqrt(h), c(floatOf(node, "epsilon", 1e-6))));
    return [b.sub(x, step), h];
  },
};
