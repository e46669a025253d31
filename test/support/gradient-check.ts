/**
 * Checks the gradients that `differentiate` emits against finite differences of the forward graph. The scalar that
 * is differentiated is Σ c ⊙ y over the outputs y, with fixed random cotangents c.
 */
import * as ort from "onnxruntime-node";
import { expect } from "vitest";
import { differentiate } from "../../src/autodiff/reverse.js";
import type { GraphBuilder } from "../../src/onnx/builder.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType, type GraphProto } from "../../src/onnx/proto.js";
import { elementCount } from "../../src/onnx/tensor.js";
import { inferTypes } from "../../src/onnx/types.js";
import { type Feeds, modelOf, newBuilder, relativeError } from "./run.js";

/** Operators that have kernels on CPU, CUDA and WebGPU, or compute shapes, which stay on the CPU everywhere. */
const PORTABLE = new Set(
  (
    "Add Sub Mul Div Neg Abs Exp Log Sqrt Pow Reciprocal Erf Sigmoid Tanh Softplus Softmax Sin Cos Max Min Equal Less Greater Where " +
    "Not Cast MatMul Gemm Conv ConvTranspose AveragePool ReduceSum ReduceMax ReduceMean ReduceMin ArgMax CumSum Einsum LayerNormalization " +
    "Reshape Flatten Squeeze Unsqueeze Transpose Expand Concat Split Slice Pad Gather GatherElements GatherND ScatterElements " +
    "ScatterND Trilu Tile Identity Resize DepthToSpace SpaceToDepth"
  ).split(" "),
);
const SHAPE_ONLY = new Set(["Shape", "Size", "NonZero", "Range"]);

export interface CheckedInput {
  readonly dims: readonly number[];
  /** Contents in row-major order; uniform over `range` by default. */
  readonly values?: readonly number[];
  readonly range?: readonly [number, number];
  /** Points (kinks) that values keep away from by more than any step of the stencil. */
  readonly avoid?: readonly number[];
  /** `int64`, `int32` and `bool` inputs are fed but not differentiated. */
  readonly type?: "float" | "int64" | "int32" | "bool";
  /** Its shape is known whatever the check withholds: a weight. */
  readonly known?: boolean;
  /** Whether to differentiate with respect to it; true for floats. */
  readonly wrt?: boolean;
}

export interface GradientCheck {
  readonly inputs: readonly CheckedInput[];
  /** Emits the forward graph and returns its outputs. */
  build(b: GraphBuilder, x: readonly string[]): string | readonly string[];
  /** float64 unless the operator has no such kernel on the CPU. */
  readonly precision?: "float64" | "float32";
  /** Which dimensions of the inputs the rule may know: all, all but the first, none but the rank. All three by default. */
  readonly shapes?: readonly Knowledge[];
  /** Step of the stencil; any step is exact for functions that are linear in each input. */
  readonly step?: number;
  readonly tolerance?: number;
  readonly seed?: number;
  readonly opset?: number;
  /** Lets backward nodes be operators that not every device has. */
  readonly allow?: readonly string[];
}

export type Knowledge = "static" | "batch" | "symbolic";

/** Asserts that every gradient agrees with finite differences, whatever is known of the shapes. */
export async function expectGradients(check: GradientCheck): Promise<void> {
  for (const knowledge of check.shapes ?? (["static", "batch", "symbolic"] as const)) {
    await expectGradientsKnowing(check, knowledge);
  }
}

