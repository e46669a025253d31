/**
 * What ONNX Runtime's WebGPU has no kernel for, fails at or takes wrong: replaced by what it runs right, or refused by
 * name. The defects themselves are under test too, so that their replacements can go when they are gone.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { float } from "../../src/onnx/attributes.js";
import type { GraphBuilder, ValueType } from "../../src/onnx/builder.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { toWebGpuModel, type WebGpuModel } from "../../src/placement/webgpu-model.js";
import { BoundSession, DeviceCopies } from "../../src/runtime/bound-session.js";
import { modelOf, newBuilder, relativeError as relativeErrorOf } from "../support/run.js";
import { hasWebGpu, WITHOUT } from "./driver.js";

type Feeds = Record<string, ort.Tensor>;

interface Trap {
  readonly name: string;
  /** Emits the graph over its inputs, and returns its outputs. */
  build(b: GraphBuilder): string[];
  readonly inputs: Readonly<Record<string, ValueType & { readonly values?: readonly number[] }>>;
  /** What the node does on WebGPU as it is. */
  readonly raw: "falls back" | "fails" | "wrong";
}

const FLOAT = DataType.FLOAT;
const floats = (...shape: number[]) => ({ elemType: FLOAT, shape });
const ofValues = (elemType: DataType, values: readonly number[], shape = [values.length]) => ({
  elemType,
  shape,
  values,
});
const special = ofValues(FLOAT, [-2.5, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 3.2]);
const unary = (operator: string, input = special, attributes = {}, raw: Trap["raw"] = "falls back"): Trap => ({
  name: operator,
  inputs: { x: input },
  build: (b) => [b.op(operator, ["x"], attributes)],
  raw,
});
const conv = (name: string, inputs: number, outputs: number, group: number): Trap => ({
  name,
  inputs: { x: floats(2, inputs, 6, 6), w: floats(outputs, inputs / group, 3, 3), bias: floats(outputs) },
  build: (b) => [
    b.op("Conv", ["x", "w", "bias"], { group, pads: [1, 1, 1, 1], strides: [2, 1], kernel_shape: [3, 3] }),
  ],
  raw: "wrong",
});
const asFloat = (b: GraphBuilder, value: string) => b.cast(value, FLOAT);

