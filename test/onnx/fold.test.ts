/** Folding of values that never change. */
import { describe, expect, it } from "vitest";
import { type GraphBuilder, valueInfo } from "../../src/onnx/builder.js";
import { foldConstants } from "../../src/onnx/fold.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { numbersOf } from "../../src/onnx/tensor.js";
import { inferTypes } from "../../src/onnx/types.js";
import { wave } from "../support/convert.js";
import { modelOf, newBuilder, runModel } from "../support/run.js";

/** Folds until nothing changes; returns the constant behind each output of `build`. */
async function fold(build: (b: GraphBuilder, x: string) => readonly string[]) {
  const b = newBuilder();
  const x = b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 6, 4] });
  const names = build(b, x);
  // Outputs stay computed, so what is asked for is not an output itself.
  for (const name of names) b.output(b.op("Identity", [name]), { elemType: 0, shape: undefined });
  b.graph.output = b.graph.output.map(({ name }) => ({ name }) as { name: string });
  const model: ModelProto = modelOf(b.graph);
  const before = await runModel(model, { x: wave([3, 6, 4]) });
  let changed = false;
  while (await foldConstants(model, await inferTypes(model))) changed = true;
  const after = await runModel(model, { x: wave([3, 6, 4]) });
  for (const [name, { data, dims }] of Object.entries(before)) {
    expect(after[name]?.dims).toEqual(dims);
    expect(after[name]?.data).toEqual(data);
  }
  const index = new GraphIndex(model.graph);
  const constants = names.map((name) => {
    const tensor = index.constant(name);
    return tensor && numbersOf(tensor);
  });
  return { constants, changed, model };
}

describe("foldConstants", () => {
  it("evaluates arithmetic on known dimensions, and only on those", async () => {
    const { constants } = await fold((b, x) => {
      const shape = b.shape(x);
      const product = b.mul(b.gather(shape, b.i64(1)), b.gather(shape, b.i64(2)));
      const tail = b.op("Slice", [shape, b.i64([1]), b.i64([3])]);
      return [product, b.op("ReduceProd", [tail], { keepdims: 0 }), b.add(b.gather(shape, b.i64(0)), b.i64(1))];
    });
    expect(constants).toEqual([[24], [24], undefined]);
  });

  it("evaluates floats that are made of dimensions and constants", async () => {
    const { constants } = await fold((b, x) => {
      const size = b.cast(b.gather(b.shape(x), b.i64(1)), DataType.FLOAT);
      const factor = b.op("Constant", [], { value: { dims: [], dataType: 1, floatData: [0.4] } });
      return [b.cast(b.op("Floor", [b.mul(size, factor)]), DataType.INT64)];
    });
    expect(constants).toEqual([[2]]);
  });

  it("evaluates what a folded value decides the size of", async () => {
    const { constants } = await fold((b, x) => {
      const count = b.op("Shape", [b.shape(x)]);
      return [
        b.op("ConstantOfShape", [count], { value: { dims: [1], dataType: 7, int64Data: [5] } }),
        b.op("Range", [b.i64(0), b.gather(b.shape(x), b.i64(2)), b.i64(1)]),
      ];
    });
    expect(constants).toEqual([
      [5, 5, 5],
      [0, 1, 2, 3],
    ]);
  });

  it("leaves large values, float initializers and what can be fed alone", async () => {
    const { constants, changed } = await fold((b) => {
      const n = b.i64([100, 100]);
      const weight = b.initializer("weight", DataType.FLOAT, [2], Float32Array.of(1, 2));
      const fed = b.initializer("fed", DataType.INT64, [1], BigInt64Array.of(3n));
      b.graph.input.push(valueInfo(fed, { elemType: DataType.INT64, shape: [1] }));
      return [b.expand(b.f32(1), n), b.op("ConstantOfShape", [n]), b.mul(weight, weight), b.add(fed, fed)];
    });
    expect(constants).toEqual([undefined, undefined, undefined, undefined]);
    expect(changed).toBe(false);
  });

  it("keeps outputs of the graph as computed values, and the names and metadata of nodes", async () => {
    const b = newBuilder();
    const x = b.input("x", { elemType: DataType.FLOAT, shape: [2, 3] });
    const shape = b.shape(x);
    const doubled = b.add(shape, shape);
    b.output(doubled, { elemType: DataType.INT64, shape: [2] });
    Object.assign(b.graph.node[0] ?? {}, { name: "mine", metadataProps: [{ key: "k", value: "v" }] });
    const model = modelOf(b.graph);
    expect(await foldConstants(model, await inferTypes(model))).toBe(true);
    expect(model.graph.node.map(({ opType }) => opType)).toEqual(["Constant", "Add"]);
    expect(model.graph.node[0]).toMatchObject({ name: "mine", metadataProps: [{ key: "k", value: "v" }] });
  });
});
