import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { type Attributes, float } from "../../../src/onnx/attributes.js";
import { DataType, type ModelProto } from "../../../src/onnx/proto.js";
import { toProgramOpset } from "../../../src/onnx/upgrade/upgrade.js";
import {
  convert,
  expectSame,
  expectSameOperator,
  expectSameOutputs,
  i64,
  modelOfOne,
  operatorsOf,
  wave,
} from "../../support/convert.js";
import { modelOf, newBuilder, runModel } from "../../support/run.js";

const cube = wave([2, 3, 4]);
const image = wave([2, 6, 5, 6]);
const vector = (values: number[]) => new ort.Tensor("float32", Float32Array.from(values), [values.length]);

describe("operators that opsets after 18 only gave types or attributes", () => {
  it.each<[number, string, ort.Tensor[], Attributes, boolean[]?]>([
    [19, "Cast", [cube], { to: DataType.FLOAT, saturate: 1 }],
    [25, "Cast", [cube], { to: DataType.FLOAT }],
    [19, "Reshape", [cube, i64([0, -1])], {}],
    [23, "Transpose", [cube], { perm: [2, 0, 1] }],
    [21, "Squeeze", [wave([2, 1, 3]), i64([1])], {}],
    [23, "Flatten", [cube], { axis: 2 }],
    [21, "Identity", [cube], {}],
    [22, "HardSwish", [cube], {}],
    [22, "Elu", [cube], { alpha: float(0.5) }],
    [22, "Softplus", [cube], {}],
    [20, "ReduceMax", [cube, i64([1])], {}],
    [22, "Conv", [image, wave([4, 3, 3, 3])], { group: 2, pads: [1, 1, 1, 1] }],
    [22, "MaxPool", [image], { kernel_shape: [3, 2], strides: [2, 1], ceil_mode: 1 }],
    [22, "GlobalAveragePool", [image], {}],
    [19, "AveragePool", [image], { kernel_shape: [2, 3], pads: [1, 0, 0, 1], dilations: [1, 1] }],
    [22, "AveragePool", [image], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], count_include_pad: 1 }],
    [22, "AveragePool", [image], { kernel_shape: [3, 3], strides: [2, 2], ceil_mode: 1 }],
    [
      19,
      "AveragePool",
      [image],
      { kernel_shape: [3, 3], strides: [3, 3], pads: [1, 1, 1, 1], ceil_mode: 1, count_include_pad: 1 },
    ],
    [19, "Resize", [image, vector([]), vector([1, 1, 1.5, 0.7])], { mode: "linear" }],
    [19, "Resize", [image, vector([]), vector([1, 1, 0.5, 0.7])], { mode: "cubic", antialias: 1 }],
    [24, "TopK", [cube, i64([2])], {}, [true, true]],
    [23, "Pad", [cube, i64([0, 1, 2, 1, 0, 0])], { mode: "edge" }],
    [22, "Dropout", [cube], {}],
    [22, "InstanceNormalization", [image, vector([1, 2, 3, 4, 5, 6]), vector([0, 1, 0, 1, 0, 1])], {}],
  ])("opset %i %s", async (opset, operator, inputs, attributes, outputs = [true]) => {
    const constant = operator === "Resize" ? [1, 2] : operator === "TopK" || operator === "Reshape" ? [1] : [];
    const outputTypes = [DataType.FLOAT, DataType.INT64];
    const op = { opset, operator, inputs, constant, attributes, outputs, outputTypes };
    expect(await expectSameOperator(op)).toEqual([operator]);
  });

  it.each([
    ["linear", "bilinear"],
    ["cubic", "bicubic"],
    ["nearest", "nearest"],
  ])("GridSample's mode %s is %s", async (mode, older) => {
    const op = { opset: 20, operator: "GridSample", inputs: [image, wave([2, 3, 4, 2], 1.2)], attributes: { mode } };
    await expectSameOperator(op);
    const { graph } = await convert(modelOfOne(op).model);
    const attribute = graph.node[0]?.attribute.find(({ name }) => name === "mode");
    expect(new TextDecoder().decode(attribute?.s)).toBe(older);
  });

  it.each([[[]], [[i64([1], [])]], [[i64([-2], [])]]])("DFT over axis %#", async (axis) => {
    const inputs = [wave([2, 5, 4, 2]), null, ...axis];
    const { model, feeds } = modelOfOne({ opset: 20, operator: "DFT", inputs, constant: [2] });
    await expectSame(model, feeds, 1e-5);
  });

  it("QuantizeLinear and DequantizeLinear", async () => {
    const g = newBuilder();
    const x = g.input("x", { elemType: DataType.FLOAT, shape: ["n", 3] });
    const scale = g.f32(0.05);
    const zero = g.initializer("zero", DataType.UINT8, [], Uint8Array.of(128));
    const q = g.op("QuantizeLinear", [x, scale, zero], { saturate: 1, output_dtype: DataType.UINT8, block_size: 0 });
    g.output(g.op("DequantizeLinear", [q, scale, zero], { output_dtype: 0 }), { elemType: 1, shape: undefined });
    expect(await expectSame(modelOf(g.graph, 23), { x: wave([4, 3]) })).toEqual(["QuantizeLinear", "DequantizeLinear"]);
  });
});

