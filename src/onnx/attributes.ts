/** Reading and writing node attributes. */
import { type AttributeProto, AttributeType, type GraphProto, type NodeProto, type TensorProto } from "./proto.js";
import { toNumber } from "./tensor.js";

/** A float attribute: a plain number means an int. */
export class FloatAttribute {
  constructor(readonly value: number | readonly number[]) {}
}

/** Marks a number, or a list of numbers, as a float attribute. */
export function float(value: number | readonly number[]): FloatAttribute {
  return new FloatAttribute(value);
}

/** number → int, number[] → ints, `float(x)` → float(s), string(s), tensor, graph; undefined leaves it out. */
export type AttributeValue =
  | number
  | readonly number[]
  | FloatAttribute
  | string
  | readonly string[]
  | TensorProto
  | GraphProto
  | undefined;

export type Attributes = Record<string, AttributeValue>;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function attributesFrom(attributes: Attributes): AttributeProto[] {
  return Object.entries(attributes).flatMap(([name, value]) =>
    value === undefined ? [] : [attributeFrom(name, value)],
  );
}

function attributeFrom(name: string, value: Exclude<AttributeValue, undefined>): AttributeProto {
  if (value instanceof FloatAttribute) {
    return typeof value.value === "number"
      ? { name, type: AttributeType.FLOAT, f: value.value }
      : { name, type: AttributeType.FLOATS, floats: [...value.value] };
  }
  if (typeof value === "number") {
    if (!Number.isInteger(value)) throw new Error(`attribute '${name}': ${value} is not an int; use float(${value})`);
    return { name, type: AttributeType.INT, i: value };
  }
  if (typeof value === "string") return { name, type: AttributeType.STRING, s: encoder.encode(value) };
  if (Array.isArray(value)) {
    if (typeof value[0] === "string") {
      return { name, type: AttributeType.STRINGS, strings: (value as string[]).map((text) => encoder.encode(text)) };
    }
    return { name, type: AttributeType.INTS, ints: [...(value as number[])] };
  }
  if ("node" in (value as object)) return { name, type: AttributeType.GRAPH, g: value as GraphProto };
  return { name, type: AttributeType.TENSOR, t: value as TensorProto };
}

export function attributeOf(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((attribute) => attribute.name === name);
}

export function hasAttribute(node: NodeProto, name: string): boolean {
  return attributeOf(node, name) !== undefined;
}

export function intOf(node: NodeProto, name: string, fallback: number): number;
export function intOf(node: NodeProto, name: string): number | undefined;
export function intOf(node: NodeProto, name: string, fallback?: number): number | undefined {
  const attribute = attributeOf(node, name);
  return attribute ? toNumber(attribute.i) : fallback;
}

export function floatOf(node: NodeProto, name: string, fallback: number): number {
  const attribute = attributeOf(node, name);
  return attribute ? (attribute.f ?? 0) : fallback;
}

export function intsOf(node: NodeProto, name: string): number[] | undefined {
  return attributeOf(node, name)?.ints?.map((value) => toNumber(value));
}

export function floatsOf(node: NodeProto, name: string): number[] | undefined {
  const attribute = attributeOf(node, name);
  return attribute ? [...(attribute.floats ?? [])] : undefined;
}

export function stringOf(node: NodeProto, name: string, fallback: string): string {
  const attribute = attributeOf(node, name);
  return attribute?.s ? decoder.decode(attribute.s) : fallback;
}

export function stringsOf(node: NodeProto, name: string): string[] | undefined {
  return attributeOf(node, name)?.strings?.map((bytes) => decoder.decode(bytes));
}

export function tensorOf(node: NodeProto, name: string): TensorProto | undefined {
  return attributeOf(node, name)?.t ?? undefined;
}

export function graphOf(node: NodeProto, name: string): GraphProto | undefined {
  return attributeOf(node, name)?.g ?? undefined;
}

/** The subgraphs of a control-flow node. */
export function subgraphsOf(node: NodeProto): GraphProto[] {
  return node.attribute.flatMap((attribute) => [...(attribute.g ? [attribute.g] : []), ...(attribute.graphs ?? [])]);
}
