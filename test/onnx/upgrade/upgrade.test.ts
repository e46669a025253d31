import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { attributesFrom, float } from "../../../src/onnx/attributes.js";
import { decodeModel, encodeModel } from "../../../src/onnx/codec.js";
import { DataType } from "../../../src/onnx/proto.js";
import { toProgramOpset } from "../../../src/onnx/upgrade/upgrade.js";
import { convert, expectSame, expectSameOperator, i64, modelOfOne, operatorsOf, wave } from "../../support/convert.js";
import { modelOf, newBuilder, runModel } from "../../support/run.js";
import { GRAPHS, loadGolden } from "../../support/shared.js";

const cube = wave([2, 3, 4]);
const image = wave([2, 3, 5, 6]);
const f32s = (...values: number[]) => new ort.Tensor("float32", Float32Array.from(values), [values.length]);

describe("axes and split sizes", () => {
  it.each([
    [9, "Squeeze", wave([3, 1, 4, 1]), { axes: [1, 3] }],
    [11, "Squeeze", wave([3, 1, 4, 1]), { axes: [-1] }],
    [9, "Unsqueeze", cube, { axes: [0, 2] }],
    [11, "Unsqueeze", cube, { axes: [-1] }],
    [12, "ReduceSum", cube, { axes: [0, -1], keepdims: 0 }],
    [9, "ReduceSum", cube, {}],
    [13, "ReduceMean", cube, { axes: [1] }],
    [17, "ReduceMax", cube, { axes: [0, 2], keepdims: 0 }],
    [9, "ReduceMin", cube, { keepdims: 0 }],
    [11, "ReduceProd", cube, { axes: [2] }],
    [17, "ReduceL1", cube, { axes: [0] }],
    [9, "ReduceL2", cube, { axes: [1, 2] }],
    [17, "ReduceSumSquare", cube, { axes: [1] }],
    [17, "ReduceLogSumExp", cube, { axes: [1], keepdims: 0 }],
  ] as const)("opset %i %s", async (opset, operator, x, attributes) => {
    expect(await expectSameOperator({ opset, operator, inputs: [x], attributes })).toEqual([operator]);
  });

  it("ReduceLogSum of positive numbers", async () => {
    const x = new ort.Tensor("float32", Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3]);
    await expectSameOperator({ opset: 13, operator: "ReduceLogSum", inputs: [x], attributes: { axes: [1] } });
  });

  it("leaves an opset-13 ReduceSum with computed axes alone", async () => {
    await expectSameOperator({ opset: 13, operator: "ReduceSum", inputs: [cube, i64([1])] });
  });

  it.each([
    [9, undefined, 3, { axis: 1 }],
    [11, undefined, 2, { axis: -2, split: [1, 2] }],
    [13, undefined, 2, { axis: 2 }],
    [13, [2, 1], 2, { axis: 1 }],
    [17, undefined, 2, { axis: 2 }],
  ])("opset %i Split of sizes %j into %i", async (opset, sizes, count, attributes) => {
    const inputs = sizes ? [cube, i64(sizes)] : [cube];
    const outputs = Array(count).fill(true);
    await expectSameOperator({ opset, operator: "Split", inputs, constant: [1], attributes, outputs });
  });
});

describe("bounds", () => {
  it.each([
    [9, "Clip", { min: float(-0.5), max: float(0.75) }],
    [9, "Clip", { max: float(0.25) }],
    [6 + 4, "Clip", { min: float(0) }],
    [9, "Clip", {}],
    [9, "Slice", { starts: [0, -2], ends: [1, 1000], axes: [0, 2] }],
    [9, "Slice", { starts: [1, 1], ends: [2, 3] }],
    [9, "TopK", { k: 2, axis: 1 }],
    [10, "Pad", { pads: [0, 1, 2, 1, 0, 0], value: float(0.5) }],
    [9, "Pad", { pads: [0, 0, -1, 0, 0, 2] }],
    [9, "Pad", { pads: [0, 1, 2, 0, 1, 1], mode: "reflect", value: float(3) }],
    [10, "Pad", { pads: [1, 0, 2, 0, 1, 1], mode: "edge" }],
  ] as const)("opset %i %s %j", async (opset, operator, attributes) => {
    const outputs = operator === "TopK" ? [true, true] : [true];
    const outputTypes = [DataType.FLOAT, DataType.INT64];
    expect(await expectSameOperator({ opset, operator, inputs: [cube], attributes, outputs, outputTypes })).toEqual([
      operator,
    ]);
  });
});