describe("operators by their definitions", () => {
  it.each([
    ["Gelu", 20, {}],
    ["Gelu", 20, { approximate: "tanh" }],
    ["Swish", 24, {}],
    ["Swish", 24, { alpha: float(1.5) }],
  ])("%s of opset %i %j", async (operator, opset, attributes) => {
    const operators = await expectSameOperator({ opset, operator, inputs: [wave([3, 7], 6)], attributes }, 1e-6);
    expect(operators).not.toContain(operator);
  });

  it("converts Swish of opset 26, which ONNX Runtime does not load", async () => {
    const op = { operator: "Swish", inputs: [wave([3, 7], 6)], attributes: { alpha: float(1.5) } };
    const of24 = modelOfOne({ ...op, opset: 24 });
    const of26 = modelOfOne({ ...op, opset: 26 });
    const converted = await runModel(await convert(of26.model), of26.feeds);
    expectSameOutputs(converted, await runModel(of24.model, of24.feeds), 1e-6);
  });

  it.each([1, 2, 3, 6])("GroupNormalization in %i groups", async (num_groups) => {
    const inputs = [image, wave([6], 1, 0.3), wave([6], 1, 0.9)];
    const attributes = { num_groups, epsilon: float(1e-3) };
    const operators = await expectSameOperator({ opset: 21, operator: "GroupNormalization", inputs, attributes }, 2e-6);
    expect(operators).toContain("InstanceNormalization");
  });

  it("keeps the GroupNormalization of opset 18", async () => {
    const inputs = [image, wave([2], 1, 0.3), wave([2], 1, 0.9)];
    const { model } = modelOfOne({ opset: 20, operator: "GroupNormalization", inputs, attributes: { num_groups: 2 } });
    expect(operatorsOf(await convert(model))).toEqual(["GroupNormalization"]);
  });

  it.each([-1, -2, 1, 2])("RMSNormalization from axis %i on", async (axis) => {
    const scale = axis === -1 || axis === 2 ? wave([4]) : wave([3, 4]);
    const attributes = { axis, epsilon: float(1e-3) };
    await expectSameOperator({ opset: 23, operator: "RMSNormalization", inputs: [cube, scale], attributes });
  });

  it.each([
    [[0, 1, 2, 0, 2, 1], undefined],
    [[1, 0, 0, 1, 0, 7], undefined],
    [[0, -1, 3, 0, 2, 0], undefined],
    [
      [2, 3, 1, 0],
      [-1, 0],
    ],
  ])("Pad with wrap by %j over axes %j", async (pads, axes) => {
    const inputs = [cube, i64(pads), null, ...(axes ? [i64(axes)] : [])];
    const attributes = { mode: "wrap" };
    const op = { opset: 19, operator: "Pad", inputs, constant: [1, 3], attributes };
    // By the definition: the element at (i − before) modulo the length.
    const { model, feeds } = modelOfOne(op);
    const outputs = await runModel(await convert(model), feeds);
    const full = [
      [0, 0, 0],
      [0, 0, 0],
    ] as [number[], number[]];
    const count = pads.length / 2;
    for (let i = 0; i < count; i++) {
      const axis = ((axes?.[i] ?? i) + 3) % 3;
      full[0][axis] = pads[i] as number;
      full[1][axis] = pads[count + i] as number;
    }
    const dims = cube.dims.map((dim, axis) => dim + (full[0][axis] as number) + (full[1][axis] as number));
    expect(outputs.y0?.dims).toEqual(dims);
    const expected: number[] = [];
    const at = (i: number, axis: number) => {
      const dim = cube.dims[axis] as number;
      return (((i - (full[0][axis] as number)) % dim) + dim) % dim;
    };
    for (let a = 0; a < (dims[0] as number); a++)
      for (let b = 0; b < (dims[1] as number); b++)
        for (let c = 0; c < (dims[2] as number); c++)
          expected.push((cube.data as Float32Array)[(at(a, 0) * 3 + at(b, 1)) * 4 + at(c, 2)] as number);
    expect(Array.from(outputs.y0?.data as Float32Array)).toEqual(expected);
  });
});