const REPLACED: readonly Trap[] = [
  conv("Conv in groups of 6 channels", 8, 12, 2),
  conv("Conv in groups of 5 channels", 10, 10, 2),
  conv("Conv of 6 channels", 6, 8, 1),
  conv("Conv of 9 channels", 9, 4, 1),
  {
    name: "ConvTranspose of 2 channels to 1 in each group",
    inputs: { x: floats(2, 6, 4, 4), w: floats(6, 1, 3, 3), bias: floats(3) },
    build: (b) => [b.op("ConvTranspose", ["x", "w", "bias"], { group: 3, strides: [2, 1], kernel_shape: [3, 3] })],
    raw: "wrong",
  },
  {
    name: "ConvTranspose along one of three dimensions",
    inputs: { x: floats(2, 1, 5, 3, 2), w: floats(1, 2, 3, 1, 1) },
    build: (b) => [
      b.op("ConvTranspose", ["x", "w"], { strides: [2, 1, 1], pads: [1, 0, 0, 0, 0, 0], kernel_shape: [3, 1, 1] }),
    ],
    raw: "fails",
  },
  {
    name: "Slice with negative steps",
    inputs: { x: floats(2, 6) },
    build: (b) => [b.slice("x", [4], [-9], [1], [-2])],
    raw: "wrong",
  },
  {
    name: "Split with 13 outputs",
    inputs: { x: floats(13, 2) },
    build: (b) => b.node("Split", ["x", b.i64(new Array(13).fill(1))], { outputs: 13, attributes: { axis: 0 } }),
    raw: "fails",
  },
  {
    name: "Slice of int32",
    inputs: { x: ofValues(DataType.INT32, [1, 2, 3, 4, 5, 6], [2, 3]) },
    build: (b) => [asFloat(b, b.slice("x", [1], [3], [1]))],
    raw: "falls back",
  },
  unary("LogSoftmax", floats(3, 5) as typeof special, { axis: 1 }),
  unary("Round"),
  unary("Sign"),
  unary("Celu", special, {}),
  unary("Selu"),
  unary("Softsign"),
  unary("Shrink", special, {}),
  unary("MeanVarianceNormalization", floats(2, 3, 4, 4) as typeof special),
  ...["Sum", "Mean"].map(
    (operator): Trap => ({
      name: operator,
      inputs: { x: floats(4), y: floats(3, 4), z: floats(1) },
      build: (b) => [b.op(operator, ["x", "y", "z"])],
      raw: "falls back",
    }),
  ),
  {
    name: "Mod of floats",
    inputs: { x: ofValues(FLOAT, [5.5, -5.5, 5.5, -5.5]), y: ofValues(FLOAT, [2, 2, -2, -2]) },
    build: (b) => [b.op("Mod", ["x", "y"], { fmod: 1 })],
    raw: "falls back",
  },
  {
    name: "Mod of integers",
    inputs: { x: ofValues(DataType.INT32, [7, -7, 7, -7, 6]), y: ofValues(DataType.INT32, [3, 3, -3, -3, 3]) },
    build: (b) => [asFloat(b, b.op("Mod", ["x", "y"]))],
    raw: "falls back",
  },
  {
    name: "Or, Xor, IsInf, IsNaN and a Concat of bools",
    inputs: {
      x: ofValues(FLOAT, [1, -1, Number.POSITIVE_INFINITY, Number.NaN, Number.NEGATIVE_INFINITY]),
      y: ofValues(FLOAT, [1, 1, -1, -1, -1]),
    },
    build: (b) => {
      const [p, q] = [b.greater("x", b.f32(0)), b.greater("y", b.f32(0))];
      const all = [b.op("Or", [p, q]), b.op("Xor", [p, q]), b.op("IsInf", ["x"]), b.op("IsNaN", ["x"])];
      return [asFloat(b, b.concat(all, 0))];
    },
    raw: "falls back",
  },
  {
    name: "OneHot of int64",
    inputs: { x: ofValues(DataType.INT64, [0, 2, -1, 3], [4]) },
    build: (b) => [b.op("OneHot", ["x", b.i64([4]), b.f32([-1, 2])], { axis: 0 })],
    raw: "falls back",
  },
  {
    name: "arithmetic of int64",
    inputs: { x: ofValues(DataType.INT64, [1, 2, 3]) },
    build: (b) => {
      const doubled = b.where(b.equal("x", b.i64(2)), b.i64(-1), b.add("x", "x"));
      return [asFloat(b, b.concat([doubled, b.cast(asFloat(b, "x"), DataType.INT64)], 0))];
    },
    raw: "falls back",
  },
  {
    name: "a loss in the graph",
    inputs: { x: floats(4, 3), labels: ofValues(DataType.INT64, [0, 1, 2, 1]) },
    build: (b) => [b.op("SoftmaxCrossEntropyLoss", ["x", "labels"])],
    raw: "falls back",
  },
  {
    name: "FusedMatMul",
    inputs: { x: floats(2, 3, 4), y: floats(2, 5, 4) },
    build: (b) =>
      b.node("FusedMatMul", ["x", "y"], { domain: "com.microsoft", attributes: { transB: 1, alpha: float(2) } }),
    raw: "falls back",
  },
];

