import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import type { Attributes } from "../../src/onnx/attributes.js";
import { cloneModel } from "../../src/onnx/codec.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { dimsOf, elementCount, numbersOf } from "../../src/onnx/tensor.js";
import { inferTypes } from "../../src/onnx/types.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { declareSmallMaps, productsForSmallMaps } from "../../src/rewrite/small-maps.js";
import { buildForwardGraph, buildStepGraph } from "../../src/training/step-graph.js";
import { mulberry32 } from "../support/gradient-check.js";
import { type Feeds, f32, modelOf, newBuilder, relativeError, runModel } from "../support/run.js";

interface Case {
  readonly x: number[];
  readonly w: number[];
  readonly attributes?: Attributes;
  readonly bias?: boolean;
}

const small: Record<string, Case> = {
  "3×3 over 2×2": { x: [3, 32, 2, 2], w: [33, 32, 3, 3], attributes: { pads: [1, 1, 1, 1] }, bias: true },
  "3×3 over 4×4": { x: [2, 40, 4, 4], w: [32, 40, 3, 3], attributes: { pads: [1, 1, 1, 1] } },
  "asymmetric pads": { x: [2, 32, 3, 4], w: [32, 32, 2, 3], attributes: { pads: [0, 2, 1, 0] }, bias: true },
  strides: { x: [2, 32, 4, 4], w: [32, 32, 3, 3], attributes: { strides: [2, 3], pads: [1, 1, 1, 1] } },
  dilations: { x: [2, 32, 4, 4], w: [32, 32, 2, 2], attributes: { dilations: [2, 3], pads: [0, 1, 1, 1] } },
  SAME_LOWER: { x: [2, 32, 3, 4], w: [32, 32, 2, 2], attributes: { auto_pad: "SAME_LOWER", strides: [2, 2] } },
  "1×1": { x: [2, 32, 3, 3], w: [48, 32, 1, 1] },
  "1-D": { x: [2, 32, 9], w: [32, 32, 4], attributes: { pads: [3, 0], dilations: [2] } },
  "3-D": { x: [2, 32, 2, 3, 2], w: [32, 32, 2, 2, 1], attributes: { pads: [1, 0, 0, 0, 1, 0] } },
};
const others: Record<string, Case> = {
  "a larger map": { x: [1, 32, 5, 4], w: [32, 32, 3, 3], attributes: { pads: [1, 1, 1, 1] } },
  "a larger output": { x: [1, 32, 2, 2], w: [32, 32, 2, 2], attributes: { pads: [2, 2, 2, 2] } },
  groups: { x: [1, 64, 2, 2], w: [64, 32, 1, 1], attributes: { group: 2 } },
  "few channels": { x: [1, 31, 2, 2], w: [32, 31, 3, 3], attributes: { pads: [1, 1, 1, 1] } },
};

const uniform = (random: () => number, dims: readonly number[]) =>
  Float32Array.from({ length: elementCount(dims) }, () => random() - 0.5);

/** A convolution whose batch is a symbol, its input and output inner values of the graph. */
async function convolution({ x, w, attributes, bias }: Case) {
  const random = mulberry32(1);
  const values = (dims: readonly number[]) => f32(uniform(random, dims), dims);
  const b = newBuilder();
  const input = b.input("x", { elemType: DataType.FLOAT, shape: ["batch", ...x.slice(1)] });
  const weights = b.initializer("w", DataType.FLOAT, w, uniform(random, w));
  const biases = bias ? [b.initializer("b", DataType.FLOAT, w.slice(0, 1), uniform(random, w.slice(0, 1)))] : [];
  const y = b.op("Conv", [b.neg(input), weights, ...biases], attributes ?? {});
  const result = b.neg(y);
  b.output(result, { elemType: DataType.FLOAT, shape: undefined });
  const model = modelOf(b.graph);
  const types = await inferTypes(model);
  const before = cloneModel(model);
  declareSmallMaps(model.graph, model.graph.node, (name) => types.get(name));
  productsForSmallMaps(model.graph, model.graph);
  return { before, after: model, feeds: { x: values(x) }, y, result };
}

