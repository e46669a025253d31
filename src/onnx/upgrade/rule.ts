/** What a rule of the opset conversion is, and what it may ask. */
import type { GraphBuilder, ValueType } from "../builder.js";
import { DataType, type NodeProto, type TensorProto } from "../proto.js";

export interface ConversionContext {
  /** Takes the nodes that replace the present one. Names are unique in the model; constants go to the main graph. */
  readonly g: GraphBuilder;
  /** The type of a value; undefined inside subgraphs and when the rule did not ask for types. */
  typeOf(name: string): ValueType | undefined;
  /** The tensor behind a name, when it is a constant. */
  constant(name: string): TensorProto | undefined;
  /** Whether a node or a graph output uses a value. */
  isUsed(name: string): boolean;
}

export interface OpsetRule {
  readonly operators: readonly string[];
  /**
   * The opset that changed the operators. An upgrade applies to nodes of older opsets and answers in this one's terms;
   * a lowering applies to nodes of this opset and newer ones and answers in opset 18's.
   */
  readonly since: number;
  /** The rule asks for types: they are inferred once, before the conversion, when a node needs them. */
  readonly needsTypes?: boolean;
  /**
   * Returns the node that takes the given one's place, or returns nothing and has appended the replacement to
   * `context.g`, whose outputs bear the node's output names. Never changes the given node.
   * @throws CannotConvert when this node cannot be said in the other opset.
   */
  readonly convert: (node: NodeProto, context: ConversionContext) => NodeProto | undefined;
}

/** Why one node cannot be converted; completes the sentence "it …". */
export class CannotConvert extends Error {}

/** A constant in the type of `x`, or of its `elemType` where that is known. */
export function scalarLike(
  context: ConversionContext,
  x: string,
  value: number | readonly number[],
  elemType = context.typeOf(x)?.elemType,
): string {
  const { g } = context;
  if (elemType === DataType.FLOAT || elemType === DataType.DOUBLE) return g.constant(elemType, value);
  if (elemType === undefined) return g.op("CastLike", [g.f32(value), x]);
  if (elemType === DataType.FLOAT16 || elemType === DataType.BFLOAT16) return g.cast(g.f32(value), elemType);
  return g.constant(elemType, value);
}

/** The rank of a value, where it is known. */
export function rankOf(context: ConversionContext, name: string): number | undefined {
  return context.typeOf(name)?.shape?.length;
}
