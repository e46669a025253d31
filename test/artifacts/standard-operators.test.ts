/** ONNX Runtime's training operators as standard ones: each against values worked out here in float64. */
import { describe, expect, it } from "vitest";
import { artifactOpset, sliceForward, toStandardOperators } from "../../src/artifacts/forward-graph.js";
import { type Attributes, attributesFrom, float } from "../../src/onnx/attributes.js";
import { valueInfo } from "../../src/onnx/builder.js";
import { countOperators } from "../../src/onnx/opcount.js";
import { DataType, type ModelProto, type NodeProto, type TensorProto } from "../../src/onnx/proto.js";
import { numbersOf, tensorFromNumbers } from "../../src/onnx/tensor.js";
import { toProgramOpset } from "../../src/onnx/upgrade/upgrade.js";
import { f32, relativeError, runModel } from "../support/run.js";

interface Case {
  readonly opType: string;
  readonly domain?: string;
  readonly opset?: number;
  readonly attributes?: Attributes;
  /** Contents of the inputs; the first is fed, the others are constants. An empty name leaves one out. */
  readonly inputs: readonly (TensorProto | undefined)[];
  readonly outputs?: readonly string[];
  /** Outputs that the graph returns. */
  readonly returned?: readonly string[];
}

const MICROSOFT = "com.microsoft";

function modelOf({
  opType,
  domain = MICROSOFT,
  opset = 14,
  attributes = {},
  inputs,
  outputs = ["y"],
  returned,
}: Case): ModelProto {
  const names = inputs.map((tensor, i) => (tensor ? `x${i}` : ""));
  const node: NodeProto = {
    opType,
    domain,
    name: "node",
    input: names,
    output: [...outputs],
    attribute: attributesFrom(attributes),
  };
  const constants = inputs.flatMap((tensor, i) => (tensor && i > 0 ? [{ ...tensor, name: `x${i}` }] : []));
  const first = inputs[0] as TensorProto;
  return {
    irVersion: 8,
    graph: {
      name: "case",
      node: [node],
      initializer: constants,
      input: [valueInfo("x0", { elemType: first.dataType as DataType, shape: first.dims.map(Number) })],
      output: (returned ?? [outputs[0] as string]).map((name) => ({ name })),
      valueInfo: [],
    },
    opsetImport: [
      { domain: "", version: opset },
      { domain: MICROSOFT, version: 1 },
    ],
    metadataProps: [],
    trainingInfo: [],
    functions: [],
  };
}

async function run(test: Case): Promise<number[][]> {
  const standard = await toProgramOpset(toStandardOperators(modelOf(test)));
  expect([...countOperators(standard).keys()].some((operator) => operator.includes("::"))).toBe(false);
  const first = test.inputs[0] as TensorProto;
  const result = await runModel(standard, { x0: f32(numbersOf(first), first.dims.map(Number)) });
  return (test.returned ?? [test.outputs?.[0] ?? "y"]).map((name) =>
    Array.from(result[name]?.data as Float32Array, Number),
  );
}

const tensor = (dims: number[], values: number[]) => tensorFromNumbers("", DataType.FLOAT, dims, values);
const ints = (values: number[]) => tensorFromNumbers("", DataType.INT64, [values.length], values);
const ramp = (dims: number[]) => {
  const count = dims.reduce((product, dim) => product * dim, 1);
  return tensor(
    dims,
    Array.from({ length: count }, (_, i) => Math.sin(1.7 * i + 0.3) * 2),
  );
};
const close = (found: number[] | undefined, expected: number[]) =>
  expect(relativeError(found ?? [], expected)).toBeLessThan(1e-6);

describe("elementwise", () => {
  const x = ramp([2, 5]);
  const values = numbersOf(x);

  it.each([0, 1])("Scale with scale_down %i", async (down) => {
    const [y] = await run({ opType: "Scale", attributes: { scale_down: down }, inputs: [x, tensor([], [3])] });
    close(
      y,
      values.map((v) => (down ? v / 3 : v * 3)),
    );
  });

  it.each([14, 18])("Scale by a count, opset %i", async (opset) => {
    const [y] = await run({
      opType: "Scale",
      opset,
      attributes: { scale_down: 1 },
      inputs: [x, tensorFromNumbers("", DataType.INT64, [], [4])],
    });
    close(
      y,
      values.map((v) => v / 4),
    );
  });

  it("Gelu, BiasGelu", async () => {
    const expected = values.map((v) => 0.5 * v * (1 + erf(v / Math.SQRT2)));
    close((await run({ opType: "Gelu", inputs: [x] }))[0], expected);
    const bias = [0.1, -0.2, 0.3, 0, 1];
    const shifted = values.map((v, i) => v + (bias[i % 5] as number)).map((v) => 0.5 * v * (1 + erf(v / Math.SQRT2)));
    close((await run({ opType: "BiasGelu", inputs: [x, tensor([5], bias)] }))[0], shifted);
  });

  it("FastGelu, with and without bias", async () => {
    const fast = (v: number) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
    close((await run({ opType: "FastGelu", inputs: [x] }))[0], values.map(fast));
    const bias = [0.1, -0.2, 0.3, 0, 1];
    close(
      (await run({ opType: "FastGelu", inputs: [x, tensor([5], bias)] }))[0],
      values.map((v, i) => fast(v + (bias[i % 5] as number))),
    );
  });

  it("QuickGelu", async () => {
    const [y] = await run({ opType: "QuickGelu", attributes: { alpha: float(1.5) }, inputs: [x] });
    close(
      y,
      values.map((v) => v / (1 + Math.exp(-1.5 * v))),
    );
  });
});