const operators = ({ graph }: ModelProto) => graph.node.map(({ opType }) => opType);

describe("convolutions over small maps", () => {
  it.each(Object.entries(small))("%s: products give the same", async (_, given) => {
    const { before, after, feeds, y, result } = await convolution(given);
    expect(operators(after)).not.toContain("Conv");
    // Other nodes may read it by its name.
    expect(after.graph.node.flatMap(({ output }) => output)).toContain(y);
    const [expected, computed] = [(await runModel(before, feeds))[result], (await runModel(after, feeds))[result]];
    expect(computed?.dims).toEqual(expected?.dims);
    expect(relativeError(computed?.data as Float32Array, expected?.data as Float32Array)).toBeLessThan(1e-6);
  });
  it.each(Object.entries(others))("%s: stays", async (_, given) => {
    const { before, after } = await convolution(given);
    expect(operators(after)).toEqual(operators(before));
    expect(after.graph.valueInfo).toEqual(before.graph.valueInfo);
  });
});

describe("a training program over small maps", () => {
  const classifier = (): ModelProto => {
    const random = mulberry32(2);
    const b = newBuilder();
    const weights = (name: string, dims: number[]) =>
      b.initializer(
        name,
        DataType.FLOAT,
        dims,
        uniform(random, dims).map((value) => value / 4),
      );
    const x = b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 32, 4, 4] });
    const first = b.op("Relu", [b.op("Conv", [x, weights("w1", [32, 32, 3, 3])], { pads: [1, 1, 1, 1] })]);
    const second = b.op("Conv", [first, weights("w2", [32, 32, 3, 3])], { pads: [1, 1, 1, 1], strides: [2, 2] });
    const logits = b.gemm(b.op("Flatten", [second]), weights("w3", [128, 3]));
    b.output(logits, { elemType: DataType.FLOAT, shape: ["batch", 3] });
    return modelOf(b.graph);
  };

  it("keeps its convolutions, and runs products on the CPU alone", async () => {
    const program = await rewrite(classifier(), { loss: "softmax-cross-entropy" });
    const convolutions = (model: ModelProto) => operators(model).filter((op) => op === "Conv").length;
    expect(convolutions(program.model)).toBe(2);
    const optimizer = createOptimizer({ name: "sgd" }, program.manifest.parameters);
    const shapes = new Map([
      ["x", [5, 32, 4, 4]],
      ["labels", [5]],
    ]);
    const parts = { statistics: false, roots: false };
    expect(convolutions(buildStepGraph(program, optimizer, { parts, shapes }).model)).toBe(0);
    expect(convolutions(buildStepGraph(program, optimizer, { parts, shapes, device: "cuda" }).model)).toBe(2);
    const { model } = buildForwardGraph(program);
    expect(convolutions(model)).toBe(0);
    // Evaluation gives the loss of the program as it is written, for any batch.
    const random = mulberry32(3);
    const x = f32(uniform(random, [3, 32, 4, 4]), [3, 32, 4, 4]);
    const data = { x, labels: new ort.Tensor("int64", BigInt64Array.from([0n, 2n, 1n]), [3]) };
    const loss = async (of: ModelProto, feeds: Feeds) => (await runModel(of, feeds)).loss?.data[0] as number;
    const weights = Object.fromEntries(
      program.model.graph.initializer
        .filter(({ name }) => model.graph.input.some((input) => input.name === name))
        .map((tensor) => [tensor.name ?? "", f32(numbersOf(tensor), dimsOf(tensor))]),
    );
    const whole = await loss(program.model, { ...data, seed: new ort.Tensor("int64", [1n], []) });
    expect(Math.abs((await loss(model, { ...data, ...weights })) - whole)).toBeLessThan(1e-6);
  });
});