async function expectGradientsKnowing(check: GradientCheck, knowledge: Knowledge): Promise<void> {
  const double = isDouble(check);
  const step = stepOf(check);
  const tolerance = check.tolerance ?? (double ? 1e-7 : 1e-4);
  const run = await prepare(check, knowledge);
  const computed = await run.gradients();
  const total = async () => {
    const y = await run.forward();
    let sum = 0;
    for (const [i, weights] of run.cotangents.entries()) {
      const data = y[i] as Float64Array;
      for (let k = 0; k < data.length; k++) sum += (data[k] as number) * (weights.data[k] as number);
    }
    return sum;
  };
  for (const [name, result] of computed) {
    const x = run.feeds[name] as ort.Tensor;
    const expected = await finiteDifferences(x.data as Float64Array, step, total);
    const label = `gradient of ${name} knowing ${knowledge} shapes`;
    if (!result) {
      expect(Math.max(0, ...expected.map(Math.abs)), `${label} is absent, so zero`).toBeLessThan(tolerance);
      continue;
    }
    expect(result.dims, label).toEqual(x.dims);
    const norm = Math.hypot(...expected);
    const error = relativeError(result.data as Float64Array, expected);
    const scaled = norm > 0 && norm < 1 ? error * norm : error;
    expect(scaled, `${label}: ${format(result.data as Float64Array)} for ${format(expected)}`).toBeLessThan(tolerance);
  }
  await run.release();
}

/** The gradients of Σ y (all cotangents one) with respect to each differentiable input, for hand-made expectations. */
export async function gradientsOf(check: GradientCheck): Promise<number[][]> {
  const run = await prepare(check, "static", () => 1);
  const gradients = await run.gradients();
  await run.release();
  return [...gradients.values()].map((tensor) => Array.from((tensor?.data ?? []) as Float64Array));
}

/** Builds, differentiates and loads both graphs. */
async function prepare(check: GradientCheck, knowledge: Knowledge, cotangent?: () => number) {
  const double = isDouble(check);
  const floatType = double ? DataType.DOUBLE : DataType.FLOAT;
  const random = mulberry32(check.seed ?? 1);
  const b = newBuilder();
  const names = check.inputs.map((input, i) =>
    b.input(`x${i}`, {
      elemType: elementType(input, floatType),
      shape: declaredShape(input.dims, i, input.known ? "static" : knowledge),
    }),
  );
  const built = check.build(b, names);
  const outputs = typeof built === "string" ? [built] : [...built];
  const wrt = names.filter((_, i) => isFloat(check.inputs[i] as CheckedInput) && check.inputs[i]?.wrt !== false);

  const forward = snapshot(b.graph, outputs);
  const types = await inferTypes(modelOf(forward, check.opset));
  const seeds = new Map(
    outputs.map((name, i) => [name, b.input(`cotangent${i}`, { elemType: floatType, shape: types.get(name)?.shape })]),
  );
  const gradients = differentiate({ builder: b, forward, types, wrt, seeds });
  expectPortable(b.graph, forward.node.length, check.allow ?? []);

  const feeds: Feeds = Object.fromEntries(
    check.inputs.map((input, i) => [`x${i}`, tensorOf(input, double, random, stepOf(check) * 4)]),
  );
  const forwardSession = await load(forward, check.opset);
  const runForward = async () => {
    const results = await forwardSession.run(feeds);
    return outputs.map((name) => results[name] as ort.Tensor);
  };
  const cotangents = (await runForward()).map(({ dims }) =>
    floatTensor(Array.from({ length: elementCount(dims) }, cotangent ?? (() => random() * 2 - 1)), dims, double),
  );
  const results = [...new Set(gradients.values())];
  const session = results.length > 0 ? await load(snapshot(b.graph, results), check.opset) : undefined;
  return {
    feeds,
    cotangents,
    forward: async () => (await runForward()).map((tensor) => tensor.data),
    /** By input name; undefined where no cotangent flows. */
    async gradients(): Promise<Map<string, ort.Tensor | undefined>> {
      const seeded = Object.fromEntries(cotangents.map((tensor, i) => [`cotangent${i}`, tensor]));
      const computed = session ? await session.run({ ...feeds, ...seeded }) : {};
      return new Map(wrt.map((name) => [name, computed[gradients.get(name) ?? ""] as ort.Tensor | undefined]));
    },
    async release() {
      await forwardSession.release();
      await session?.release();
    },
  };
}

