/** One small model for each operator that has a gradient, to see what fishy makes of it. */
import type { Attributes } from "../../src/onnx/attributes.js";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { elementCount, tensorFromNumbers } from "../../src/onnx/tensor.js";
import { PROGRAM_OPSET } from "../../src/onnx/versions.js";

export interface Operand {
  /** Data has a symbolic batch as its first dimension, a weight is static, a constant is an initializer. */
  readonly role: "data" | "weight" | "constant";
  readonly type: DataType;
  readonly dims: readonly number[];
  /** In row-major order; random when left out. */
  readonly values?: readonly number[];
  /** Of random values; [-1, 1] when left out. Integers lie in [low, high). */
  readonly range?: readonly [number, number];
}

export const data = (...dims: number[]): Operand => ({ role: "data", type: DataType.FLOAT, dims });
export const weight = (...dims: number[]): Operand => ({ role: "weight", type: DataType.FLOAT, dims });
/** Data between `low` and `high`. */
export const dataIn = (low: number, high: number, ...dims: number[]): Operand => ({
  ...data(...dims),
  range: [low, high],
});
/** Data of whole numbers from 0 to `below` − 1. */
export const indices = (below: number, ...dims: number[]): Operand => ({
  ...dataIn(0, below, ...dims),
  type: DataType.INT64,
});
export const bools = (...dims: number[]): Operand => ({ ...dataIn(0, 2, ...dims), type: DataType.BOOL });
export const ints = (values: readonly number[], dims = [values.length]): Operand => ({
  role: "constant",
  type: DataType.INT64,
  dims,
  values,
});
export const floats = (values: readonly number[], dims: readonly number[] = []): Operand => ({
  role: "constant",
  type: DataType.FLOAT,
  dims,
  values,
});
export const constant = (type: DataType, values: readonly number[], dims: readonly number[] = []): Operand => ({
  role: "constant",
  type,
  dims,
  values,
});

export interface Case {
  readonly operator: string;
  readonly domain: string;
  /** What sets this case apart from the others of the operator. */
  readonly variant: string;
  readonly opset: number;
  readonly operands: Readonly<Record<string, Operand>>;
  /** Emits the forward graph over the operands, which are in the graph under their names; returns its outputs. */
  build(b: GraphBuilder): readonly string[];
}

export interface CaseOptions {
  readonly variant?: string;
  readonly opset?: number;
  readonly domain?: string;
  /** How many outputs the node has. */
  readonly outputs?: number;
  /** How many of them the graph returns, and the loss depends on; all when left out. */
  readonly returned?: number;
}

/**
 * A case of one node.
 * @param operands by the operator's own names for its inputs, in its order; undefined leaves an input out.
 */
export function node(
  operator: string,
  operands: Readonly<Record<string, Operand | undefined>>,
  attributes: Attributes = {},
  options: CaseOptions = {},
): Case {
  const { outputs = 1, returned = outputs, domain = "" } = options;
  const given = Object.entries(operands).filter((entry): entry is [string, Operand] => entry[1] !== undefined);
  return {
    ...graph(operator, Object.fromEntries(given), () => [], options),
    build: (b) => {
      const inputs = Object.entries(operands).map(([name, operand]) => (operand ? name : ""));
      return b.node(operator, inputs, { outputs, attributes, ...(domain && { domain }) }).slice(0, returned);
    },
  };
}

/** A case of several nodes: control flow, sequences. */
export function graph(
  operator: string,
  operands: Readonly<Record<string, Operand>>,
  build: Case["build"],
  options: CaseOptions = {},
): Case {
  const { variant = "", opset = PROGRAM_OPSET, domain = "" } = options;
  return { operator, domain, variant, opset, operands, build };
}

export function caseName({ operator, domain, variant }: Case): string {
  return `${operatorName(operator, domain)}${variant ? `, ${variant}` : ""}`;
}

/** `com.microsoft::Gelu`; without a prefix in the default domain. */
export function operatorName(operator: string, domain: string | undefined): string {
  return domain ? `${domain}::${operator}` : operator;
}

/** The source model of a case. */
export function modelOfCase(example: Case): ModelProto {
  const b = new GraphBuilder(emptyGraph("case"));
  for (const [name, { role, type, dims, values }] of Object.entries(example.operands)) {
    if (role === "constant") {
      b.graph.initializer.push(tensorFromNumbers(b.reserve(name), type, dims, values ?? []));
    } else {
      b.input(name, { elemType: type, shape: role === "data" ? ["batch", ...dims.slice(1)] : dims });
    }
  }
  b.graph.output.push(...example.build(b).map((name) => ({ name })));
  return {
    irVersion: 8,
    producerName: "fishy-docs",
    graph: b.graph,
    opsetImport: [
      { domain: "", version: example.opset },
      ...(example.domain ? [{ domain: example.domain, version: 1 }] : []),
    ],
    metadataProps: [],
    trainingInfo: [],
    functions: [],
  };
}

/** The values of an operand that is fed. */
export function valuesOf(operand: Operand, random: () => number): number[] {
  if (operand.values) return [...operand.values];
  const [low, high] = operand.range ?? [-1, 1];
  const whole = operand.type !== DataType.FLOAT;
  return Array.from({ length: elementCount(operand.dims) }, () => {
    const value = low + (high - low) * random();
    return whole ? Math.floor(value) : value;
  });
}
