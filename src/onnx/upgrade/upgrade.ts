/** Brings a model to the program's opset: functions inlined, older operators upgraded, newer ones lowered. */
import { FishyError } from "../../errors.js";
import { subgraphsOf } from "../attributes.js";
import { emptyGraph, GraphBuilder } from "../builder.js";
import { cloneModel, withFields } from "../codec.js";
import { capturedBy, GraphIndex, takenNames } from "../graph.js";
import { inlineFunctions } from "../inline.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto, type TensorProto } from "../proto.js";
import { dataTypeName, isExternal, toNumber } from "../tensor.js";
import { inferTypes, type TypeMap } from "../types.js";
import { isDefaultDomain, NEWEST_OPSET, OLDEST_OPSET, opsetOf, PROGRAM_IR, PROGRAM_OPSET } from "../versions.js";
import { LOWERINGS, NEWER_OPERATORS, UPGRADES } from "./registry.js";
import { CannotConvert, type ConversionContext, type OpsetRule } from "./rule.js";

/** The newest IR version that programs are written in: opset 18 needs 8, metadata on nodes 10. */
const NEWEST_PROGRAM_IR = 10;

/**
 * A copy of a model in the program's opset, without functions. It computes what the model computes, has the same
 * inputs, outputs and initializers under the same names, and shares the bytes of its weights.
 * @throws FishyError when the opset is out of range, or listing every node that cannot be converted, and why.
 */
export async function toProgramOpset(source: ModelProto): Promise<ModelProto> {
  const opset = opsetOf(source);
  checkRange(opset, "The model");
  for (const fn of source.functions) {
    const own = fn.opsetImport.find(({ domain }) => isDefaultDomain(domain));
    if (own) checkRange(toNumber(own.version), `The model's function '${fn.name}'`);
  }
  const inlined = inlineFunctions(cloneModel(source));
  const { model } = inlined;
  const problems = newElementTypes(model);
  const converter = new Converter(model, inlined.opsetOf, await typesFor(model, inlined.opsetOf), problems);
  const graph = converter.convertGraph(model.graph);
  if (problems.length > 0) {
    throw new FishyError(
      `The model cannot be brought from opset ${opset} to ${PROGRAM_OPSET}, the opset of training programs:\n` +
        `${problems.map((problem) => `  - ${problem}`).join("\n")}\n` +
        "Export the model with opset 18, or without these operators.",
    );
  }
  graph.initializer.push(...converter.constants);
  return withFields(model, {
    graph,
    irVersion: Math.min(Math.max(toNumber(model.irVersion), PROGRAM_IR), NEWEST_PROGRAM_IR),
    opsetImport: [
      { domain: "", version: PROGRAM_OPSET },
      ...model.opsetImport.filter(({ domain }) => !isDefaultDomain(domain)),
    ],
  });
}

function checkRange(opset: number, what: string): void {
  if (opset < OLDEST_OPSET) {
    throw new FishyError(
      `${what} uses opset ${opset}; fishy reads opsets ${OLDEST_OPSET} to ${NEWEST_OPSET}. ` +
        "Export it again with a newer one, or convert it with onnx.version_converter.convert_version(model, 18).",
    );
  }
  if (opset > NEWEST_OPSET) {
    throw new FishyError(
      `${what} uses opset ${opset}; fishy reads opsets ${OLDEST_OPSET} to ${NEWEST_OPSET}. Export it with opset_version=18.`,
    );
  }
}

/** The first rule for a node that its opset asks for. */
function ruleFor(node: NodeProto, opset: number): OpsetRule | undefined {
  if (!isDefaultDomain(node.domain)) return undefined;
  const rules = RULES.get(node.opType ?? "") ?? NO_RULES;
  if (opset > PROGRAM_OPSET) return rules.lowerings.find(({ since }) => since <= opset);
  return rules.upgrades.find(({ since }) => since > opset);
}

interface OperatorRules {
  /** By opset, oldest first. */
  readonly upgrades: OpsetRule[];
  readonly lowerings: OpsetRule[];
}

const NO_RULES: OperatorRules = { upgrades: [], lowerings: [] };

const RULES = (() => {
  const byOperator = new Map<string, OperatorRules>();
  const rulesOf = (operator: string): OperatorRules => {
    const rules = byOperator.get(operator) ?? { upgrades: [], lowerings: [] };
    byOperator.set(operator, rules);
    return rules;
  };
  for (const rule of UPGRADES) for (const operator of rule.operators) rulesOf(operator).upgrades.push(rule);
  for (const rule of LOWERINGS) for (const operator of rule.operators) rulesOf(operator).lowerings.push(rule);
  for (const { upgrades } of byOperator.values()) upgrades.sort((a, b) => a.since - b.since);
  return byOperator;
})();

async function typesFor(model: ModelProto, opsetOfNode: (node: NodeProto) => number): Promise<TypeMap> {
  const needs = (graph: GraphProto): boolean =>
    graph.node.some((node) => ruleFor(node, opsetOfNode(node))?.needsTypes || subgraphsOf(node).some(needs));
  return needs(model.graph) ? await inferTypes(model) : new Map();
}

