/** Bodies of gradient operators from the gradient rules: the forward operator is laid again and differentiated. */
import { differentiate } from "../../autodiff/reverse.js";
import { emptyGraph, type ValueType, valueInfo } from "../../onnx/builder.js";
import { prune } from "../../onnx/graph.js";
import { DataType, type GraphProto } from "../../onnx/proto.js";
import { inferTypes, type TypeMap } from "../../onnx/types.js";
import { PROGRAM_IR, PROGRAM_OPSET } from "../../onnx/versions.js";
import { type BodyContext, NoBody } from "./body.js";

export interface Forward {
  /** Values that the forward operator reads, and their types; they are there in the body. */
  readonly inputs: ReadonlyMap<string, ValueType>;
  /** Emits the forward operator and returns its output. */
  emit(b: BodyContext["b"]): string;
  /** The output's cotangent. */
  readonly cotangent: string;
  /** What to differentiate with respect to, in the order of the gradient operator's outputs. */
  readonly wrt: readonly string[];
}

/** @returns the gradients in the order of `wrt`. */
export async function gradientsOf({ b }: BodyContext, forward: Forward): Promise<readonly string[]> {
  const start = b.graph.node.length;
  const output = forward.emit(b);
  const types = await typesOf(b.graph, start, forward, output);
  const graph: GraphProto = { ...b.graph, node: b.graph.node.slice(start) };
  const gradients = differentiate({
    builder: b,
    forward: graph,
    types,
    wrt: [...forward.wrt],
    seeds: new Map([[output, forward.cotangent]]),
  });
  return forward.wrt.map((name) => {
    const gradient = gradients.get(name);
    if (!gradient) throw new NoBody("has an input without gradient");
    return gradient;
  });
}

/** Types of the forward operator's values, as ONNX Runtime infers them from its inputs'. */
async function typesOf(whole: GraphProto, start: number, forward: Forward, output: string): Promise<TypeMap> {
  const node = whole.node.slice(start);
  const input = [...forward.inputs].map(([name, type]) => valueInfo(name, type));
  const graph: GraphProto = { ...emptyGraph("forward"), node: [...node], input, output: [{ name: output }] };
  graph.initializer = [...whole.initializer];
  prune(graph);
  return inferTypes({
    irVersion: PROGRAM_IR,
    graph,
    opsetImport: [{ domain: "", version: PROGRAM_OPSET }],
    metadataProps: [],
    trainingInfo: [],
    functions: [],
  });
}

/** The type of an input of the training model's node. */
export function typeAt(context: BodyContext, position: number): ValueType {
  return requireType(context, context.node.input[position] ?? "");
}

export function requireType(context: BodyContext, name: string): ValueType {
  const type = context.typeOf(name);
  if (!type?.shape) throw new NoBody(`reads '${name}', whose shape is unknown`);
  return type;
}

/** The forward value whose shape an input holds, of Shape(x). */
export function shapedValue(context: BodyContext, position: number): ValueType {
  const name = context.node.input[position] ?? "";
  const producer = context.producer(name);
  const source = producer?.opType === "Shape" ? (producer.input[0] ?? "") : undefined;
  if (source === undefined) throw new NoBody(`takes the shape '${name}', which is no Shape of a value`);
  return requireType(context, source);
}

/** Zeros of a shape that is known at run time. */
export function zerosOf({ b }: BodyContext, shape: string, type: ValueType): string {
  return b.expand(b.constant(type.elemType === DataType.UNDEFINED ? DataType.FLOAT : type.elemType, 0), shape);
}