describe("softmax", () => {
  const operators = ["Softmax", "LogSoftmax", "Hardmax"] as const;
  const axes = [undefined, 0, 1, 2, -1, -2] as const;
  it.each(operators.flatMap((operator) => axes.map((axis) => [operator, axis] as const)))(
    "%s over axis %s",
    async (operator, axis) => {
      const opset = axis !== undefined && axis < 0 ? 11 : 9;
      const operatorsAfter = await expectSameOperator({ opset, operator, inputs: [cube], attributes: { axis } });
      const isLast = axis === 2 || axis === -1;
      expect(operatorsAfter).toEqual(isLast ? [operator] : ["Flatten", operator, "Shape", "Reshape"]);
    },
  );

  it("changes nothing from opset 13 on", async () => {
    const operators = await expectSameOperator({
      opset: 13,
      operator: "Softmax",
      inputs: [cube],
      attributes: { axis: 1 },
    });
    expect(operators).toEqual(["Softmax"]);
  });
});

describe("resize", () => {
  const scaleSets = [
    [1, 1, 2, 2],
    [1, 1, 2.5, 1.3],
    [1, 1, 0.5, 0.7],
    [1, 1, 2, 0.5],
  ];
  it.each(scaleSets.flatMap((scales) => ["nearest", "linear"].map((mode) => [mode, scales] as const)))(
    "opset 10 %s by %j",
    async (mode, scales) => {
      const op = {
        opset: 10,
        operator: "Resize",
        inputs: [image, f32s(...scales)],
        constant: [1],
        attributes: { mode },
      };
      const mixed = mode === "nearest" && scales[2] === 2 && scales[3] === 0.5;
      expect(await expectSameOperator(op)).toEqual(mixed ? ["Resize", "Resize"] : ["Resize"]);
    },
  );

  it.each(["nearest", "linear"])("Upsample %s, with constant scales", async (mode) => {
    const attributes = { mode };
    const inputs = [image, f32s(1, 1, 2, 3)];
    expect(await expectSameOperator({ opset: 9, operator: "Upsample", inputs, constant: [1], attributes })).toEqual([
      "Resize",
    ]);
  });

  it("Upsample with computed scales", async () => {
    await expectSameOperator({ opset: 9, operator: "Upsample", inputs: [image, f32s(1, 1, 2, 3)] });
  });

  it("refuses a nearest Resize of opset 10 whose scales are computed", async () => {
    const { model } = modelOfOne({ opset: 10, operator: "Resize", inputs: [image, f32s(1, 1, 2, 2)] });
    await expect(toProgramOpset(model)).rejects.toThrow(/node 'y0' \(Resize\) computes its scales in the graph/);
  });

  const empty = f32s();
  it.each([
    [11, { coordinate_transformation_mode: "tf_half_pixel_for_nn", nearest_mode: "floor" }],
    [12, { coordinate_transformation_mode: "tf_half_pixel_for_nn" }],
    [11, { coordinate_transformation_mode: "asymmetric", mode: "nearest", nearest_mode: "floor" }],
    [11, { coordinate_transformation_mode: "pytorch_half_pixel", mode: "linear" }],
    [12, { coordinate_transformation_mode: "align_corners", mode: "cubic" }],
    [13, { mode: "linear" }],
  ])("opset %i %j", async (opset, attributes) => {
    const byScales = [image, empty, f32s(1, 1, 1.8, 0.6)];
    const operators = await expectSameOperator({
      opset,
      operator: "Resize",
      inputs: byScales,
      constant: [1, 2],
      attributes,
    });
    expect(operators).toEqual(["Resize"]);
  });

  it("takes sizes instead of scales", async () => {
    const inputs = [image, empty, empty, i64([2, 3, 9, 4])];
    const { model, feeds } = modelOfOne({ opset: 11, operator: "Resize", inputs, constant: [1, 2, 3] });
    expect((await convert(model)).graph.node[0]?.input).toEqual(["x0", "", "", "x3"]);
    await expectSame(model, feeds);
  });
});

