/** What differs between two models, or two training programs: the graph, the parameters' values, the manifest. */
import { createHash } from "node:crypto";
import { readTensor } from "../onnx/external.js";
import { isHalf, widen } from "../onnx/half.js";
import type { OnnxModel } from "../onnx/model-file.js";
import { compareOperators, type OperatorCount } from "../onnx/opcount.js";
import type { AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto } from "../onnx/proto.js";
import { GraphType, TensorType } from "../onnx/schema.js";
import { dataTypeName, dimsOf, type TensorData } from "../onnx/tensor.js";
import { declaredType } from "../onnx/types.js";
import { describe } from "./loss-target.js";
import { MANIFEST_KEY, readManifest } from "./manifest.js";

/** A fact by name that is another in each; null where one has no such fact. */
export interface Difference {
  readonly name: string;
  readonly before: string | null;
  readonly after: string | null;
}

/** A node that one of two graphs lacks, or that differs in them. */
export interface NodeDifference {
  /** The node's name, else its first output. */
  readonly node: string;
  readonly change: "added" | "removed" | "changed";
  readonly operator: string;
  /** What changed of it: its operator, inputs, outputs, attributes. */
  readonly details: readonly Difference[];
}

/** An initializer that one of two models lacks, or that differs in them. */
export interface ParameterDifference {
  readonly name: string;
  readonly change: "added" | "removed" | "type" | "values";
  /** Such as `float [3, 4]`; null where there is none. */
  readonly before: string | null;
  readonly after: string | null;
  /** max|b − a| and ‖b − a‖/‖a‖, where the types and shapes are the same. */
  readonly largest?: number;
  readonly relative?: number;
}

/** All that differs between two models. */
export interface ModelDiff {
  readonly identical: boolean;
  /** Opset, IR version, producer, inputs, outputs, metadata. */
  readonly model: readonly Difference[];
  /** Operators whose number differs. */
  readonly operators: readonly OperatorCount[];
  readonly nodes: readonly NodeDifference[];
  readonly parameters: readonly ParameterDifference[];
  /** Initializers with the same bits in both. */
  readonly equalParameters: number;
  /** Of two training programs: loss, score, draw, and each boundary's and section's entries. */
  readonly program: readonly Difference[];
}

/**
 * Compares two models. Nodes are matched by name, else by their first output, parameters by name. Values are read one
 * parameter at a time, also from external data.
 */
export async function diffModels(before: OnnxModel, after: OnnxModel): Promise<ModelDiff> {
  const [a, b] = [before.proto, after.proto];
  const { different, equal } = await diffParameters(before, after);
  const diff = {
    model: differences(modelFacts(a), modelFacts(b)),
    operators: compareOperators(a, b).rows.filter((row) => row.before !== row.after),
    nodes: diffNodes(a.graph, b.graph),
    parameters: different,
    equalParameters: equal,
    program: differences(programFacts(a, before.path), programFacts(b, after.path)),
  };
  const identical = [diff.model, diff.nodes, diff.parameters, diff.program].every(({ length }) => length === 0);
  return { identical, ...diff };
}

type Facts = ReadonlyMap<string, string>;

function differences(before: Facts, after: Facts): Difference[] {
  return [...new Set([...before.keys(), ...after.keys()])].flatMap((name) => {
    const [old, next] = [before.get(name) ?? null, after.get(name) ?? null];
    return old === next ? [] : [{ name, before: old, after: next }];
  });
}

function modelFacts(model: ModelProto): Facts {
  const initializers = new Set(model.graph.initializer.map(({ name }) => name));
  const values = (kind: string, infos: readonly ValueInfoProto[]) =>
    infos
      .filter(({ name }) => kind === "output" || !initializers.has(name))
      .map((info): [string, string] => [`${kind} ${info.name}`, describe(declaredType(info))]);
  return new Map([
    ["IR version", String(model.irVersion ?? "")],
    ...model.opsetImport.map(({ domain, version }): [string, string] => [
      `opset ${domain || "ai.onnx"}`,
      String(version),
    ]),
    ["producer", [model.producerName, model.producerVersion].filter(Boolean).join(" ")],
    ...values("input", model.graph.input),
    ...values("output", model.graph.output),
    ...model.functions.map(({ name, node }): [string, string] => [`function ${name}`, bodyText(node)]),
    ...model.metadataProps
      .filter(({ key }) => key !== MANIFEST_KEY)
      .map(({ key, value }): [string, string] => [`metadata ${key}`, shorten(value ?? "")]),
  ]);
}

function diffNodes(before: GraphProto, after: GraphProto): NodeDifference[] {
  const [old, next] = [nodesByKey(before.node), nodesByKey(after.node)];
  return [...new Set([...old.keys(), ...next.keys()])].flatMap((node): NodeDifference[] => {
    const [a, b] = [old.get(node), next.get(node)];
    const operator = (b ?? a)?.opType ?? "";
    if (!a || !b) return [{ node, change: a ? "removed" : "added", operator, details: [] }];
    const details = differences(nodeFacts(a), nodeFacts(b));
    return details.length > 0 ? [{ node, change: "changed", operator, details }] : [];
  });
}

