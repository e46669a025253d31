/** What emits the body of a polyfilled operator. */
import type { GraphBuilder, ValueType } from "../../onnx/builder.js";
import type { NodeProto, TensorProto } from "../../onnx/proto.js";

export interface BodyContext {
  readonly b: GraphBuilder;
  /** The node in the training model. */
  readonly node: NodeProto;
  /** Names inside the body; "" for an input that is left out. */
  readonly inputs: readonly string[];
  /** The type of a value of the training model's forward pass; undefined when it is not known. */
  typeOf(name: string): ValueType | undefined;
  /** The node of the training model that makes a value. */
  producer(name: string): NodeProto | undefined;
  constantOf(name: string): TensorProto | undefined;
}

/**
 * Emits a body and returns the values of the node's outputs, all of them.
 * @throws NoBody when the node cannot be said with the operators of an inference build.
 */
export type Body = (context: BodyContext) => readonly string[] | Promise<readonly string[]>;

/** Completes the sentence "it …". */
export class NoBody extends Error {}

/** The rank of a forward value, where a body must name axes. */
export function rankOf(context: BodyContext, position: number): number {
  const name = context.node.input[position] ?? "";
  const shape = context.typeOf(name)?.shape;
  if (!shape) throw new NoBody(`reads '${name}', whose rank is unknown`);
  return shape.length;
}

/** A constant of a float value's type. */
export function scalarLike(context: BodyContext, position: number, value: number): string {
  const type = context.typeOf(context.node.input[position] ?? "")?.elemType;
  // Gradients have the type of what they are the gradient of; nearly all are float.
  return type === undefined ? context.b.f32(value) : context.b.constant(type, value);
}

/** The value of an input in the body. */
export function at({ inputs }: BodyContext, position: number): string {
  return inputs[position] as string;
}

export function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}
