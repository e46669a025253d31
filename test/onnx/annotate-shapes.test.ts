/** Symbolic shapes written where ONNX Runtime would lose them. */
import { describe, expect, it } from "vitest";
import { annotateShapes } from "../../src/onnx/annotate-shapes.js";
import { DataType } from "../../src/onnx/proto.js";
import { declaredType, inferTypes } from "../../src/onnx/types.js";
import { wave } from "../support/convert.js";
import { modelOf, newBuilder, runModel } from "../support/run.js";

describe("annotateShapes", () => {
  /** y = (the rows of x, doubled where positive), through Reshapes that ONNX Runtime cannot follow. */
  function graph() {
    const b = newBuilder();
    const x = b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 6] });
    const flat = b.reshape(x, [-1]);
    const positive = b.greater(flat, b.f32(0));
    const batch = b.gather(b.shape(x), b.i64([0]));
    const mask = b.reshape(positive, b.concat([batch, b.i64([6])], 0));
    const zeros = b.op("ConstantOfShape", [b.shape(x)]);
    const y = b.where(mask, b.add(x, x), zeros);
    b.output(y, { elemType: DataType.FLOAT, shape: ["batch", 6] });
    return { b, flat, mask, zeros };
  }

  it("names element types and dimensions of what was computed", async () => {
    const { b, flat, mask, zeros } = graph();
    annotateShapes(b.graph, new Map());
    const types = Object.fromEntries(b.graph.valueInfo.map((info) => [info.name, declaredType(info)]));
    expect(types).toEqual({
      [flat]: { elemType: DataType.FLOAT, shape: ["6*batch"] },
      [mask]: { elemType: DataType.BOOL, shape: ["batch", 6] },
      [zeros]: { elemType: DataType.FLOAT, shape: ["batch", 6] },
    });
    const feeds = { x: wave([3, 6]) };
    const { data } = Object.values(await runModel(modelOf(b.graph), feeds))[0] as { data: Float32Array };
    expect([...data]).toEqual(
      Array.from(feeds.x.data as Float32Array, (value) => Math.max(0, 2 * value)).map(Math.fround),
    );
  });

  it("adds nothing where there is no symbol, and nothing twice", async () => {
    const { b } = graph();
    const types = await inferTypes(modelOf(b.graph));
    annotateShapes(b.graph, types);
    const count = b.graph.valueInfo.length;
    annotateShapes(b.graph, types);
    expect(b.graph.valueInfo).toHaveLength(count);
    const fixed = newBuilder();
    fixed.reshape(fixed.input("x", { elemType: DataType.FLOAT, shape: [2, 6] }), [-1]);
    annotateShapes(fixed.graph, new Map());
    expect(fixed.graph.valueInfo).toEqual([]);
  });
});