describe("attention", () => {
  const bools = (values: number[], dims: number[]) => new ort.Tensor("bool", Uint8Array.from(values), dims);
  const packed = [wave([2, 5, 12]), wave([2, 7, 12], 1, 0.5), wave([2, 7, 18], 1, 0.7)];
  const split = [wave([2, 3, 5, 4]), wave([2, 3, 7, 4], 1, 0.5), wave([2, 3, 7, 6], 1, 0.7)];
  const heads = { q_num_heads: 3, kv_num_heads: 3 };
  const grouped = [wave([2, 5, 16]), wave([2, 5, 8], 1, 0.5), wave([2, 5, 8], 1, 0.7)];
  const mask = wave([5, 7], 1, 0.2);
  const visible = bools(
    Array.from({ length: 35 }, (_, i) => ((i * 7) % 3 === 0 ? 0 : 1)),
    [5, 7],
  );
  const past = [wave([2, 3, 2, 4], 1, 0.1), wave([2, 3, 2, 6], 1, 0.9)];
  it.each<[string, (ort.Tensor | null)[], Attributes, boolean[]?]>([
    ["packed heads", packed, heads],
    ["split heads", split, {}],
    ["a scale of its own", packed, { ...heads, scale: float(0.3) }],
    ["a float mask", [...packed, mask], heads],
    ["a boolean mask", [...split, visible], {}],
    [
      "a causal mask",
      [split[0] as ort.Tensor, wave([2, 3, 5, 4], 1, 0.5), wave([2, 3, 5, 6], 1, 0.7)],
      { is_causal: 1 },
    ],
    ["grouped queries", grouped, { q_num_heads: 4, kv_num_heads: 2 }],
    ["grouped queries, causal", grouped, { q_num_heads: 4, kv_num_heads: 1 + 1, is_causal: 1 }],
    ["a cache", [...split, null, ...past], {}, [true, true, true]],
    ["softcap", packed, { ...heads, softcap: float(0.8) }],
    ["raw scores", packed, { ...heads, qk_matmul_output_mode: 0 }, [true, false, false, true]],
    ["softmax as scores", [...split, mask], { qk_matmul_output_mode: 3 }, [true, false, false, true]],
  ])("with %s", async (_, inputs, attributes, outputs = [true]) => {
    const operators = await expectSameOperator({ opset: 23, operator: "Attention", inputs, attributes, outputs }, 2e-6);
    expect(operators).not.toContain("Attention");
  });

  it("gives zeros where a query sees nothing", async () => {
    const blind = bools(
      Array.from({ length: 35 }, (_, i) => (i < 7 ? 0 : 1)),
      [5, 7],
    );
    const op = { opset: 23, operator: "Attention", inputs: [...split, blind] };
    const { model, feeds } = modelOfOne(op);
    const { y0 } = await runModel(await convert(model), feeds);
    const rows = y0?.data as Float32Array;
    expect(Array.from(rows.slice(0, 6))).toEqual([0, 0, 0, 0, 0, 0]);
    expect(rows.every(Number.isFinite)).toBe(true);
  });

  it("needs no static batch, length or width", async () => {
    const g = newBuilder();
    const names = ["q", "k", "v"].map((name) =>
      g.input(name, { elemType: 1, shape: ["n", `${name}_length`, `${name}_w`] }),
    );
    g.node("Attention", names, { outputs: ["y"], attributes: heads });
    g.output("y", { elemType: 1, shape: undefined });
    const [q, k, v] = packed as [ort.Tensor, ort.Tensor, ort.Tensor];
    await expectSame(modelOf(g.graph, 23), { q, k, v }, 2e-6);
  });

  it.each<[string, OneRotary]>([
    ["of rank 4", { x: wave([2, 3, 5, 8]), cache: [10, 4], positions: [2, 5] }],
    ["of rank 3", { x: wave([2, 5, 24]), cache: [10, 4], positions: [2, 5], attributes: { num_heads: 3 } }],
    ["interleaved", { x: wave([2, 3, 5, 8]), cache: [10, 4], positions: [2, 5], attributes: { interleaved: 1 } }],
    [
      "of a part",
      { x: wave([2, 3, 5, 8]), cache: [10, 2], positions: [2, 5], attributes: { rotary_embedding_dim: 4 } },
    ],
    ["without positions", { x: wave([2, 3, 5, 8]), cache: [2, 5, 4] }],
  ])("RotaryEmbedding %s", async (_, { x, cache, positions, attributes = {} }) => {
    const inputs = [x, wave(cache, 1, 0.1), wave(cache, 1, 1.7)];
    if (positions)
      inputs.push(
        i64(
          Array.from({ length: 10 }, (_, i) => (i * 3) % 10),
          positions,
        ),
      );
    const operators = await expectSameOperator({ opset: 23, operator: "RotaryEmbedding", inputs, attributes });
    expect(operators).not.toContain("RotaryEmbedding");
  });
});

