/** Puts the bodies of model-local functions in place of their calls. */
import { FishyError } from "../errors.js";
import { withFields } from "./codec.js";
import { takenNames } from "./graph.js";
import type { AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto } from "./proto.js";
import { defaultOpset, isDefaultDomain } from "./versions.js";

export interface InlinedModel {
  /** Without functions. Nodes that had nothing to inline are the source's own. */
  readonly model: ModelProto;
  /** The default-domain opset that a node was written for: a function has its own import. */
  opsetOf(node: NodeProto): number;
}

/**
 * Inlines every call of a model-local function, functions that call functions included. Values get the call's name as
 * a prefix; nodes without metadata inherit the call's.
 * @throws FishyError when functions call each other in a circle, or two functions import different versions of a domain.
 */
export function inlineFunctions(model: ModelProto): InlinedModel {
  const opset = defaultOpset(model.opsetImport) ?? 0;
  const opsets = new Map<NodeProto, number>();
  const opsetOf = (node: NodeProto) => opsets.get(node) ?? opset;
  if (model.functions.length === 0) return { model, opsetOf };
  const inliner = new Inliner(model, opsets);
  const graph = inliner.expandGraph(model.graph, { opset, calls: [] });
  return { model: withFields(model, { graph, functions: [], opsetImport: inliner.imports(graph) }), opsetOf };
}

interface Scope {
  readonly opset: number;
  /** The functions that are open, outermost first. */
  readonly calls: readonly string[];
}

/** How the names of a function's body are said at the place of the call. */
interface Instance {
  readonly names: Map<string, string>;
  readonly attributes: ReadonlyMap<string, AttributeProto>;
  readonly prefix: string;
  readonly call: NodeProto;
}

class Inliner {
  private readonly functions = new Map<string, FunctionProto>();
  private readonly used: Set<string>;

  constructor(
    private readonly model: ModelProto,
    private readonly opsets: Map<NodeProto, number>,
  ) {
    for (const fn of model.functions) this.functions.set(keyOf(fn.domain, fn.name, fn.overload), fn);
    this.used = takenNames(model.graph);
  }

  expandGraph(graph: GraphProto, scope: Scope): GraphProto {
    return withFields(graph, { node: this.expandNodes(graph.node, scope) });
  }

  private expandNodes(nodes: readonly NodeProto[], scope: Scope): NodeProto[] {
    return nodes.flatMap((node) => {
      const expanded = this.expandSubgraphs(node, scope);
      if (scope.calls.length > 0) this.opsets.set(expanded, scope.opset);
      const key = keyOf(node.domain, node.opType, node.overload);
      const fn = this.functions.get(key);
      if (!fn) return [expanded];
      if (scope.calls.includes(key)) {
        throw new FishyError(
          `The model's functions call each other in a circle: ${[...scope.calls, key].join(" → ")}.`,
        );
      }
      const opset = defaultOpset(fn.opsetImport) ?? scope.opset;
      return this.expandNodes(this.instantiate(fn, expanded, opset), { opset, calls: [...scope.calls, key] });
    });
  }

  private expandSubgraphs(node: NodeProto, scope: Scope): NodeProto {
    if (!node.attribute.some(({ g, graphs }) => g || graphs?.length)) return node;
    const attribute = node.attribute.map((inner) =>
      withFields(inner, {
        ...(inner.g && { g: this.expandGraph(inner.g, scope) }),
        ...(inner.graphs?.length && { graphs: inner.graphs.map((graph) => this.expandGraph(graph, scope)) }),
      }),
    );
    return withFields(node, { attribute });
  }

  private instantiate(fn: FunctionProto, call: NodeProto, opset: number): NodeProto[] {
    const attributes = new Map((fn.attributeProto ?? []).map((attribute) => [attribute.name ?? "", attribute]));
    for (const attribute of call.attribute) attributes.set(attribute.name ?? "", attribute);
    const names = new Map<string, string>();
    const instance: Instance = { names, attributes, prefix: call.name || (fn.name ?? "function"), call };
    for (const [index, input] of fn.input.entries()) names.set(input, call.input[index] ?? "");
    const copies: NodeProto[] = [];
    for (const [index, output] of fn.output.entries()) {
      const result = call.output[index];
      if (!result) continue;
      if (!names.has(output)) names.set(output, result);
      // An input that is handed back, or a value that is given out twice.
      else copies.push({ input: [names.get(output) as string], output: [result], opType: "Identity", attribute: [] });
    }
    const body = fn.node.map((node) => this.instantiateNode(node, instance));
    for (const copy of copies) this.opsets.set(copy, opset);
    return [...body, ...copies];
  }

