/**
 * Structural checks of a model before it is written: what the ONNX specification demands of names, order and imports
 * (https://onnx.ai/onnx/repo-docs/IR.html). Types and operators are ONNX Runtime's to judge.
 */
import { FishyError } from "../errors.js";
import { subgraphsOf } from "./attributes.js";
import type { FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetId } from "./proto.js";
import { isDefaultDomain } from "./versions.js";

/** More problems than this are counted, not listed. */
const LISTED = 10;

/**
 * @throws FishyError that lists what is wrong: a value or a node's name made twice, used before it is made or never made, an output
 * that nothing makes, a duplicate name, an operator of a domain that is not imported.
 */
export function checkModel(model: ModelProto): void {
  const problems = problemsOf(model);
  if (problems.length === 0) return;
  const listed = problems.slice(0, LISTED).map((problem) => `  - ${problem}`);
  if (problems.length > LISTED) listed.push(`  - and ${problems.length - LISTED} more`);
  throw new FishyError(`The model is not valid ONNX:\n${listed.join("\n")}`);
}

/** What is wrong with the structure of a model, one sentence each; empty when nothing is. */
export function problemsOf(model: ModelProto): string[] {
  const problems: string[] = [];
  const domains = new Map<string, string>();
  for (const { domain, version } of model.opsetImport) {
    const name = isDefaultDomain(domain) ? "" : (domain as string);
    const known = domains.get(name);
    if (known !== undefined && known !== String(version)) {
      problems.push(`the domain '${name}' is imported twice, as versions ${known} and ${version}`);
    }
    domains.set(name, String(version));
  }
  const functions = new Set<string>();
  for (const fn of model.functions) {
    const id = functionId(fn);
    if (functions.has(id)) problems.push(`the function ${id} is defined twice`);
    functions.add(id);
  }
  const imported = importedDomains(model.opsetImport);
  checkGraph(model.graph, new Set(), imported, "", problems);
  for (const fn of model.functions) {
    const where = `function ${functionId(fn)}: `;
    const names = new Set<string>();
    for (const input of fn.input) define(input, names, where, problems);
    checkNodes(fn.node, names, importedDomains(fn.opsetImport), where, problems);
    for (const output of fn.output) {
      if (!names.has(output)) problems.push(`${where}the output '${output}' is made by no node`);
    }
  }
  return problems;
}

function functionId(fn: FunctionProto): string {
  return `${fn.domain ?? ""}::${fn.name ?? ""}${fn.overload ? `:${fn.overload}` : ""}`;
}

function importedDomains(imports: readonly OperatorSetId[]): ReadonlySet<string> {
  return new Set(imports.map(({ domain }) => (isDefaultDomain(domain) ? "" : (domain as string))));
}

function define(name: string, names: Set<string>, where: string, problems: string[]): void {
  if (names.has(name)) problems.push(`${where}the value '${name}' is defined twice`);
  names.add(name);
}

/**
 * @param outer the values that the graph may capture. A node of a nested graph must not make one of them again; the
 * inputs of a nested graph may hide them, as in `onnx.checker`.
 */
function checkGraph(
  graph: GraphProto,
  outer: ReadonlySet<string>,
  imported: ReadonlySet<string>,
  where: string,
  problems: string[],
): void {
  const inputs = new Set<string>();
  for (const input of graph.input) {
    if (!input.name) problems.push(`${where}an input has no name`);
    define(input.name ?? "", inputs, where, problems);
  }
  const initializers = new Set<string>();
  const sparse = (graph.sparseInitializer ?? []).map((tensor) => tensor.values?.name ?? "");
  for (const name of [...graph.initializer.map((tensor) => tensor.name ?? ""), ...sparse]) {
    if (!name) problems.push(`${where}an initializer has no name`);
    if (initializers.has(name)) problems.push(`${where}the initializer '${name}' is defined twice`);
    initializers.add(name);
  }
  // An initializer of an input's name is that input's default value.
  const names = new Set([...outer, ...inputs, ...initializers]);
  checkNodes(graph.node, names, imported, where, problems);
  const outputs = new Set<string>();
  for (const { name = "" } of graph.output) {
    if (!names.has(name)) problems.push(`${where}the output '${name}' is made by no node`);
    if (outputs.has(name)) problems.push(`${where}the output '${name}' is listed twice`);
    outputs.add(name);
  }
}

function checkNodes(
  nodes: readonly NodeProto[],
  names: Set<string>,
  imported: ReadonlySet<string>,
  where: string,
  problems: string[],
): void {
  const later = new Map<string, NodeProto>();
  for (const node of nodes) for (const output of node.output) if (output) later.set(output, node);
  const nodeNames = new Set<string>();
  for (const node of nodes) {
    // The specification allows it; ONNX Runtime does not.
    if (node.name && nodeNames.has(node.name)) problems.push(`${where}two nodes have the name '${node.name}'`);
    nodeNames.add(node.name ?? "");
    const label = `${where}node '${node.name || node.output.find(Boolean) || "?"}' (${node.opType || "no operator"})`;
    if (!imported.has(isDefaultDomain(node.domain) ? "" : (node.domain as string))) {
      problems.push(`${label}: the model does not import its domain '${node.domain}'`);
    }
    for (const input of node.input) {
      if (!input || names.has(input)) continue;
      const producer = later.get(input);
      problems.push(
        producer
          ? `${label} uses '${input}' before node '${producer.name || producer.opType}' makes it: the nodes are not in order`
          : `${label} uses '${input}', which nothing makes`,
      );
    }
    for (const inner of subgraphsOf(node)) checkGraph(inner, names, imported, `${label}: `, problems);
    for (const output of node.output) if (output) define(output, names, where, problems);
    const attributes = new Set<string>();
    for (const { name = "" } of node.attribute) {
      if (attributes.has(name)) problems.push(`${label} has the attribute '${name}' twice`);
      attributes.add(name);
    }
  }
}