describe("movement and reductions", () => {
  const x = ramp([2, 6]);
  const values = numbersOf(x);

  it("ConcatTraining, whose lengths nobody reads", async () => {
    const [y] = await run({
      opType: "ConcatTraining",
      attributes: { axis: 1 },
      inputs: [x, x],
      outputs: ["y", "lengths"],
    });
    close(y, [...values.slice(0, 6), ...values.slice(0, 6), ...values.slice(6), ...values.slice(6)]);
  });

  it("ConcatTraining whose lengths are read: refused by name", () => {
    const model = modelOf({
      opType: "ConcatTraining",
      attributes: { axis: 1 },
      inputs: [x, x],
      outputs: ["y", "lengths"],
      returned: ["y", "lengths"],
    });
    expect(() => toStandardOperators(model)).toThrow(
      /node 'node' \(com\.microsoft::ConcatTraining\) gives 'lengths' away/,
    );
  });

  it.each([12, 14])("SplitTraining, opset %i", async (opset) => {
    const parts = await run({
      opType: "SplitTraining",
      opset,
      attributes: { axis: 1 },
      inputs: [x, ints([2, 4])],
      outputs: ["a", "b"],
      returned: ["a", "b"],
    });
    close(
      parts[0],
      [0, 1, 6, 7].map((i) => values[i] as number),
    );
    close(
      parts[1],
      [2, 3, 4, 5, 8, 9, 10, 11].map((i) => values[i] as number),
    );
  });

  it.each([12, 14])("ReduceSumTraining, opset %i", async (opset) => {
    const [y] = await run({ opType: "ReduceSumTraining", opset, attributes: { keepdims: 0 }, inputs: [x, ints([1])] });
    close(
      y,
      [values.slice(0, 6), values.slice(6)].map((row) => row.reduce((sum, v) => sum + v, 0)),
    );
  });

  it.each([
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ])("FusedMatMul with transA %i and transB %i, batched and scaled", async (transA, transB) => {
    const a = ramp(transA ? [2, 3, 4] : [2, 4, 3]);
    const b = ramp(transB ? [5, 3] : [3, 5]);
    const batched = ramp([2, ...b.dims.map(Number)]);
    const [y] = await run({
      opType: "FusedMatMul",
      attributes: { transA, transB, alpha: float(0.5) },
      inputs: [a, batched],
    });
    const [av, bv] = [numbersOf(a), numbersOf(batched)];
    const expected: number[] = [];
    for (let n = 0; n < 2; n++) {
      for (let i = 0; i < 4; i++) {
        for (let j = 0; j < 5; j++) {
          let sum = 0;
          for (let k = 0; k < 3; k++) {
            sum +=
              (av[12 * n + (transA ? 4 * k + i : 3 * i + k)] as number) *
              (bv[15 * n + (transB ? 3 * j + k : 5 * k + j)] as number);
          }
          expected.push(0.5 * sum);
        }
      }
    }
    close(y, expected);
  });
});