  private instantiateNode(node: NodeProto, instance: Instance): NodeProto {
    const { names, prefix, call } = instance;
    const output = node.output.map((name) => this.define(name, instance));
    const input = node.input.map((name) => names.get(name) ?? name);
    const attribute = node.attribute.flatMap((inner) => this.instantiateAttribute(inner, instance));
    const metadataProps = node.metadataProps?.length ? node.metadataProps : (call.metadataProps ?? []);
    return withFields(node, {
      input,
      output,
      attribute,
      metadataProps,
      name: this.unique(`${prefix}/${node.name || node.opType || ""}`),
    });
  }

  private define(name: string, { names, prefix }: Instance): string {
    if (!name) return "";
    const known = names.get(name);
    if (known) return known;
    const unique = this.unique(`${prefix}/${name}`);
    names.set(name, unique);
    return unique;
  }

  private unique(base: string): string {
    let name = base;
    for (let count = 1; this.used.has(name); count++) name = `${base}_${count}`;
    this.used.add(name);
    return name;
  }

  private instantiateAttribute(attribute: AttributeProto, instance: Instance): AttributeProto[] {
    if (attribute.refAttrName) {
      const given = instance.attributes.get(attribute.refAttrName);
      return given ? [withFields(given, { name: attribute.name ?? "" })] : [];
    }
    if (!attribute.g && !attribute.graphs?.length) return [attribute];
    return [
      withFields(attribute, {
        ...(attribute.g && { g: this.instantiateGraph(attribute.g, instance) }),
        ...(attribute.graphs?.length && {
          graphs: attribute.graphs.map((graph) => this.instantiateGraph(graph, instance)),
        }),
      }),
    ];
  }

  /** Names of the subgraph's own hide those of the body. */
  private instantiateGraph(graph: GraphProto, outer: Instance): GraphProto {
    const names = new Map(outer.names);
    for (const { name } of [...graph.input, ...graph.initializer]) names.delete(name ?? "");
    for (const node of graph.node) for (const name of node.output) names.delete(name);
    const instance: Instance = { ...outer, names };
    const rename = <T extends { name?: string }>(value: T): T =>
      withFields(value, { name: this.define(value.name ?? "", instance) } as Partial<T>);
    return withFields(graph, {
      input: graph.input.map(rename),
      initializer: graph.initializer.map(rename),
      node: graph.node.map((node) => this.instantiateNode(node, instance)),
      output: graph.output.map(rename),
      valueInfo: [],
    });
  }

  /** The model's imports, those of its functions that are still needed added, those of functions alone removed. */
  imports(graph: GraphProto): ModelProto["opsetImport"] {
    const needed = new Set<string>();
    collectDomains(graph, needed);
    const imports = this.model.opsetImport.filter(({ domain }) => isDefaultDomain(domain) || needed.has(domain ?? ""));
    for (const fn of this.model.functions) {
      for (const entry of fn.opsetImport) {
        if (isDefaultDomain(entry.domain) || !needed.has(entry.domain ?? "")) continue;
        const known = imports.find(({ domain }) => domain === entry.domain);
        if (!known) imports.push(entry);
        else if (String(known.version) !== String(entry.version)) {
          throw new FishyError(
            `The function '${fn.name}' uses version ${entry.version} of the domain '${entry.domain}', the model uses version ${known.version}: they cannot be brought together.`,
          );
        }
      }
    }
    return imports;
  }
}

function collectDomains(graph: GraphProto, domains: Set<string>): void {
  for (const node of graph.node) {
    domains.add(node.domain ?? "");
    for (const { g, graphs } of node.attribute) {
      for (const inner of [...(g ? [g] : []), ...(graphs ?? [])]) collectDomains(inner, domains);
    }
  }
}

function keyOf(domain: string | undefined, name: string | undefined, overload: string | undefined): string {
  return `${isDefaultDomain(domain) ? "" : domain}::${name ?? ""}${overload ? `:${overload}` : ""}`;
}
