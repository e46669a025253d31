/** Model-local functions, as exporters of modules-as-functions write them: parameters are arguments, functions nest. */
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { attributesFrom } from "../../src/onnx/attributes.js";
import { DataType, type FunctionProto, type ModelProto, type NodeProto } from "../../src/onnx/proto.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { wave } from "../support/convert.js";
import { modelOf, newBuilder, relativeError, runModel } from "../support/run.js";
import { Source } from "./lower/support.js";

const MODULES = "torch.nn.modules";
const node = (opType: string, input: string[], output: string[], rest: Partial<NodeProto> = {}): NodeProto => ({
  opType,
  input,
  output,
  attribute: [],
  ...rest,
});
const fn = (
  name: string,
  input: string[],
  output: string[],
  nodes: NodeProto[],
  attribute: string[] = [],
): FunctionProto => ({
  name,
  domain: MODULES,
  input,
  output,
  attribute,
  node: nodes,
  opsetImport: [
    { domain: "", version: 18 },
    { domain: MODULES, version: 1 },
  ],
});

/** logits of LSTM(x), written plainly or with a function for each module (the LSTM batch-major, inside two functions). */
function classifier(withFunctions: boolean): ModelProto {
  const source = new Source(6);
  const b = newBuilder();
  b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 4, 3] });
  source.weight(b, "encoder.W", [1, 20, 3], 0.5);
  source.weight(b, "encoder.R", [1, 20, 5], 0.5);
  source.weight(b, "head.weight", [2, 5], 0.5);
  source.weight(b, "head.bias", [2], 0.5);
  b.output("logits", { elemType: DataType.FLOAT, shape: ["batch", 2] });
  if (!withFunctions) {
    const time = b.transpose("x", [1, 0, 2]);
    const [, h] = b.node("LSTM", [time, "encoder.W", "encoder.R"], {
      outputs: ["", "h"],
      attributes: { hidden_size: 5 },
    });
    const flat = b.squeeze(h as string, [0]);
    b.node("Gemm", [b.op("Tanh", [flat]), "head.weight", "head.bias"], {
      outputs: ["logits"],
      attributes: { transB: 1 },
    });
    return modelOf(b.graph);
  }
  b.graph.node = [
    node("Encoder", ["x", "encoder.W", "encoder.R"], ["h"], { domain: MODULES, name: "encoder" }),
    node("Head", ["h", "head.weight", "head.bias"], ["logits"], {
      domain: MODULES,
      name: "head",
      attribute: attributesFrom({ transposed: 1 }),
    }),
  ];
  const transB = { name: "transB", type: 2, refAttrName: "transposed" };
  const axis = node("Constant", [], ["axis"], { attribute: attributesFrom({ value_ints: [1] }) });
  return {
    ...modelOf(b.graph),
    opsetImport: [
      { domain: "", version: 18 },
      { domain: MODULES, version: 1 },
    ],
    functions: [
      fn(
        "Encoder",
        ["x", "W", "R"],
        ["h"],
        [node("Recurrent", ["x", "W", "R"], ["state"], { domain: MODULES }), node("Tanh", ["state"], ["h"])],
      ),
      fn(
        "Recurrent",
        ["x", "W", "R"],
        ["flat"],
        [
          node("LSTM", ["x", "W", "R"], ["", "last"], { attribute: attributesFrom({ hidden_size: 5, layout: 1 }) }),
          axis,
          node("Squeeze", ["last", "axis"], ["flat"]),
        ],
      ),
      fn(
        "Head",
        ["h", "w", "c"],
        ["y"],
        [node("Gemm", ["h", "w", "c"], ["y"], { attribute: [transB] })],
        ["transposed"],
      ),
    ],
  };
}

describe("model-local functions", () => {
  it("have the gradients of the same model without them, under the parameters' own names", async () => {
    const feeds = {
      x: wave([3, 4, 3]),
      labels: new ort.Tensor("int64", BigInt64Array.of(0n, 1n, 1n), [3]),
      seed: new ort.Tensor("int64", BigInt64Array.of(1n), []),
    };
    const programs = await Promise.all(
      [false, true].map((functions) => rewrite(classifier(functions), { loss: "softmax-cross-entropy" })),
    );
    const [plain, inlined] = await Promise.all(programs.map(({ model }) => runModel(model, feeds)));
    expect(inlined?.loss?.data[0]).toBeCloseTo(plain?.loss?.data[0] as number, 6);
    const names = programs[1]?.manifest.parameters.map(({ name }) => name);
    expect(names).toEqual(["encoder.W", "encoder.R", "head.weight", "head.bias"]);
    for (const name of names ?? []) {
      const [a, b] = [inlined, plain].map((results) => results?.[`${name}_grad`]?.data as Float32Array);
      expect(Math.hypot(...(b as Float32Array))).toBeGreaterThan(1e-3);
      expect(relativeError(a as Float32Array, b as Float32Array), name).toBeLessThan(1e-5);
    }
  });
});
