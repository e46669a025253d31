/** The graph as sections: what each samples, holds and costs, and what flows between them. What `fishy inspect --html` draws. */
import { UsageError } from "../errors.js";
import { valueInfo } from "../onnx/builder.js";
import { withFields } from "../onnx/codec.js";
import { topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto } from "../onnx/proto.js";
import { dimsOf, elementCount } from "../onnx/tensor.js";
import { declaredType, inferTypes, type TypeMap } from "../onnx/types.js";
import { boundaryLayers, type SectionPlan } from "../sections/plan.js";
import { elementsOf, flopsOf, type Shapes, shapesFrom } from "./costs.js";
import { familyLabel } from "./inspect.js";
import { describe } from "./loss-target.js";
import { prepare } from "./prepare.js";
import { type RewriteOptions, sectionsOf } from "./rewrite.js";

/** A boundary of a section. */
export interface OutlineBoundary {
  readonly name: string;
  readonly at: string;
  /** The activation's operator; null without one. */
  readonly activation: string | null;
  readonly family: string;
  readonly note: string | null;
  /** Elements that are drawn for an example; null when not known. */
  readonly elements: number | null;
}

/** Sums over the nodes of a part; `isComplete` is false where a shape is not known, so that they are lower bounds. */
export interface Cost {
  readonly parameters: number;
  /** Elements of the values that it computes. */
  readonly activations: number;
  readonly flops: number;
  readonly isComplete: boolean;
}

/** A section, or what belongs to none. */
export interface OutlinePart extends Cost {
  readonly name: string;
  /** Where it is sampled; none for what reaches no boundary, and when nothing is sampled. */
  readonly boundaries: readonly OutlineBoundary[];
  readonly trained: readonly { readonly name: string; readonly dims: readonly number[] }[];
  /** Operators that compute, the most frequent first. */
  readonly operators: readonly { readonly operator: string; readonly count: number }[];
  /** Sections whose boundaries it depends on with no other boundary between: where its sampled gradient stops. */
  readonly from: readonly number[];
  /** Model inputs that it depends on in the same way. */
  readonly inputs: readonly string[];
}

/** A model as sections. */
export interface ModelOutline {
  readonly inputs: readonly { readonly name: string; readonly type: string }[];
  readonly outputs: readonly { readonly name: string; readonly type: string }[];
  readonly loss: string;
  /** The numbers that symbolic dimensions stand for. */
  readonly sizes: Readonly<Record<string, number>>;
  /** The sections in the order of the network; last what reaches none, such as running statistics, if there is any. */
  readonly parts: readonly OutlinePart[];
  readonly total: Cost;
}

/**
 * Outlines a model under the same options as `rewrite`.
 * @param sizes numbers for symbolic dimensions of the inputs; default 1, so that figures are for one example.
 * @throws FishyError as `planSections` does, and for sizes that the graph does not take; UsageError for a symbol that no
 * input has.
 */
export async function outlineModel(
  source: ModelProto,
  options: RewriteOptions = {},
  sizes: ReadonlyMap<string, number> = new Map(),
): Promise<ModelOutline> {
  const prepared = await prepare(source, options);
  const plan = sectionsOf(prepared, options.sections ?? { kind: "per-layer" });
  const { types, parameters, inputs, outputs, loss } = prepared;
  const symbols = new Set(
    inputs.flatMap((name) => (types.get(name)?.shape ?? []).filter((dim): dim is string => typeof dim === "string")),
  );
  const unknown = [...sizes.keys()].find((name) => !symbols.has(name));
  if (unknown !== undefined) {
    throw new UsageError(
      `No input has a dimension '${unknown}'. Symbolic dimensions: ${[...symbols].join(", ") || "none"}.`,
    );
  }
  const numbers = new Map([...symbols].map((name) => [name, sizes.get(name) ?? 1]));
  const shapes = shapesFrom([await inferTypes(withSizes(prepared.model, numbers)), types], numbers);
  const dims = new Map(parameters.trainable.map((tensor) => [tensor.name ?? "", dimsOf(tensor)]));
  const flow = new Flow(prepared.model.graph, plan, inputs, types);
  const layers = new Map(
    (prepared.output ? boundaryLayers(prepared.layers, prepared.output) : prepared.layers).map((layer) => [
      layer.preActivation,
      layer,
    ]),
  );
  const sectionParts = plan.sections.map((section, i): OutlinePart => {
    const trained = section.parameters.map((name) => ({ name, dims: dims.get(name) ?? [] }));
    const boundaries = section.boundaries.map((k): OutlineBoundary => {
      const boundary = plan.boundaries[k] as SectionPlan["boundaries"][number];
      const { name, preActivation: at, family, note } = boundary;
      const shape = shapes(at);
      return {
        ...{ name, at, activation: layers.get(at)?.activationType ?? null, family: familyLabel(family) },
        ...{ note: note ?? null, elements: shape ? elementCount(shape) : null },
      };
    });
    return { name: section.name, boundaries, ...flow.part(i, shapes), trained, parameters: sumOf(trained) };
  });
  const rest = flow.part(plan.sections.length, shapes);
  const left = plan.sections.length > 0 ? [] : [...dims].map(([name, own]) => ({ name, dims: own }));
  const parts = [
    ...sectionParts,
    ...(rest.operators.length > 0 || left.length > 0
      ? [
          {
            ...rest,
            ...{ name: plan.sections.length > 0 ? "reaches no boundary" : "the whole graph", boundaries: [] },
            ...{ trained: left, parameters: sumOf(left) },
          },
        ]
      : []),
  ];
  const typed = (names: readonly string[]) => names.map((name) => ({ name, type: describe(types.get(name)) }));
  const total = (key: "parameters" | "activations" | "flops") => parts.reduce((sum, part) => sum + part[key], 0);
  return {
    inputs: typed(inputs),
    outputs: typed(outputs),
    loss: loss ? `${loss.name} of '${loss.output}'` : "none",
    sizes: Object.fromEntries(numbers),
    parts,
    total: {
      ...{ parameters: total("parameters"), activations: total("activations"), flops: total("flops") },
      isComplete: parts.every(({ isComplete }) => isComplete),
    },
  };
}