describe("training operators", () => {
  it.each([9, 10, 11, 12, 13])("opset %i Dropout passes its data through", async (opset) => {
    const attributes = opset < 12 ? { ratio: float(0.3) } : {};
    const { model, feeds } = modelOfOne({ opset, operator: "Dropout", inputs: [cube], attributes });
    await expectSame(model, feeds);
    const ratio = (await convert(model)).graph.initializer[0];
    if (opset < 12)
      expect(new Float32Array(ratio?.rawData?.slice().buffer as ArrayBuffer)).toEqual(Float32Array.of(0.3));
  });

  it("drops an unused mask and refuses a used one before opset 12", async () => {
    const outputs = [true, true];
    const outputTypes = [DataType.FLOAT, DataType.BOOL];
    await expectSameOperator({ opset: 12, operator: "Dropout", inputs: [cube], outputs, outputTypes });
    const { model, feeds } = modelOfOne({ opset: 11, operator: "Dropout", inputs: [cube], outputs, outputTypes });
    await expect(toProgramOpset(model)).rejects.toThrow(/node 'y0' \(Dropout\) gives its mask 'y1' away/);
    model.graph.output.pop();
    await expectSame(model, feeds);
  });

  const channels = [f32s(1, 2, 3), f32s(0.5, 0, -0.5), f32s(0.1, 0.2, 0.3), f32s(1, 2, 0.5)];
  it.each([9, 13, 14])("opset %i BatchNormalization for inference", async (opset) => {
    await expectSameOperator({
      opset,
      operator: "BatchNormalization",
      inputs: [image, ...channels],
      attributes: { epsilon: float(1e-3) },
    });
  });

  // ONNX Runtime's inference build does not train the old form; PyTorch's definition stands in.
  const trained = (outputs: boolean[]) =>
    modelOfOne({
      opset: 9,
      operator: "BatchNormalization",
      inputs: [image, ...channels],
      attributes: { momentum: float(0.8), epsilon: float(1e-3) },
      outputs,
    });

  it("opset 9 BatchNormalization that trains", async () => {
    const { model, feeds } = trained([true, true, true, true, true]);
    model.graph.output.splice(3);
    const outputs = await runModel(await convert(model), feeds);
    const [y, nextMean, nextVariance] = ["y0", "y1", "y2"].map((name) => outputs[name]?.data as Float32Array);
    const x = image.data as Float32Array;
    for (const c of [0, 1, 2]) {
      const values = Array.from(x).filter((_, i) => Math.floor(i / 30) % 3 === c);
      const mean = values.reduce((a, b) => a + b) / values.length;
      const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
      const [gamma, beta, oldMean, oldVariance] = channels.map(({ data }) => (data as Float32Array)[c] as number);
      const y7 = y?.[c * 30 + 7] as number;
      const x7 = x[c * 30 + 7] as number;
      expect(y7).toBeCloseTo(((x7 - mean) / Math.sqrt(variance + 1e-3)) * (gamma as number) + (beta as number), 4);
      expect(nextMean?.[c]).toBeCloseTo((oldMean as number) * 0.8 + mean * 0.2, 5);
      expect(nextVariance?.[c]).toBeCloseTo((oldVariance as number) * 0.8 + variance * 0.2, 5);
    }
  });

  it("refuses the statistics of the batch as outputs", async () => {
    const { model } = trained([true, true, true, true, true]);
    await expect(toProgramOpset(model)).rejects.toThrow(/BatchNormalization.* as 'y3', 'y4', which opset 14 removed/s);
  });
});

describe("renamed operators", () => {
  it("Scatter", async () => {
    const inputs = [wave([4, 3]), i64([3, 1, 0, 2, 2, 1], [2, 3]), wave([2, 3], 1, 1)];
    expect(await expectSameOperator({ opset: 9, operator: "Scatter", inputs })).toEqual(["ScatterElements"]);
  });

  it("RoiAlign keeps its coordinates", async () => {
    const rois = new ort.Tensor("float32", Float32Array.of(0, 0, 4, 4, 1, 1, 5, 3), [2, 4]);
    await expectSameOperator({
      opset: 10,
      operator: "RoiAlign",
      inputs: [image, rois, i64([0, 1])],
      attributes: { output_height: 2, output_width: 2, sampling_ratio: 2 },
    });
  });
});