function nodesByKey(nodes: readonly NodeProto[]): Map<string, NodeProto> {
  const names = new Map<string, number>();
  for (const { name = "" } of nodes) names.set(name, (names.get(name) ?? 0) + 1);
  const isUnique = ({ name = "" }: NodeProto) => name !== "" && names.get(name) === 1;
  return new Map(
    nodes.map((node) => [isUnique(node) ? (node.name as string) : (node.output.find(Boolean) ?? ""), node]),
  );
}

function nodeFacts(node: NodeProto): Facts {
  return new Map([
    ["operator", node.domain ? `${node.domain}::${node.opType}` : (node.opType ?? "")],
    ["inputs", node.input.join(", ")],
    ["outputs", node.output.join(", ")],
    ...node.attribute.map((attribute): [string, string] => [attribute.name ?? "", attributeText(attribute)]),
  ]);
}

const decoder = new TextDecoder();

function attributeText(attribute: AttributeProto): string {
  const { f, i, s, t, g, floats, ints, strings } = attribute;
  if (t) return tensorText(t);
  if (g) return `graph of ${g.node.length} nodes, ${digest(GraphType.encode(g).finish())}`;
  if (floats?.length) return `[${floats.join(", ")}]`;
  if (ints?.length) return `[${ints.join(", ")}]`;
  if (strings?.length) return `[${strings.map((text) => decoder.decode(text)).join(", ")}]`;
  if (s?.length) return decoder.decode(s);
  return String(Object.hasOwn(attribute, "f") ? f : (i ?? ""));
}

function bodyText(nodes: readonly NodeProto[]): string {
  const facts = nodes.map((node) => [...nodeFacts(node)]);
  return `${nodes.length} nodes, ${digest(Buffer.from(JSON.stringify(facts)))}`;
}

function tensorText(tensor: TensorProto): string {
  return `${typeText(tensor)}, ${digest(TensorType.encode({ ...tensor, name: "" }).finish())}`;
}

function typeText(tensor: TensorProto): string {
  return `${dataTypeName(tensor.dataType ?? 0)} [${dimsOf(tensor).join(", ")}]`;
}

function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 12);
}

const LONGEST = 80;

function shorten(text: string): string {
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST)}… (${digest(Buffer.from(text))})`;
}

async function diffParameters(
  before: OnnxModel,
  after: OnnxModel,
): Promise<{ different: ParameterDifference[]; equal: number }> {
  const byName = ({ proto }: OnnxModel) =>
    new Map(proto.graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
  const [old, next] = [byName(before), byName(after)];
  const different: ParameterDifference[] = [];
  let equal = 0;
  for (const name of new Set([...old.keys(), ...next.keys()])) {
    const [a, b] = [old.get(name), next.get(name)];
    const types = { before: a ? typeText(a) : null, after: b ? typeText(b) : null };
    if (!a || !b) different.push({ name, change: a ? "removed" : "added", ...types });
    else if (types.before !== types.after) different.push({ name, change: "type", ...types });
    else {
      const distance = distanceBetween(a, await readTensor(before, a), await readTensor(after, b));
      if (distance) different.push({ name, change: "values", ...types, ...distance });
      else equal++;
    }
  }
  return { different, equal };
}

/** Undefined when all bits are the same. */
function distanceBetween(
  { dataType }: TensorProto,
  a: TensorData,
  b: TensorData,
): { largest: number; relative: number } | undefined {
  const bytes = (data: TensorData) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (bytes(a).equals(bytes(b))) return undefined;
  const [x, y] = [a, b].map((data) => (isHalf(dataType) ? widen(dataType, data as Uint16Array) : data)) as [
    TensorData,
    TensorData,
  ];
  let [largest, square, norm] = [0, 0, 0];
  for (let i = 0; i < x.length; i++) {
    const [from, to] = [Number(x[i]), Number(y[i])];
    // Two infinities of one sign do not differ.
    const difference = from === to ? 0 : Math.abs(to - from);
    largest = Number.isNaN(difference) || Number.isNaN(largest) ? Number.NaN : Math.max(largest, difference);
    square += difference ** 2;
    norm += from ** 2;
  }
  return { largest, relative: square === 0 ? 0 : Math.sqrt(square / norm) };
}

/** The manifest's entries, by readable names; none for a model that is no program. */
function programFacts(model: ModelProto, source: string): Facts {
  const manifest = readManifest(model, source);
  if (!manifest) return new Map();
  const { loss, boundaries, sections, parameters, ...rest } = manifest;
  const family = (name: string, values: Readonly<Record<string, number>>) => {
    const list = Object.entries(values).map(([key, value]) => `${key}=${value}`);
    return list.length > 0 ? `${name}(${list.join(", ")})` : name;
  };
  return new Map([
    ...Object.entries(loss).map(([name, value]): [string, string] => [`loss ${name}`, String(value)]),
    ...(["score", "draw", "version"] as const).map((name): [string, string] => [name, String(rest[name])]),
    ["frozen", rest.frozen.join(", ")],
    ["running statistics", rest.runningStatistics.map(({ name }) => name).join(", ")],
    ["trained parameters", parameters.map(({ name }) => name).join(", ")],
    ...boundaries.map((boundary): [string, string] => [
      `boundary ${boundary.preActivation}`,
      `${boundary.name}: ${family(boundary.family, boundary.familyParameters)}`,
    ]),
    ...sections.map((section): [string, string] => [`section ${section.name}`, section.parameters.join(", ")]),
  ]);
}
