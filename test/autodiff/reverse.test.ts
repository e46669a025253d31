import { Tensor } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { differentiate, MissingGradientError, planReverse } from "../../src/autodiff/reverse.js";
import type { GraphBuilder } from "../../src/onnx/builder.js";
import { DataType, type GraphProto } from "../../src/onnx/proto.js";
import { inferTypes } from "../../src/onnx/types.js";
import { f32, modelOf, newBuilder, runModel } from "../support/run.js";

const FLOAT = DataType.FLOAT;

/** y1 = x·w1, y2 = y1·w2, y3 = y2·w3 on scalars: every gradient can be done in the head. */
function chain() {
  const b = newBuilder();
  for (const name of ["x", "w1", "w2", "w3"]) b.input(name, { elemType: FLOAT, shape: [] });
  const node = (name: string, inputs: string[]) => b.node("Mul", inputs, { outputs: [name] })[0] as string;
  node("y1", ["x", "w1"]);
  node("y2", ["y1", "w2"]);
  node("y3", ["y2", "w3"]);
  return b;
}

function forwardOf(b: GraphBuilder, ...outputs: string[]): GraphProto {
  return { ...b.graph, node: [...b.graph.node], output: outputs.map((name) => ({ name })) };
}

async function gradients(
  b: GraphBuilder,
  options: { outputs: string[]; wrt: string[]; seeds: Record<string, number>; cut?: string[] },
) {
  const forward = forwardOf(b, ...options.outputs);
  const types = await inferTypes(modelOf(forward));
  const emitted = differentiate({
    builder: b,
    forward,
    types,
    wrt: options.wrt,
    seeds: new Map(Object.entries(options.seeds).map(([name, value]) => [name, b.f32(value)])),
    ...(options.cut && { cut: new Set(options.cut) }),
  });
  const graph = { ...b.graph, output: [...new Set(emitted.values())].map((name) => ({ name })) };
  const scalar = (value: number) => f32([value], []);
  const results =
    emitted.size > 0
      ? await runModel(modelOf(graph), { x: scalar(2), w1: scalar(3), w2: scalar(5), w3: scalar(7) })
      : {};
  return Object.fromEntries([...emitted].map(([name, gradient]) => [name, results[gradient]?.data[0]]));
}

const wrt = ["w1", "w2", "w3"];

describe("differentiate", () => {
  it("multiplies down a chain", async () => {
    expect(await gradients(chain(), { outputs: ["y3"], wrt, seeds: { y3: 1 } })).toEqual({ w1: 70, w2: 42, w3: 30 });
  });

  it("adds what several seeds contribute", async () => {
    const result = await gradients(chain(), { outputs: ["y3"], wrt, seeds: { y3: 1, y1: 10 } });
    expect(result).toEqual({ w1: 70 + 20, w2: 42, w3: 30 });
  });

  it("replaces the cotangent at a cut value by its seed", async () => {
    const seeds = { y1: 0.5, y2: 0.25, y3: 1 };
    const result = await gradients(chain(), { outputs: ["y3"], wrt, seeds, cut: ["y1", "y2", "y3"] });
    expect(result).toEqual({ w1: 0.5 * 2, w2: 0.25 * 6, w3: 30 });
  });

  it("lets nothing flow back from a later section", async () => {
    const result = await gradients(chain(), { outputs: ["y3"], wrt, seeds: { y3: 1 }, cut: ["y1"] });
    expect(result).toEqual({ w2: 42, w3: 30 });
  });

  it("does not differentiate a cut value's later uses at all", () => {
    const b = chain();
    b.node("Det", ["y1"], { outputs: ["strange"] });
    b.node("Add", ["strange", "w3"], { outputs: ["late"] });
    const plan = planReverse({
      forward: forwardOf(b, "late"),
      types: new Map(),
      wrt,
      seeds: new Set(["y1", "late"]),
      cut: new Set(["y1"]),
    });
    expect(plan.missing).toEqual([]);
    expect(plan.walk.map((node) => node.output[0])).toEqual(["late", "y1"]);
  });

  it("sums the uses of a shared parameter within its section", async () => {
    const b = newBuilder();
    for (const name of ["x", "w1", "w2", "w3"]) b.input(name, { elemType: FLOAT, shape: [] });
    b.node("Mul", ["x", "w1"], { outputs: ["y1"] });
    b.node("Mul", ["y1", "w1"], { outputs: ["y2"] });
    expect(await gradients(b, { outputs: ["y2"], wrt: ["w1"], seeds: { y2: 1 } })).toEqual({ w1: 12 });
  });

  it("gives the cotangent of an intermediate value, seed included", async () => {
    const result = await gradients(chain(), { outputs: ["y3"], wrt: ["y1", "w1"], seeds: { y3: 1, y1: 4 } });
    expect(result).toEqual({ y1: 39, w1: 78 });
  });

  it("leaves out what no seed depends on", async () => {
    expect(await gradients(chain(), { outputs: ["y3"], wrt, seeds: { y2: 1 } })).toEqual({ w1: 10, w2: 6 });
  });

  it("emits nothing for inputs that nobody differentiates", async () => {
    const b = chain();
    const before = b.graph.node.length;
    await gradients(b, { outputs: ["y3"], wrt: ["w3"], seeds: { y3: 1 } });
    expect(b.graph.node.slice(before).map((node) => node.opType)).toEqual(["Mul"]);
  });
});