/** What stays wrong or fails whatever is done, and what the user is told. */
const REFUSED: readonly (Omit<Trap, "raw"> & { readonly told: RegExp })[] = [
  {
    name: "MaxPool's indices",
    inputs: { x: floats(1, 1, 4, 4) },
    build: (b) => {
      const [y, at] = b.node("MaxPool", ["x"], { name: "pool", outputs: 2, attributes: { kernel_shape: [2, 2] } });
      return [y as string, asFloat(b, at as string)];
    },
    told: /MaxPool 'pool' fails: the output Indices is not supported/,
  },
  {
    name: "BatchNormalization in training mode",
    inputs: { x: floats(2, 3, 4, 4), s: floats(3), b: floats(3), m: floats(3), v: floats(3) },
    build: (b) =>
      b.node("BatchNormalization", ["x", "s", "b", "m", "v"], { outputs: 3, attributes: { training_mode: 1 } }),
    told: /BatchNormalization '.*' fails: training mode is not supported/,
  },
  {
    name: "ConvTranspose in three dimensions",
    inputs: { x: floats(1, 2, 3, 3, 3), w: floats(2, 2, 2, 2, 2) },
    build: (b) => [b.op("ConvTranspose", ["x", "w"])],
    told: /ConvTranspose '.*' fails: 1-D and 2-D only/,
  },
  {
    name: "float64",
    inputs: { x: floats(3) },
    build: (b) => [b.cast(b.sqrt(b.cast("x", DataType.DOUBLE)), FLOAT)],
    told: /WebGPU has no float64, and '.*' \(made by the Cast '.*'\) is of it/,
  },
  {
    name: "constants beyond int32",
    inputs: { x: ofValues(DataType.INT64, [1, 2]) },
    build: (b) => [asFloat(b, b.mul("x", b.i64(2 ** 40)))],
    told: /holds 1099511627776, which int32 does not/,
  },
];

function modelFor({ inputs, build }: Pick<Trap, "inputs" | "build">): ModelProto {
  const b = newBuilder();
  for (const [name, type] of Object.entries(inputs)) b.input(name, type);
  for (const output of build(b)) b.output(output, { elemType: FLOAT, shape: undefined });
  const model = modelOf(b.graph);
  return { ...model, opsetImport: [...model.opsetImport, { domain: "com.microsoft", version: 1 }] };
}

function feedsFor({ inputs }: Pick<Trap, "inputs">, narrowed: ReadonlySet<string> = new Set()): Feeds {
  let state = 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { elemType, shape, values }]) => {
      const dims = shape as number[];
      const numbers = values ?? Array.from({ length: dims.reduce((a, b) => a * b, 1) }, random);
      if (elemType === DataType.INT64 && !narrowed.has(name)) {
        return [name, new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), dims)];
      }
      if (elemType === FLOAT) return [name, new ort.Tensor("float32", Float32Array.from(numbers), dims)];
      return [name, new ort.Tensor("int32", Int32Array.from(numbers), dims)];
    }),
  );
}

async function onCpu(model: ModelProto, feeds: Feeds): Promise<Float32Array[]> {
  const session = await ort.InferenceSession.create(encodeModel(model), { logSeverityLevel: 4 });
  const results = await session.run(feeds);
  await session.release();
  return session.outputNames.map((name) => results[name]?.data as Float32Array);
}

async function onDevice(model: ModelProto, feeds: Feeds, strict: boolean): Promise<Float32Array[]> {
  const session = await BoundSession.create(model, { purpose: "the trap", strict, locationOf: () => "host" });
  const results = await session.run(feeds);
  await session.release();
  return model.graph.output.map(({ name = "" }) => results[name]?.data as Float32Array);
}

function relativeError(actual: readonly Float32Array[], expected: readonly Float32Array[]): number {
  const flat = (arrays: readonly Float32Array[]) => arrays.flatMap((array) => [...array]);
  return relativeErrorOf(flat(actual), flat(expected));
}

/** Integers come from the host; the rest could be parameters. */
const rewritten = (trap: Pick<Trap, "inputs" | "build">): Promise<WebGpuModel> => {
  const integers = Object.entries(trap.inputs).filter(([, { elemType }]) => elemType === DataType.INT64);
  return toWebGpuModel(
    modelFor(trap),
    integers.map(([name]) => name),
  );
};

