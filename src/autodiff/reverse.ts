/**
 * Reverse-mode differentiation of an ONNX graph. One walk serves every gradient that fishy emits: the true gradient
 * (seeded at the loss) and the sampled gradients (seeded at the boundaries, where the walk is cut).
 */
import { FishyError } from "../errors.js";
import type { GraphBuilder } from "../onnx/builder.js";
import { capturedBy, GraphIndex, topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type NodeProto } from "../onnx/proto.js";
import type { TypeMap } from "../onnx/types.js";
import { GradientContext, type GradientRule } from "./rule.js";
import { ruleFor } from "./rules/registry.js";
import { isStop } from "./stop-gradient.js";

export interface ReverseOptions {
  /** Receives the backward nodes; its graph contains the forward nodes. */
  readonly builder: GraphBuilder;
  /** The forward graph as it was before any backward node was added. */
  readonly forward: GraphProto;
  readonly types: TypeMap;
  /** Values to differentiate with respect to. */
  readonly wrt: readonly string[];
  /** Cotangents by value: the loss with a one, or the boundaries with their samples. */
  readonly seeds: ReadonlyMap<string, string>;
  /** Values at which the walk is cut: what flows back into them from their uses is replaced by their seed. */
  readonly cut?: ReadonlySet<string>;
}

const DIFFERENTIABLE: ReadonlySet<DataType> = new Set<DataType>([
  DataType.FLOAT,
  DataType.DOUBLE,
  DataType.FLOAT16,
  DataType.BFLOAT16,
]);

const EIGHT_BITS: ReadonlySet<DataType | undefined> = new Set([DataType.INT8, DataType.UINT8]);

/** Nodes that stand between a parameter and the loss and have no gradient. */
export class MissingGradientError extends FishyError {
  /** @param reasons what is in the way of a node, and the remedy, where more is known than that it has no rule. */
  constructor(
    readonly nodes: readonly NodeProto[],
    reasons: ReadonlyMap<NodeProto, string> = new Map(),
  ) {
    const list = nodes.map((node) => {
      const reason = reasons.get(node);
      const operator = `${node.opType}${node.domain ? ` (${node.domain})` : ""}`;
      return `  ${operator}  '${node.name || node.output[0]}'${reason ? `: ${reason}.` : ""}`;
    });
    super(
      `No gradient is known for ${nodes.length === 1 ? "this node" : `these ${nodes.length} nodes`} between a trainable parameter and the loss:\n` +
        `${list.join("\n")}\nFreeze the parameters before ${nodes.length === 1 ? "it" : "them"} (--freeze PATTERN), or report the operator as an issue.`,
    );
  }
}

/**
 * Emits the gradient of the seeded values with respect to each of `wrt`.
 * @returns the gradient's name by value of `wrt`; a value that no seed depends on is absent.
 * @throws MissingGradientError listing every node in the way that has no rule.
 */
export function differentiate(options: ReverseOptions): Map<string, string> {
  const { builder, types, seeds } = options;
  const cut = options.cut ?? new Set<string>();
  const plan = planReverse(options);
  if (plan.missing.length > 0) throw new MissingGradientError(plan.missing);

  const index = new GraphIndex(options.forward);
  const contributions = new Map<string, string[]>();
  const totals = new Map<string, string>();
  const cotangentOf = (name: string): string | undefined => {
    const seed = seeds.get(name);
    if (cut.has(name)) return seed;
    const known = totals.get(name);
    if (known) return known;
    const parts = [...(seed ? [seed] : []), ...(contributions.get(name) ?? [])];
    if (parts.length === 0) return undefined;
    const total = parts.reduce((sum, part) => builder.add(sum, part));
    totals.set(name, total);
    return total;
  };
  const wanted = (name: string) => plan.active.has(name) && !cut.has(name);

  for (const { node, rule } of plan.nodes) {
    builder.scope(`${node.output.find(Boolean)}/backward`, () => {
      const cotangents = node.output.map((output) => (output ? cotangentOf(output) : undefined));
      if (cotangents.every((cotangent) => cotangent === undefined)) return;
      const context = new GradientContext(builder, node, cotangents, {
        typeOf: (name) => types.get(name),
        constantOf: (name) => index.constant(name),
        producerOf: (name) => index.producer(name),
        needsGradient: wanted,
      });
      for (const [position, thunk] of Object.entries(rule.gradient(context))) {
        const name = node.input[Number(position)];
        if (!name || !wanted(name)) continue;
        const known = contributions.get(name);
        const part = thunk();
        if (known) known.push(part);
        else contributions.set(name, [part]);
      }
    });
  }

  const gradients = new Map<string, string>();
  for (const name of options.wrt) {
    const gradient = cotangentOf(name);
    if (gradient) gradients.set(name, gradient);
  }
  return gradients;
}

export interface ReversePlan {
  /** The nodes to walk, last first, each with its rule. */
  readonly nodes: readonly { node: NodeProto; rule: GradientRule }[];
  /** Values whose cotangent is wanted: they depend on `wrt` and reach a seed, without passing a cut. */
  readonly active: ReadonlySet<string>;
  readonly missing: readonly NodeProto[];
  /** `nodes` and `missing` together, last first. */
  readonly walk: readonly NodeProto[];
}

/** What `differentiate` would do: the nodes that it would walk, and those that have no gradient. */
export function planReverse(
  options: Pick<ReverseOptions, "forward" | "types" | "wrt" | "cut"> & { seeds: { has(name: string): boolean } },
): ReversePlan {
  const { types, wrt, seeds } = options;
  const cut = options.cut ?? new Set<string>();
  const order = topologicalOrder(options.forward);
  const differentiable = (name: string) => {
    const type = types.get(name);
    return type === undefined || DIFFERENTIABLE.has(type.elemType);
  };

  // Forward: what depends on `wrt`. A cut value is reached, but carries the dependence no further.
  const dependent = new Set<string>(wrt);
  // Quantised values are integers on the way between floats: passed straight through by a lowering, or in the way.
  const quantised = new Set<string>();
  const isQuantised = (node: NodeProto, output: string) =>
    node.opType === "QuantizeLinear" ||
    (EIGHT_BITS.has(types.get(output)?.elemType) && node.input.some((name) => quantised.has(name)));
  // What subgraphs capture counts as an input: a path through it must be seen, or refused.
  const dependentInputs = (node: NodeProto) => {
    const settings = ruleFor(node)?.settings;
    const inputs = settings ? node.input.filter((_, i) => !settings.includes(i)) : node.input;
    return [...inputs, ...capturedBy(node)].filter((name) => dependent.has(name) && !cut.has(name));
  };
  for (const node of order) {
    if (isStop(node) || dependentInputs(node).length === 0) continue;
    for (const output of node.output) {
      if (!output) continue;
      if (isQuantised(node, output)) quantised.add(output);
      if (differentiable(output) || quantised.has(output)) dependent.add(output);
    }
  }
  // Backward: of those, what reaches a seed.
  const active = new Set<string>();
  for (const name of dependent) if (seeds.has(name)) active.add(name);
  const nodes: { node: NodeProto; rule: GradientRule }[] = [];
  const missing: NodeProto[] = [];
  const walk: NodeProto[] = [];
  for (const node of order.reverse()) {
    if (!node.output.some((output) => active.has(output))) continue;
    const inputs = dependentInputs(node);
    if (inputs.length === 0) continue;
    for (const name of inputs) active.add(name);
    walk.push(node);
    const rule = ruleFor(node);
    if (rule) nodes.push({ node, rule });
    else missing.push(node);
  }
  missing.reverse();
  return { nodes, active, missing, walk };
}