describe("MissingGradientError", () => {
  it("lists every node in the way, and no other", async () => {
    const b = newBuilder();
    b.input("x", { elemType: FLOAT, shape: [2, 2] });
    b.input("w", { elemType: FLOAT, shape: [2, 2] });
    b.node("Det", ["x"], { outputs: ["harmless"] });
    b.node("MatMul", ["x", "w"], { outputs: ["y"] });
    b.node("Det", ["y"], { outputs: ["first"] });
    b.node("Hardmax", ["y"], { outputs: ["second"] });
    b.node("Add", ["first", "second"], { outputs: ["z"] });
    const forward = forwardOf(b, "z", "harmless");
    const types = await inferTypes(modelOf(forward));
    const run = () => differentiate({ builder: b, forward, types, wrt: ["w"], seeds: new Map([["z", b.f32(1)]]) });
    expect(run).toThrow(MissingGradientError);
    expect(run).toThrow(/Det {2}'first'\n {2}Hardmax {2}'second'\nFreeze the parameters before them/);
    expect(run).not.toThrow(/harmless/);
  });

  it("sees a trainable value that a subgraph captures", async () => {
    const b = newBuilder();
    b.input("w", { elemType: FLOAT, shape: [2] });
    b.input("condition", { elemType: DataType.BOOL, shape: [] });
    const branch = (name: string, op: string) => {
      const inner = b.subgraph(name);
      inner.output(inner.op(op, ["w"]), { elemType: FLOAT, shape: [2] });
      return inner.graph;
    };
    b.node("Loop", ["", "condition", "w"], { outputs: ["kept"], attributes: { body: branch("body", "Neg") } });
    const plan = planReverse({ forward: b.graph, types: new Map(), wrt: ["w"], seeds: new Set(["kept"]) });
    expect(plan.missing.map((node) => node.opType)).toEqual(["Loop"]);
  });
});

describe("Dropout", () => {
  async function masked(mode: (b: GraphBuilder) => string[], outputs: number) {
    const b = newBuilder();
    b.input("x", { elemType: FLOAT, shape: ["batch", 50] });
    b.input("training", { elemType: DataType.BOOL, shape: [] });
    const [y, mask] = b.node("Dropout", ["x", ...mode(b)], { outputs }) as [string, string?];
    const forward = forwardOf(b, y);
    const types = await inferTypes(modelOf(forward));
    const seed = b.input("seed", { elemType: FLOAT, shape: ["batch", 50] });
    const dx = differentiate({ builder: b, forward, types, wrt: ["x"], seeds: new Map([[y, seed]]) }).get(
      "x",
    ) as string;
    const ones = f32(Array(100).fill(1), [2, 50]);
    return async (training: boolean) => {
      const graph = { ...b.graph, output: [y, dx, ...(mask ? [mask] : [])].map((name) => ({ name })) };
      const feeds = { x: ones, seed: ones, training: new Tensor("bool", [training], []) };
      const result = await runModel(modelOf(graph), feeds);
      return { y: Array.from(result[y]?.data as Float32Array), dx: Array.from(result[dx]?.data as Float32Array) };
    };
  }

  it("passes the cotangent on at inference", async () => {
    const { dx } = await (await masked((b) => [b.f32(0.4)], 1))(false);
    expect(dx).toEqual(Array(100).fill(1));
  });

  it.each([
    ["constant", (b: GraphBuilder) => [b.f32(0.25), b.constant(DataType.BOOL, 1)]],
    ["with the default ratio", (b: GraphBuilder) => ["", b.constant(DataType.BOOL, 1)]],
    ["decided at run time", (b: GraphBuilder) => [b.f32(0.25), "training"]],
    ["with a ratio computed at run time", (b: GraphBuilder) => [b.mul(b.f32(0.5), b.f32(0.5)), "training"]],
  ] as const)("masks and scales like the forward pass when training is %s", async (_, mode) => {
    // For x = 1 and a cotangent of 1, output and gradient are the same scaled mask.
    const { y, dx } = await (await masked(mode as (b: GraphBuilder) => string[], 2))(true);
    expect(new Set(y).size).toBe(2);
    for (const [i, value] of y.entries()) expect(dx[i]).toBeCloseTo(value, 6);
  });

  it("is the identity when the mode at run time is off", async () => {
    const { dx } = await (await masked((b) => [b.f32(0.25), "training"], 2))(false);
    expect(dx).toEqual(Array(100).fill(1));
  });

  it("refuses training without a mask", async () => {
    await expect(masked((b) => [b.f32(0.25), b.constant(DataType.BOOL, 1)], 1)).rejects.toThrow(
      /lacks its mask output/,
    );
  });
});