const isDouble = (check: GradientCheck) => (check.precision ?? "float64") === "float64";
const stepOf = (check: GradientCheck) => check.step ?? (isDouble(check) ? 1e-3 : 2 ** -5);

/** Fourth-order central differences of `f` in each element of `x`, which is changed in place and put back. */
async function finiteDifferences(x: Float64Array, step: number, f: () => Promise<number>): Promise<number[]> {
  const derivatives: number[] = [];
  for (let i = 0; i < x.length; i++) {
    const at = x[i] as number;
    const value = async (offset: number) => {
      x[i] = at + offset;
      return f();
    };
    const near = (await value(step)) - (await value(-step));
    const far = (await value(2 * step)) - (await value(-2 * step));
    x[i] = at;
    derivatives.push((8 * near - far) / (12 * step));
  }
  return derivatives;
}

function expectPortable(graph: GraphProto, forwardNodes: number, allowed: readonly string[]): void {
  const emitted = new Set(graph.node.slice(forwardNodes).map((node) => node.opType ?? ""));
  const foreign = [...emitted].filter((op) => !PORTABLE.has(op) && !SHAPE_ONLY.has(op) && !allowed.includes(op));
  expect(foreign, "operators of the backward graph that some device lacks").toEqual([]);
}

function snapshot(graph: GraphProto, outputs: readonly string[]): GraphProto {
  return {
    ...graph,
    node: [...graph.node],
    initializer: [...graph.initializer],
    input: [...graph.input],
    output: outputs.map((name) => ({ name })),
  };
}

function load(graph: GraphProto, opset: number | undefined) {
  return ort.InferenceSession.create(encodeModel(modelOf(graph, opset)), {
    logSeverityLevel: 3,
    graphOptimizationLevel: "disabled",
    intraOpNumThreads: 1,
  });
}

const isFloat = (input: CheckedInput) => (input.type ?? "float") === "float";

function elementType(input: CheckedInput, floatType: DataType): DataType {
  const types = { float: floatType, int64: DataType.INT64, int32: DataType.INT32, bool: DataType.BOOL };
  return types[input.type ?? "float"];
}

function declaredShape(dims: readonly number[], input: number, knowledge: Knowledge) {
  if (knowledge === "static") return dims;
  if (knowledge === "batch") return dims.map((dim, axis) => (axis === 0 ? `batch_${dim}` : dim));
  return dims.map((_, axis) => `d${input}_${axis}`);
}

function tensorOf(input: CheckedInput, double: boolean, random: () => number, margin: number): ort.Tensor {
  const count = elementCount(input.dims);
  const [low, high] = input.range ?? [-1, 1];
  const draw = () => {
    for (;;) {
      const value = low + (high - low) * random();
      if ((input.avoid ?? []).every((point) => Math.abs(value - point) > margin)) return value;
    }
  };
  const values = input.values ?? Array.from({ length: count }, draw);
  switch (input.type ?? "float") {
    case "int64":
      return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [...input.dims]);
    case "int32":
      return new ort.Tensor("int32", Int32Array.from(values), [...input.dims]);
    case "bool":
      return new ort.Tensor("bool", Uint8Array.from(values), [...input.dims]);
    default:
      return floatTensor(values, input.dims, double);
  }
}

function floatTensor(values: readonly number[], dims: readonly number[], double: boolean): ort.Tensor {
  return double
    ? new ort.Tensor("float64", Float64Array.from(values), [...dims])
    : new ort.Tensor("float32", Float32Array.from(values), [...dims]);
}

function format(values: ArrayLike<number>): string {
  return `[${Array.from(values)
    .slice(0, 12)
    .map((value) => value.toPrecision(5))
    .join(", ")}${values.length > 12 ? ", …" : ""}]`;
}

/** A small seeded generator of uniforms on [0, 1) (Tommy Ettinger's mulberry32). */
export function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