interface OneRotary {
  x: ort.Tensor;
  cache: number[];
  positions?: number[];
  attributes?: Attributes;
}

describe("what opset 18 cannot say", () => {
  it("lists every node and why", async () => {
    const g = newBuilder();
    const x = g.input("x", { elemType: DataType.FLOAT, shape: ["n", 6, 5, 6] });
    const pooled = g.node("AveragePool", [x], {
      outputs: ["pooled"],
      attributes: { kernel_shape: [2, 2], dilations: [2, 2] },
    });
    const cast = g.op("Cast", pooled, { to: DataType.FLOAT8E5M2 }, "small");
    g.op("CumProd", [x, g.i64(1)], {}, "product");
    g.output(g.cast(cast, DataType.FLOAT), { elemType: 1, shape: undefined });
    const error = (await toProgramOpset(modelOf(g.graph, 26)).catch((e: Error) => e)) as Error;
    expect(error.message).toMatch(/^The model cannot be brought from opset 26 to 18/);
    expect(error.message).toContain("node 'pooled' (AveragePool) has dilations [2, 2]");
    expect(error.message).toContain("node 'small' (Cast) casts to float8e5m2");
    expect(error.message).toContain("node 'product' (CumProd) is an operator of opset 26");
    expect(error.message).toMatch(/Export the model with opset 18/);
  });

  const one = (opset: number, operator: string, inputs: (ort.Tensor | null)[], attributes: Attributes): ModelProto =>
    modelOfOne({ opset, operator, inputs, attributes }).model;
  it.each<[RegExp, ModelProto]>([
    [
      /half_pixel_symmetric/,
      one(19, "Resize", [image, null, vector([1, 1, 2, 2])], {
        coordinate_transformation_mode: "half_pixel_symmetric",
      }),
    ],
    [/rank 5/, one(20, "GridSample", [wave([1, 1, 2, 2, 2]), wave([1, 1, 1, 1, 3])], {})],
    [/blocks/, one(21, "QuantizeLinear", [wave([4, 4]), wave([2, 4])], { block_size: 2, axis: 0 })],
    [/computes its pads/, one(19, "Pad", [cube, i64([0, 0, 1, 0, 0, 0])], { mode: "wrap" })],
    [/padded cache/, one(24, "Attention", [...Array(3).fill(wave([1, 2, 3, 4])), null, null, null, i64([3])], {})],
    [/operator of opset 19/, one(19, "DeformConv", Array(3).fill(image), {})],
  ])("%s", async (message, model) => {
    await expect(toProgramOpset(model)).rejects.toThrow(message);
  });

  it("compares outputs strictly, or these tests prove nothing", () => {
    const y = (values: number[]) => ({ y: vector(values) });
    expect(() => expectSameOutputs(y([1, 2]), y([1, 2.1]), 1e-6)).toThrow();
    expect(() => expectSameOutputs(y([1, Number.NaN]), y([1, 2]), 1e-6)).toThrow();
    expect(() => expectSameOutputs(y([1, 2]), y([1, Number.POSITIVE_INFINITY]), 1e-6)).toThrow();
  });
});
