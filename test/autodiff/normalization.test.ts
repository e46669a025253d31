import { describe, expect, it } from "vitest";
import { differentiate } from "../../src/autodiff/reverse.js";
import { float } from "../../src/onnx/attributes.js";
import { DataType } from "../../src/onnx/proto.js";
import { inferTypes } from "../../src/onnx/types.js";
import { batchNormalization } from "../../src/rewrite/lower/batch-normalization.js";
import { expectGradients } from "../support/gradient-check.js";
import { modelOf, newBuilder } from "../support/run.js";

const channels = (count: number, range: readonly [number, number] = [-1, 1]) =>
  ({ dims: [count], range, known: true }) as const;

describe("BatchNormalization", () => {
  const shapes = [
    [4, 3],
    [4, 3, 2],
    [2, 3, 2, 2],
    [2, 2, 2, 2, 2],
  ];
  it.each(shapes.map((dims) => [dims]))("with given statistics, %j", (dims) =>
    expectGradients({
      inputs: [
        { dims },
        channels(dims[1] as number),
        channels(dims[1] as number),
        channels(dims[1] as number),
        channels(dims[1] as number, [0.5, 2]),
      ],
      build: (b, x) => b.op("BatchNormalization", x, { epsilon: float(0.01) }),
      tolerance: 1e-6,
    }),
  );

  /** Lowers a training-mode node as the rewriter does. */
  const trained = (dims: readonly number[], knowledge: "static" | "batch" | "symbolic") =>
    expectGradients({
      inputs: [{ dims }, channels(dims[1] as number), channels(dims[1] as number)],
      build: (b, [x, scale, bias]) => {
        const count = dims[1] as number;
        const node = {
          opType: "BatchNormalization",
          input: [x, scale, bias, b.f64(Array(count).fill(0)), b.f64(Array(count).fill(1))] as string[],
          output: ["y", "mean", "variance"],
          attribute: [
            { name: "training_mode", i: 1 },
            { name: "epsilon", f: 0.125 },
          ],
        };
        batchNormalization.lower(node, {
          b,
          types: new Map([[x as string, { elemType: DataType.DOUBLE, shape: dims }]]),
          constantOf: () => undefined,
          isUsed: () => false,
          runningStatistic: () => {},
          random: () => {
            throw new Error("draws nothing");
          },
        } as unknown as Parameters<typeof batchNormalization.lower>[1]);
        return "y";
      },
      shapes: [knowledge],
    });
  for (const knowledge of ["static", "batch", "symbolic"] as const) {
    it.each(shapes.map((dims) => [dims]))(`with the batch's statistics, %j, ${knowledge}`, (dims) =>
      trained(dims, knowledge),
    );
  }

  it("refuses training mode that was not lowered", async () => {
    const b = newBuilder();
    b.input("x", { elemType: DataType.FLOAT, shape: [2, 3] });
    const c = b.f32([1, 1, 1]);
    b.node("BatchNormalization", ["x", c, c, c, c], { outputs: ["y", "m", "v"], attributes: { training_mode: 1 } });
    b.graph.output.push({ name: "y" });
    const types = await inferTypes(modelOf(b.graph));
    expect(() =>
      differentiate({ builder: b, forward: b.graph, types, wrt: ["x"], seeds: new Map([["y", "x"]]) }),
    ).toThrow(/'y' \(BatchNormalization\) is in training mode/);
  });
});

describe("LayerNormalization", () => {
  for (const axis of [-1, 1, 2, 0]) {
    it(`from axis ${axis} on`, () => {
      const dims = [2, 3, 4];
      const parameter = dims.slice(axis < 0 ? axis + 3 : axis);
      return expectGradients({
        inputs: [{ dims }, { dims: parameter }, { dims: parameter }],
        build: (b, x) => b.op("LayerNormalization", x, { axis, epsilon: float(0.01) }),
        // Its deviation output is float32 whatever the input.
        tolerance: 2e-6,
      });
    });
  }
  it("without a bias, with a scale that broadcasts", () =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4] }, { dims: [1, 4] }],
      build: (b, x) => b.op("LayerNormalization", x, { axis: 1 }),
      tolerance: 2e-6,
    }));
});

describe("normalisations of one example", () => {
  it.each([[[2, 3, 4]], [[2, 3, 2, 3]]])("InstanceNormalization of %j", (dims) =>
    expectGradients({
      inputs: [{ dims }, channels(3), channels(3)],
      build: (b, x) => b.op("InstanceNormalization", x, { epsilon: float(0.01) }),
      precision: "float32",
      tolerance: 1e-3,
    }),
  );
  it.each([[[2, 4, 3]], [[2, 4, 2, 3]]])("GroupNormalization of %j, a scale for each group (opset 18)", (dims) =>
    expectGradients({
      inputs: [{ dims }, channels(2), channels(2)],
      build: (b, x) => b.op("GroupNormalization", x, { num_groups: 2, epsilon: float(0.01) }),
      precision: "float32",
      tolerance: 1e-3,
      shapes: ["static", "batch"],
    }),
  );
  it("GroupNormalization with a scale for each channel (opset 21)", () =>
    expectGradients({
      inputs: [{ dims: [2, 4, 2, 3] }, channels(4), channels(4)],
      build: (b, x) => b.op("GroupNormalization", x, { num_groups: 2, epsilon: float(0.01) }),
      precision: "float32",
      tolerance: 1e-3,
      shapes: ["static", "batch"],
      opset: 21,
    }));
  it.each([[[0, 2, 3]], [[2, 3]], [[1]]])("MeanVarianceNormalization over %j", (axes) =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4, 2] }],
      build: (b, [x]) => b.op("MeanVarianceNormalization", [x as string], { axes }),
      precision: "float32",
      tolerance: 3e-3,
    }),
  );
  it.each([-1, 1])("RMSNormalization from axis %d on", (axis) =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4] }, { dims: axis === 1 ? [3, 4] : [4] }],
      build: (b, x) => b.op("RMSNormalization", x, { axis, epsilon: float(0.01) }),
      precision: "float32",
      tolerance: 1e-3,
      opset: 23,
    }),
  );
  it.each([1, 2])("LpNormalization, p = %d", (p) =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4], range: [-2, 2], avoid: [0] }],
      build: (b, [x]) => b.op("LpNormalization", [x as string], { p, axis: 1 }),
      precision: "float64",
      allow: ["ReduceL1", "ReduceL2"],
    }),
  );
  it.each([1, 3, 5])("LRN over %d channels", (size) =>
    expectGradients({
      inputs: [{ dims: [2, 5, 2, 2] }],
      build: (b, [x]) => b.op("LRN", [x as string], { size, alpha: float(0.5), beta: float(0.6), bias: float(1.2) }),
      precision: "float32",
      tolerance: 3e-4,
      shapes: ["static", "batch"],
    }),
  );
});
