/** Checks of the opset conversion: ONNX Runtime, which runs every opset, must give the same before and after. */
import * as ort from "onnxruntime-node";
import { expect } from "vitest";
import { type Attributes, attributesFrom } from "../../src/onnx/attributes.js";
import type { ValueType } from "../../src/onnx/builder.js";
import { problemsOf } from "../../src/onnx/check.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType, type ModelProto, type TensorProto } from "../../src/onnx/proto.js";
import { toProgramOpset } from "../../src/onnx/upgrade/upgrade.js";
import { opsetOf, PROGRAM_OPSET } from "../../src/onnx/versions.js";
import { type Feeds, modelOf, newBuilder, relativeError, runModel } from "./run.js";

export interface OneOperator {
  readonly opset: number;
  readonly operator: string;
  /** Tensors become graph inputs, unless `constant` lists their position; null leaves an input out. */
  readonly inputs: readonly (ort.Tensor | null)[];
  readonly constant?: readonly number[];
  readonly attributes?: Attributes;
  /** Which outputs exist; default the first alone. */
  readonly outputs?: readonly boolean[];
  readonly outputTypes?: readonly DataType[];
}

const TYPES: Record<string, DataType> = {
  float32: DataType.FLOAT,
  float64: DataType.DOUBLE,
  int32: DataType.INT32,
  int64: DataType.INT64,
  int8: DataType.INT8,
  uint8: DataType.UINT8,
  bool: DataType.BOOL,
};

/** Values in a fixed irregular order between −scale and scale. */
export function wave(dims: readonly number[], scale = 2, phase = 0): ort.Tensor {
  const count = dims.reduce((a, b) => a * b, 1);
  const data = Float32Array.from({ length: count }, (_, i) => scale * Math.sin(12.9898 * i + 4.1414 + phase));
  return new ort.Tensor("float32", data, [...dims]);
}

export function i64(values: readonly number[], dims: readonly number[] = [values.length]): ort.Tensor {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [...dims]);
}

/** A model of one node, with symbolic first dimensions, and its feeds. */
export function modelOfOne(op: OneOperator): { model: ModelProto; feeds: Feeds } {
  const g = newBuilder();
  const feeds: Feeds = {};
  const names = op.inputs.map((tensor, index) => {
    if (!tensor) return "";
    const elemType = TYPES[tensor.type] as DataType;
    const name = `x${index}`;
    if (op.constant?.includes(index)) return g.initializer(name, elemType, tensor.dims, tensor.data as Float32Array);
    feeds[name] = tensor;
    const type: ValueType = { elemType, shape: tensor.dims.map((dim, axis) => (axis === 0 ? `n${index}` : dim)) };
    return g.input(name, type);
  });
  const outputs = (op.outputs ?? [true]).map((exists, index) => (exists ? `y${index}` : ""));
  g.node(op.operator, names, { outputs, attributes: op.attributes ?? {}, name: "node" });
  for (const [index, name] of outputs.entries()) {
    if (name) g.output(name, { elemType: op.outputTypes?.[index] ?? DataType.FLOAT, shape: undefined });
  }
  return { model: modelOf(g.graph, op.opset), feeds };
}

export function operatorsOf(model: ModelProto): string[] {
  return model.graph.node.map((node) => node.opType ?? "");
}

/** Converts and checks the model's form; the source must stay as it was. */
export async function convert(model: ModelProto): Promise<ModelProto> {
  const before = encodeModel(model);
  const converted = await toProgramOpset(model);
  expect(Buffer.compare(encodeModel(model), before), "the source is unchanged").toBe(0);
  expect(opsetOf(converted)).toBe(PROGRAM_OPSET);
  expect(converted.functions).toEqual([]);
  expect(problemsOf(converted)).toEqual([]);
  expect(converted.graph.input.map(({ name }) => name)).toEqual(model.graph.input.map(({ name }) => name));
  expect(converted.graph.output.map(({ name }) => name)).toEqual(model.graph.output.map(({ name }) => name));
  return converted;
}

/** Outputs of two runs, equal up to `tolerance` (relative, in norm); NaN and infinities must stand in the same places. */
export function expectSameOutputs(
  actual: Record<string, ort.Tensor>,
  expected: Record<string, ort.Tensor>,
  tolerance: number,
): void {
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const [name, tensor] of Object.entries(expected)) {
    const other = actual[name] as ort.Tensor;
    expect(other.dims, name).toEqual(tensor.dims);
    expect(other.type, name).toEqual(tensor.type);
    const [a, b] = [other, tensor].map(({ data }) => Array.from(data as Float32Array, Number)) as [number[], number[]];
    expect(b.length, `${name} has elements`).toBeGreaterThan(0);
    const finite = (values: number[]) => values.map((x) => (Number.isFinite(x) ? 0 : x));
    expect(finite(a), name).toEqual(finite(b));
    const zeroed = (values: number[]) => values.map((x) => (Number.isFinite(x) ? x : 0));
    expect(relativeError(zeroed(a), zeroed(b)), name).toBeLessThanOrEqual(tolerance);
  }
}

/** Runs a model before and after its conversion; returns the converted model's operators. */
export async function expectSame(model: ModelProto, feeds: Feeds, tolerance = 1e-6): Promise<string[]> {
  const converted = await convert(model);
  // Without ONNX Runtime's own rewriting, which the versions of an operator do not share.
  const options = { graphOptimizationLevel: "disabled" as const };
  expectSameOutputs(await runModel(converted, feeds, options), await runModel(model, feeds, options), tolerance);
  return operatorsOf(converted);
}

export function expectSameOperator(op: OneOperator, tolerance?: number): Promise<string[]> {
  const { model, feeds } = modelOfOne(op);
  return expectSame(model, feeds, tolerance);
}

/** A Constant node's attribute, for models built by hand. */
export function withConstant(model: ModelProto, name: string, value: TensorProto): ModelProto {
  const node = { input: [], output: [name], opType: "Constant", attribute: attributesFrom({ value }) };
  model.graph.node.unshift(node);
  return model;
}