describe("normalization", () => {
  const x = ramp([4, 3]);
  const rows = [0, 1, 2, 3].map((i) => numbersOf(x).slice(3 * i, 3 * i + 3));

  it.each([14, 18])("SimplifiedLayerNormalization, opset %i", async (opset) => {
    const scale = [1, 2, -1];
    const [y] = await run({
      opType: "SimplifiedLayerNormalization",
      domain: "",
      opset,
      attributes: { axis: -1, epsilon: float(1e-5), stash_type: 1 },
      inputs: [x, tensor([3], scale)],
      outputs: ["y", "inverse"],
      returned: ["y"],
    });
    close(
      y,
      rows.flatMap((row) => {
        const rms = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / 3 + Math.fround(1e-5));
        return row.map((v, j) => (v / rms) * (scale[j] as number));
      }),
    );
  });

  it("LayerNormalization with three outputs, before opset 17", async () => {
    const [y] = await run({
      opType: "LayerNormalization",
      domain: "",
      attributes: { axis: -1, epsilon: float(1e-5) },
      inputs: [x, tensor([3], [1, 2, -1]), tensor([3], [0.5, 0, 0.25])],
      outputs: ["y", "mean", "inverse"],
      returned: ["y"],
    });
    close(
      y,
      rows.flatMap((row) => {
        const mean = row.reduce((sum, v) => sum + v, 0) / 3;
        const variance = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / 3;
        return row.map(
          (v, j) =>
            ((v - mean) / Math.sqrt(variance + 1e-5)) * ([1, 2, -1][j] as number) + ([0.5, 0, 0.25][j] as number),
        );
      }),
    );
  });

  it("BatchNormInternal: statistics of the batch, and the running ones", async () => {
    const [y, mean, variance] = await run({
      opType: "BatchNormInternal",
      attributes: { epsilon: float(1e-5), momentum: float(0.9), training_mode: 1 },
      inputs: [x, tensor([3], [1, 2, -1]), tensor([3], [0.5, 0, 0.25]), tensor([3], [1, 1, 1]), tensor([3], [2, 2, 2])],
      outputs: ["y", "mean", "variance", "saved_mean", "saved_inverse"],
      returned: ["y", "mean", "variance"],
    });
    const columns = [0, 1, 2].map((j) => rows.map((row) => row[j] as number));
    const means = columns.map((column) => column.reduce((sum, v) => sum + v, 0) / 4);
    const variances = columns.map(
      (column, j) => column.reduce((sum, v) => sum + (v - (means[j] as number)) ** 2, 0) / 4,
    );
    close(
      mean,
      means.map((m) => 0.9 + 0.1 * m),
    );
    close(
      variance,
      variances.map((v) => 0.9 * 2 + 0.1 * v),
    );
    close(
      y,
      rows.flatMap((row) =>
        row.map(
          (v, j) =>
            ((v - (means[j] as number)) / Math.sqrt((variances[j] as number) + 1e-5)) * ([1, 2, -1][j] as number) +
            ([0.5, 0, 0.25][j] as number),
        ),
      ),
    );
  });
});

describe("losses", () => {
  const scores = ramp([4, 3]);
  const labels = [2, 0, 1, 0];

  it.each(["mean", "sum", "none"])(
    "SoftmaxCrossEntropyLossInternal with an ignored class as input: %s",
    async (reduction) => {
      const [loss] = await run({
        opType: "SoftmaxCrossEntropyLossInternal",
        attributes: { reduction, output_type: 1 },
        inputs: [scores, ints(labels), undefined, tensorFromNumbers("", DataType.INT64, [], [1])],
        outputs: ["loss", "log_prob"],
        returned: ["loss"],
      });
      const each = labels.map((label, i) => {
        const row = numbersOf(scores).slice(3 * i, 3 * i + 3);
        const sum = row.reduce((total, v) => total + Math.exp(v), 0);
        return label === 1 ? 0 : Math.log(sum) - (row[label] as number);
      });
      const total = each.reduce((sum, v) => sum + v, 0);
      close(loss, reduction === "none" ? each : [reduction === "sum" ? total : total / 3]);
    },
  );
});

describe("what has no standard form", () => {
  it("is listed, each with its reason", () => {
    const model = modelOf({ opType: "FakeQuant", inputs: [ramp([2, 2])] });
    expect(() => toStandardOperators(model)).toThrow(/FakeQuant\) is an operator of ONNX Runtime alone/);
    const aten = modelOf({ opType: "ATen", domain: "org.pytorch.aten", inputs: [ramp([2, 2])] });
    expect(() => toStandardOperators(aten)).toThrow(/ATen\) is a call into PyTorch/);
    const axis = modelOf({
      opType: "SimplifiedLayerNormalization",
      domain: "",
      attributes: { axis: 1 },
      inputs: [ramp([2, 2]), tensor([2], [1, 1])],
    });
    expect(() => toStandardOperators(axis)).toThrow(/normalizes from axis 1 on/);
  });
});

describe("slices", () => {
  it("two imports of ai.onnx: the newer one counts", () => {
    const model = modelOf({ opType: "Scale", inputs: [ramp([2]), tensor([], [1])] });
    model.opsetImport = [
      { domain: "", version: 7 },
      { domain: "ai.onnx", version: 14 },
    ];
    expect(artifactOpset(model)).toBe(14);
  });

  it("a model without a loss: refused", () => {
    const model = modelOf({
      opType: "Scale",
      inputs: [ramp([2]), tensor([], [1])],
      outputs: ["w_grad.accumulation.out"],
    });
    expect(() => sliceForward(model)).toThrow(/no output that is a loss/);
  });
});

/** Abramowitz and Stegun 7.1.5: the series of the error function, exact to float64 for |x| below 3. */
function erf(x: number): number {
  let [sum, term] = [x, x];
  for (let n = 1; n < 80; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}