/** The model with numbers for the symbols of its inputs. */
function withSizes(model: ModelProto, sizes: ReadonlyMap<string, number>): ModelProto {
  const { graph } = model;
  const input = graph.input.map((info) => {
    const type = declaredType(info);
    const shape = type?.shape?.map((dim) => (typeof dim === "string" ? (sizes.get(dim) ?? null) : dim));
    return type && shape ? valueInfo(info.name ?? "", { ...type, shape }) : info;
  });
  return withFields(model, { graph: withFields(graph, { input, valueInfo: [] }) });
}

function sumOf(trained: OutlinePart["trained"]): number {
  return trained.reduce((sum, { dims }) => sum + elementCount(dims), 0);
}

/** Which part each node belongs to: the first section, in the order of the network, that its outputs reach. */
class Flow {
  private readonly nodes: NodeProto[][];
  private readonly sectionAt: ReadonlyMap<string, number>;
  private readonly inputs: ReadonlySet<string>;
  private readonly producers = new Map<string, NodeProto>();

  constructor(
    graph: GraphProto,
    plan: SectionPlan,
    inputs: readonly string[],
    private readonly types: TypeMap,
  ) {
    this.inputs = new Set(inputs);
    this.sectionAt = new Map(
      plan.sections.flatMap((section, i) =>
        section.boundaries.map((k): [string, number] => [plan.boundaries[k]?.preActivation as string, i]),
      ),
    );
    const order = topologicalOrder(graph);
    for (const node of order) for (const name of node.output) if (name) this.producers.set(name, node);
    const fed = new Set(inputs);
    for (const node of order)
      if (node.input.some((name) => fed.has(name))) for (const name of node.output) fed.add(name);
    const last = plan.sections.length;
    this.nodes = Array.from({ length: last + 1 }, () => []);
    const reached = new Map<string, number>();
    for (const node of [...order].reverse()) {
      const part = Math.min(last, ...node.output.map((name) => this.sectionAt.get(name) ?? reached.get(name) ?? last));
      for (const name of node.input) reached.set(name, Math.min(part, reached.get(name) ?? last));
      // What depends on no input is the same in every step.
      if (node.output.some((name) => fed.has(name))) this.nodes[part]?.push(node);
    }
    for (const nodes of this.nodes) nodes.reverse();
  }

  part(index: number, shapes: Shapes): Omit<OutlinePart, "name" | "boundaries" | "trained"> {
    const nodes = this.nodes[index] ?? [];
    const counts = new Map<string, number>();
    let [activations, flops, isComplete] = [0, 0, true];
    for (const node of nodes) {
      if (!this.isFloat(node)) continue;
      const [own, made] = [flopsOf(node, shapes), elementsOf(node, shapes)];
      if (own === undefined || made === undefined) isComplete = false;
      flops += own ?? 0;
      activations += made ?? 0;
      if (own !== 0) counts.set(node.opType ?? "", (counts.get(node.opType ?? "") ?? 0) + 1);
    }
    const operators = [...counts].sort((a, b) => b[1] - a[1]).map(([operator, count]) => ({ operator, count }));
    return {
      ...{ operators, ...this.sources(index, nodes) },
      ...{ parameters: 0, activations, flops, isComplete },
    };
  }

  /** Walks back from a part to the boundaries and inputs before it; the walk may go through nodes that other parts share. */
  private sources(index: number, nodes: readonly NodeProto[]): Pick<OutlinePart, "from" | "inputs"> {
    const from = new Set<number>();
    const inputs = new Set<string>();
    const starts = [...this.sectionAt].filter(([, section]) => section === index).map(([name]) => name);
    const isSampled = starts.length > 0;
    const stack = isSampled ? starts : nodes.flatMap((node) => node.output);
    const seen = new Set(stack);
    for (let name = stack.pop(); name !== undefined; name = stack.pop()) {
      for (const input of this.producers.get(name)?.input ?? []) {
        const section = this.sectionAt.get(input);
        if (section !== undefined) {
          if (isSampled && section !== index) from.add(section);
        } else if (this.inputs.has(input)) inputs.add(input);
        else if (input && !seen.has(input)) {
          seen.add(input);
          stack.push(input);
        }
      }
    }
    return { from: [...from].sort((a, b) => a - b), inputs: [...inputs] };
  }

  /** Shape arithmetic and masks of integers are no activations. */
  private isFloat(node: NodeProto): boolean {
    return node.output.some((name) => this.types.get(name)?.elemType === DataType.FLOAT);
  }
}
