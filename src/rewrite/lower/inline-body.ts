/** Laying the nodes of a subgraph into the graph around it. */
import { subgraphsOf } from "../../onnx/attributes.js";
import { withFields } from "../../onnx/codec.js";
import { capturedBy, topologicalOrder } from "../../onnx/graph.js";
import type { GraphProto, NodeProto } from "../../onnx/proto.js";
import type { LoweringContext } from "./lowering.js";

/** Operators that give something else every time. */
const RANDOM: ReadonlySet<string> = new Set(
  "Dropout Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split(" "),
);

/** A subgraph that can be laid out any number of times. What does not depend on its inputs is laid out once. */
export class Body {
  private readonly order: readonly NodeProto[];
  /** Values that may differ from one time to the next. */
  private readonly varying: ReadonlySet<string>;
  /** Names in the outer graph of what never differs. */
  private readonly fixed = new Map<string, string>();

  constructor(
    private readonly context: LoweringContext,
    readonly graph: GraphProto,
  ) {
    this.order = topologicalOrder(graph);
    const varying = new Set(graph.input.map((input) => input.name ?? ""));
    for (const node of this.order) {
      const reads = [...node.input, ...capturedBy(node)];
      if (reads.some((name) => varying.has(name)) || RANDOM.has(node.opType ?? "") || subgraphsOf(node).length > 0) {
        for (const output of node.output) varying.add(output);
      }
    }
    this.varying = varying;
  }

  /** Why the subgraph cannot be laid out; undefined when it can. */
  get problem(): string | undefined {
    return this.graph.sparseInitializer?.length ? "its body holds sparse initializers" : undefined;
  }

  /**
   * Lays out the nodes.
   * @param inputs values of the outer graph for the subgraph's inputs, in order.
   * @returns values of the outer graph for the subgraph's outputs.
   */
  emit(inputs: readonly string[]): string[] {
    const { b } = this.context;
    const names = new Map(this.fixed);
    for (const [i, input] of this.graph.input.entries()) names.set(input.name ?? "", inputs[i] as string);
    const define = (name: string) => {
      const unique = b.unique(name);
      names.set(name, unique);
      if (!this.varying.has(name)) this.fixed.set(name, unique);
      return unique;
    };
    for (const tensor of this.graph.initializer) {
      const name = tensor.name ?? "";
      if (names.has(name)) continue;
      // A Constant, not an initializer: nothing inside a subgraph is a parameter of the model.
      b.node("Constant", [], { outputs: [define(name)], attributes: { value: withFields(tensor, { name: "" }) } });
    }
    for (const node of this.order) {
      if (node.output.every((output) => !output || names.has(output))) continue;
      const input = node.input.map((name) => names.get(name) ?? name);
      const attribute = node.attribute.map((inner) => ({
        ...inner,
        ...(inner.g && { g: renameCaptured(inner.g, names) }),
      }));
      const output = node.output.map((name) => name && define(name));
      const name = output.find(Boolean) ?? "";
      b.graph.node.push(withFields(node, { input, output, name, attribute }));
    }
    return this.graph.output.map(({ name = "" }) => names.get(name) ?? name);
  }
}

/** A nested subgraph that reads the outer values under their new names. */
function renameCaptured(graph: GraphProto, names: ReadonlyMap<string, string>): GraphProto {
  const outer = new Map(names);
  for (const { name } of [...graph.input, ...graph.initializer]) outer.delete(name ?? "");
  for (const node of graph.node) for (const name of node.output) outer.delete(name);
  const renamed = (name: string) => outer.get(name) ?? name;
  return withFields(graph, {
    node: graph.node.map((node) =>
      withFields(node, {
        input: node.input.map(renamed),
        attribute: node.attribute.map((inner) => ({ ...inner, ...(inner.g && { g: renameCaptured(inner.g, outer) }) })),
      }),
    ),
    output: graph.output.map((output) => withFields(output, { name: renamed(output.name ?? "") })),
  });
}