describe("whole models", () => {
  it("a PyTorch export of opset 11 gives PyTorch's output", async () => {
    const { model, golden } = loadGolden("cnn_opset11");
    const x = golden.tensors.get("input/x");
    const feeds = { x: new ort.Tensor("float32", x?.data as Float32Array, [...(x?.dims ?? [])]) };
    await expectSame(model, feeds);
  });

  it("shares the bytes of the weights and gives them back unchanged", async () => {
    const model = decodeModel(readFileSync(join(GRAPHS, "autoencoder.onnx")));
    const converted = await toProgramOpset(model);
    expect(converted.graph.initializer.map(({ name }) => name)).toEqual(
      model.graph.initializer.map(({ name }) => name),
    );
    for (const [index, tensor] of converted.graph.initializer.entries()) {
      expect(tensor.rawData).toBe(model.graph.initializer[index]?.rawData);
    }
    converted.graph.node.pop();
    expect(model.graph.node.length).toBe(14);
  });

  it("converts the branches of an If and the body of a Loop", async () => {
    const g = newBuilder();
    const [c, x] = [
      g.input("c", { elemType: DataType.BOOL, shape: [] }),
      g.input("x", { elemType: 1, shape: ["n", 3] }),
    ];
    const then = g.subgraph("then");
    then.output(then.op("ReduceSum", [x], { axes: [1], keepdims: 1 }), { elemType: 1, shape: undefined });
    const other = g.subgraph("else");
    const body = other.subgraph("body");
    const i = body.input("i", { elemType: DataType.INT64, shape: [] });
    const going = body.input("going", { elemType: DataType.BOOL, shape: [] });
    const carried = body.input("carried", { elemType: 1, shape: undefined });
    body.output(body.op("Identity", [going]), { elemType: DataType.BOOL, shape: [] });
    const next = body.op("Softmax", [carried], { axis: 0 });
    body.output(body.add(next, body.cast(i, DataType.FLOAT)), { elemType: 1, shape: undefined });
    const looped = other.op("Loop", [other.i64(3), "", x], { body: body.graph });
    other.output(other.op("ReduceMean", [looped], { axes: [1] }), { elemType: 1, shape: undefined });
    const y = g.op("If", [c], { then_branch: then.graph, else_branch: other.graph });
    g.output(g.alias(y, "y"), { elemType: 1, shape: undefined });
    const model = modelOf(g.graph, 11);
    for (const value of [true, false]) {
      await expectSame(model, { c: new ort.Tensor("bool", [value], []), x: wave([4, 3]) });
    }
  });

  it("keeps names, metadata and the other spelling of the default domain", async () => {
    const { model, feeds } = modelOfOne({ opset: 11, operator: "Softmax", inputs: [cube], attributes: { axis: 1 } });
    const node = model.graph.node[0];
    if (!node) throw new Error("no node");
    Object.assign(node, { name: "/layer/softmax", domain: "ai.onnx" });
    node.metadataProps = [{ key: "scope", value: "layer" }];
    model.opsetImport = [{ domain: "ai.onnx", version: 11 }];
    const converted = await convert(model);
    expect(converted.graph.node.at(-1)).toMatchObject({ name: "/layer/softmax", opType: "Reshape" });
    expect(converted.graph.node.map(({ metadataProps }) => metadataProps?.[0]?.value)).toEqual(Array(4).fill("layer"));
    expect(converted.graph.node.every(({ domain }) => !domain)).toBe(true);
    expect((await runModel(converted, feeds)).y0?.dims).toEqual([2, 3, 4]);
  });

  it("leaves a model of opset 18 as it is, but for the IR version", async () => {
    const { model } = modelOfOne({ opset: 18, operator: "Relu", inputs: [cube] });
    model.graph.node[0]?.attribute.push(...attributesFrom({}));
    const converted = await toProgramOpset(model);
    expect(Buffer.compare(encodeModel(converted), encodeModel(model))).toBe(0);
    expect(operatorsOf(converted)).toEqual(["Relu"]);
    expect((await toProgramOpset({ ...model, irVersion: 4 })).irVersion).toBe(8);
    expect((await toProgramOpset({ ...model, irVersion: 13 })).irVersion).toBe(10);
  });

  it.each([
    [8, /uses opset 8; fishy reads opsets 9 to 26.*version_converter/],
    [27, /uses opset 27; .*opset_version=18/],
  ])("refuses opset %i", async (opset, message) => {
    const { model } = modelOfOne({ opset, operator: "Relu", inputs: [cube] });
    await expect(toProgramOpset(model)).rejects.toThrow(message);
  });
});