/** Element types that came after opset 18: 8-bit floats and everything below a byte. */
function newElementTypes(model: ModelProto): string[] {
  if (opsetOf(model) <= PROGRAM_OPSET) return [];
  const isNew = (type: number | undefined) => (type ?? 0) > DataType.BFLOAT16;
  return [
    ...model.graph.initializer
      .filter(({ dataType }) => isNew(dataType))
      .map(({ name, dataType }) => `initializer '${name}' has elements of ${dataTypeName(dataType ?? 0)}`),
    ...model.graph.input
      .filter(({ type }) => isNew(type?.tensorType?.elemType))
      .map(({ name, type }) => `input '${name}' has elements of ${dataTypeName(type?.tensorType?.elemType ?? 0)}`),
  ];
}

class Converter {
  private readonly builder: GraphBuilder;
  /** The graphs that are open, the main one first. */
  private readonly scopes: GraphIndex[] = [];
  private readonly used = new Set<string>();

  constructor(
    model: ModelProto,
    private readonly opsetOfNode: (node: NodeProto) => number,
    private readonly types: TypeMap,
    private readonly problems: string[],
  ) {
    this.builder = new GraphBuilder(emptyGraph("conversion"), { names: takenNames(model.graph), counters: new Map() });
    this.collectUses(model.graph);
  }

  /** Constants that rules made; subgraphs see those of the main graph. */
  get constants(): readonly TensorProto[] {
    return this.builder.graph.initializer;
  }

  private collectUses(graph: GraphProto): void {
    for (const output of graph.output) this.used.add(output.name ?? "");
    for (const node of graph.node) {
      for (const name of node.input) this.used.add(name);
      for (const inner of subgraphsOf(node)) this.collectUses(inner);
      for (const name of capturedBy(node)) this.used.add(name);
    }
  }

  convertGraph(graph: GraphProto): GraphProto {
    this.scopes.push(new GraphIndex(graph));
    const node = graph.node.flatMap((old) => this.convertNode(this.convertSubgraphs(old), this.opsetOfNode(old)));
    this.scopes.pop();
    return withFields(graph, { node });
  }

  private convertSubgraphs(node: NodeProto): NodeProto {
    const attribute = node.attribute.map((inner) => {
      if (inner.g) return withFields(inner, { g: this.convertGraph(inner.g) });
      if (inner.graphs?.length) return withFields(inner, { graphs: inner.graphs.map((g) => this.convertGraph(g)) });
      return inner;
    });
    return attribute.some((inner, index) => inner !== node.attribute[index]) ? withFields(node, { attribute }) : node;
  }

  private convertNode(node: NodeProto, opset: number): NodeProto[] {
    const rule = ruleFor(node, opset);
    if (!rule) {
      this.checkKnown(node, opset);
      return [node.domain === "ai.onnx" ? withFields(node, { domain: "" }) : node];
    }
    const replacement = this.apply(rule, node);
    const next = Math.min(rule.since, PROGRAM_OPSET);
    return replacement.flatMap((made) => this.convertNode(made, next));
  }

  private apply(rule: OpsetRule, node: NodeProto): NodeProto[] {
    const { builder } = this;
    builder.graph.node = [];
    const context: ConversionContext = {
      g: builder,
      typeOf: (name) => this.types.get(name),
      constant: (name) => this.constant(name),
      isUsed: (name) => this.used.has(name),
    };
    try {
      const replaced = builder.scope(node.name || (node.opType ?? ""), () => rule.convert(node, context));
      const made = builder.graph.node;
      if (replaced) return [...made, replaced];
      for (const inner of made) inherit(inner, node);
      return made;
    } catch (error) {
      if (!(error instanceof CannotConvert)) throw error;
      this.problems.push(`${labelOf(node)} ${error.message}`);
      return [];
    }
  }

  private constant(name: string): TensorProto | undefined {
    for (let i = this.scopes.length - 1; i >= 0; i--) {
      const tensor = this.scopes[i]?.constant(name);
      if (tensor) return isExternal(tensor) ? undefined : tensor;
    }
    return undefined;
  }

  private checkKnown(node: NodeProto, opset: number): void {
    const since = isDefaultDomain(node.domain) ? NEWER_OPERATORS[node.opType ?? ""] : undefined;
    if (opset > PROGRAM_OPSET && since !== undefined && since <= opset) {
      this.problems.push(
        `${labelOf(node)} is an operator of opset ${since} that opset ${PROGRAM_OPSET} cannot express`,
      );
    }
  }
}

function labelOf(node: NodeProto): string {
  return `node '${node.name || node.output.find(Boolean) || "?"}' (${node.opType})`;
}

/** The node that makes the original's result keeps its name; all keep its metadata. */
function inherit(made: NodeProto, original: NodeProto): void {
  if (original.name && made.output[0] === original.output[0]) made.name = original.name;
  if (original.metadataProps?.length && !made.metadataProps?.length) made.metadataProps = original.metadataProps;
}