describe("rewriting for WebGPU, run on the CPU", () => {
  it.each(REPLACED)("$name gives the same numbers in other operators", async (trap) => {
    const { model, narrowed, misplaced, host } = await rewritten(trap);
    expect(misplaced).toEqual([]);
    expect(host).toBeUndefined();
    const expected = await onCpu(modelFor(trap), feedsFor(trap));
    expect(relativeError(await onCpu(model, feedsFor(trap, narrowed)), expected)).toBeLessThan(1e-6);
  });

  it.each(REFUSED)("$name: refused by name", async ({ told, ...trap }) => {
    await expect(rewritten(trap)).rejects.toThrow(told);
  });

  it("the halves of an int64 seed are the host's part", async () => {
    const trap = {
      inputs: { seed: { elemType: DataType.INT64, shape: [] }, x: floats(2) },
      build: (b: GraphBuilder) => {
        const low = b.cast("seed", DataType.UINT32);
        const high = b.cast(b.div(b.sub("seed", b.cast(low, DataType.INT64)), b.i64(2 ** 32)), DataType.UINT32);
        return [b.mul("x", asFloat(b, b.add(low, b.mul(high, b.u32(3)))))];
      },
    };
    const { model, host, misplaced } = await rewritten(trap);
    expect(misplaced).toEqual([]);
    const seed = 5n * 2n ** 32n + 7n;
    const feeds = {
      seed: new ort.Tensor("int64", BigInt64Array.of(seed), []),
      x: feedsFor({ inputs: { x: floats(2) } }).x as ort.Tensor,
    };
    const session = await ort.InferenceSession.create(encodeModel(host as ModelProto));
    const halves = (await session.run({ seed: feeds.seed })) as Feeds;
    expect(Object.values(halves).map(({ type, data }) => [type, Number(data[0])])).toEqual([
      ["uint32", 7],
      ["uint32", 5],
    ]);
    const names = new Set(model.graph.input.map(({ name }) => name));
    expect(names.has("seed")).toBe(false);
    expect(await onCpu(model, { ...halves, x: feeds.x })).toEqual(await onCpu(modelFor(trap), feeds));
  });
});

describe.skipIf(!hasWebGpu)(`on WebGPU${WITHOUT}`, () => {
  it.each(REPLACED)("$name, replaced: runs without fallback, with the CPU's numbers", async (trap) => {
    const { model, narrowed } = await rewritten(trap);
    const expected = await onCpu(modelFor(trap), feedsFor(trap));
    expect(relativeError(await onDevice(model, feedsFor(trap, narrowed), true), expected)).toBeLessThan(1e-5);
  });

  it.each(REPLACED.filter(({ raw }) => raw === "wrong"))("$name, as it is: wrong numbers", async (trap) => {
    const expected = await onCpu(modelFor(trap), feedsFor(trap));
    expect(relativeError(await onDevice(modelFor(trap), feedsFor(trap), false), expected)).toBeGreaterThan(0.01);
  });

  it.each([...REPLACED.filter(({ raw }) => raw === "fails"), ...REFUSED.slice(0, 3)])(
    "$name, as it is: fails at run",
    async (trap) => {
      await expect(onDevice(modelFor(trap), feedsFor(trap), false)).rejects.toThrow(
        /failed while running the trap on WebGPU/,
      );
    },
  );

  it.each(REPLACED.filter(({ raw }) => raw === "falls back"))(
    "$name, as it is: falls back to the CPU",
    async (trap) => {
      const error = /fallback to CPU EP has been explicitly disabled/;
      await expect(onDevice(modelFor(trap), feedsFor(trap), true)).rejects.toThrow(error);
    },
  );

  it("tensors stay in GPU buffers between sessions, and come back by a copy", async () => {
    const copies = await DeviceCopies.create();
    const b = newBuilder();
    b.input("x", floats(3));
    b.output(b.alias(b.add("x", b.f32(1)), "y"), floats(3));
    const session = await BoundSession.create(modelOf(b.graph), { purpose: "a step", locationOf: () => "gpu" });
    let x = await copies.upload(new ort.Tensor("float32", Float32Array.of(1, 2, 3), [3]));
    for (let step = 0; step < 4; step++) {
      const { y } = await session.run({ x });
      x.dispose();
      x = y as ort.Tensor;
      expect(x.location).toBe("gpu-buffer");
    }
    expect([...(await copies.download(x))]).toEqual([5, 6, 7]);
    x.dispose();
    await session.release();
    await copies.release();
  });

  it("reading a GPU buffer with getData ends the process, which is why copies exist", () => {
    const script = join(import.meta.dirname, "read-buffer.mjs");
    const { status, signal, stdout } = spawnSync(process.execPath, [script], { encoding: "utf8" });
    expect(stdout).toContain("gpu-buffer");
    expect(stdout).not.toContain("read");
    expect([status, signal]).not.toEqual([0, null]);
  });
});
