import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { differentiate } from "../../src/autodiff/reverse.js";
import { DataType } from "../../src/onnx/proto.js";
import { inferTypes } from "../../src/onnx/types.js";
import { expectGradients } from "../support/gradient-check.js";
import { f32, modelOf, newBuilder, runModel } from "../support/run.js";

describe("Gather", () => {
  it.each([
    { data: [5, 3], indices: [4], values: [0, 2, 2, -1], axis: 0 },
    { data: [5, 3], indices: [2, 2], values: [1, 1, 4, 0], axis: 0 },
    { data: [3, 4], indices: [2, 3], values: [0, 3, 3, -2, 1, 1], axis: 1 },
    { data: [2, 4, 3], indices: [3], values: [3, 0, 3], axis: -2 },
    { data: [2, 4, 3], indices: [2, 1], values: [2, 0], axis: -1 },
    { data: [4, 2], indices: [], values: [2], axis: 0 },
    { data: [6], indices: [2, 2], values: [5, 5, 0, 1], axis: 0 },
  ])("$data by $indices on axis $axis", ({ data, indices, values, axis }) =>
    expectGradients({
      inputs: [{ dims: data }, { dims: indices, values, type: "int64" }],
      build: (b, x) => b.gather(x[0] as string, x[1] as string, axis),
      step: 0.5,
      tolerance: 1e-6,
    }),
  );

  it.each([
    { data: [3, 2, 4], indices: [], values: [1], axis: 0 },
    { data: [3, 4], indices: [], values: [-1], axis: 1 },
    { data: [3, 4], indices: [1], values: [-3], axis: -1 },
    { data: [1, 4], indices: [], values: [0], axis: 0 },
    { data: [4], indices: [], values: [2], axis: 0 },
  ])("$data by the constant $values on axis $axis", ({ data, indices, values, axis }) =>
    expectGradients({
      inputs: [{ dims: data }],
      build: (b, x) => b.gather(x[0] as string, b.constant(DataType.INT64, values, indices), axis),
      step: 0.5,
      tolerance: 1e-6,
    }),
  );

  it("adds repeated rows up, whatever the number of threads", async () => {
    const [rows, width, count] = [50, 64, 20_000];
    const b = newBuilder();
    b.input("table", { elemType: DataType.FLOAT, shape: [rows, width] });
    b.input("i", { elemType: DataType.INT64, shape: [count] });
    b.input("dy", { elemType: DataType.FLOAT, shape: [count, width] });
    const y = b.gather("table", "i");
    const types = await inferTypes(modelOf(b.graph));
    const forward = { ...b.graph, node: [...b.graph.node] };
    const gradient = differentiate({ builder: b, forward, types, wrt: ["table"], seeds: new Map([[y, "dy"]]) }).get(
      "table",
    );
    b.output(gradient as string, { elemType: DataType.FLOAT, shape: [rows, width] });
    const indices = Array.from({ length: count }, (_, k) => (k * 7919) % rows);
    const dy = Array.from({ length: count * width }, (_, k) => ((k * 31) % 17) - 8);
    const feeds = {
      table: f32(new Float32Array(rows * width), [rows, width]),
      i: new ort.Tensor("int64", BigInt64Array.from(indices, BigInt), [count]),
      dy: f32(dy, [count, width]),
    };
    // Integers, so that the sum is exact in any order.
    const expected = new Float32Array(rows * width);
    for (const [k, value] of dy.entries()) {
      const at = (indices[Math.floor(k / width)] as number) * width + (k % width);
      expected[at] = (expected[at] as number) + value;
    }
    for (const intraOpNumThreads of [1, 2]) {
      const results = await runModel(modelOf(b.graph), feeds, { intraOpNumThreads });
      expect(results[gradient as string]?.data).toEqual(expected);
    }
  });
});

describe("Pad", () => {
  it.each([
    { dims: [3, 4], pads: [1, 0, 2, 3], mode: "constant" },
    { dims: [3, 4], pads: [-1, 2, 0, -1], mode: "constant" },
    { dims: [2, 3, 4], pads: [0, 0, 0, 0, 0, 0], mode: "constant" },
    { dims: [2, 4, 5], pads: [0, 2, 3, 0, 1, 4], mode: "reflect" },
    { dims: [2, 4, 5], pads: [0, 3, 0, 0, 3, 1], mode: "reflect" },
    { dims: [2, 4, 5], pads: [0, 2, 3, 0, 1, 4], mode: "edge" },
    { dims: [2, 1, 3], pads: [0, 2, 1, 0, 2, 0], mode: "edge" },
  ])("$dims by $pads, $mode", ({ dims, pads, mode }) =>
    expectGradients({
      inputs: [{ dims }],
      build: (b, x) => b.op("Pad", [x[0] as string, b.i64(pads)], { mode }),
      shapes: mode === "constant" ? ["static", "batch", "symbolic"] : ["static", "batch"],
      step: 0.5,
      tolerance: 1e-6,
    }),
  );

  it("on some axes, and with a constant that is differentiated", () =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4] }, { dims: [], known: true }],
      build: (b, x) => b.op("Pad", [x[0] as string, b.i64([1, 2]), x[1] as string, b.i64([-2])]),
      step: 0.5,
      tolerance: 1e-6,
    }));
});
