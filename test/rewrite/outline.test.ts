/** The outline of a model as sections: figures counted by hand, and where sampled gradients stop. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { loadModel } from "../../src/onnx/model-file.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { tensorFromNumbers } from "../../src/onnx/tensor.js";
import { flopsOf } from "../../src/rewrite/costs.js";
import { outlineModel } from "../../src/rewrite/outline.js";
import { parseSections } from "../../src/sections/spec.js";
import { pseudoRandom, twoLayerNet } from "../support/mlp.js";
import { modelOf } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";

const LOSS = { loss: "softmax-cross-entropy" } as const;

/** x → three dense layers of width 4 with a Relu each, the first's added to the third's, → logits [n, 3]. */
function residual(): ModelProto {
  const b = new GraphBuilder(emptyGraph("residual"));
  let h = b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 4] });
  const first: string[] = [];
  for (const name of ["one", "two", "three"]) {
    b.graph.initializer.push(
      tensorFromNumbers(`${name}.weight`, DataType.FLOAT, [4, 4], pseudoRandom(name.length, 16)),
    );
    b.node("Gemm", [h, `${name}.weight`], { outputs: [name], attributes: { transB: 1 } });
    h = b.op("Relu", [name === "three" ? b.add(name, first[0] as string) : name]);
    first.push(h);
  }
  b.graph.initializer.push(tensorFromNumbers("head.weight", DataType.FLOAT, [3, 4], pseudoRandom(9, 12)));
  b.node("Gemm", [h, "head.weight"], { outputs: ["logits"], attributes: { transB: 1 } });
  b.output("logits", { elemType: DataType.FLOAT, shape: ["batch", 3] });
  return modelOf(b.graph);
}

describe("an outline", () => {
  it("counts parameters, activations and operations of each section", async () => {
    const { parts, total, loss, sizes } = await outlineModel(twoLayerNet().model, LOSS);
    expect({ loss, sizes }).toEqual({ loss: "softmax-cross-entropy of 'logits'", sizes: { batch: 1 } });
    expect(parts).toEqual([
      {
        name: "fc1",
        boundaries: [{ name: "fc1", at: "a1", activation: "Tanh", family: "tanh", note: null, elements: 6 }],
        trained: [{ name: "fc1.weight", dims: [6, 5] }],
        operators: [{ operator: "Gemm", count: 1 }],
        ...{ from: [], inputs: ["x"] },
        ...{ parameters: 30, activations: 6, flops: 2 * 5 * 6, isComplete: true },
      },
      {
        name: "fc2",
        boundaries: [
          { name: "fc2", at: "logits", activation: null, family: "softmax(axis=1)", note: null, elements: 3 },
        ],
        trained: [{ name: "fc2.weight", dims: [3, 6] }],
        // The activation stands behind the boundary, in the next section.
        operators: [
          { operator: "Tanh", count: 1 },
          { operator: "Gemm", count: 1 },
        ],
        ...{ from: [0], inputs: [] },
        ...{ parameters: 18, activations: 6 + 3, flops: 6 + 2 * 6 * 3, isComplete: true },
      },
    ]);
    expect(total).toEqual({ parameters: 48, activations: 15, flops: 102, isComplete: true });
  });

  it("for other sizes: all but the parameters grow with the batch", async () => {
    const { total, sizes } = await outlineModel(twoLayerNet().model, LOSS, new Map([["batch", 10]]));
    expect(sizes).toEqual({ batch: 10 });
    expect(total).toMatchObject({ parameters: 48, activations: 150, flops: 1020 });
    await expect(outlineModel(twoLayerNet().model, LOSS, new Map([["time", 3]]))).rejects.toThrow(
      /No input has a dimension 'time'\. Symbolic dimensions: batch\./,
    );
  });

  it("tells where a section's gradient stops, also behind a residual connection", async () => {
    const of = async (sections: string) => {
      const { parts } = await outlineModel(residual(), { ...LOSS, sections: parseSections(sections) });
      return parts.map(({ name, from, inputs }) => [name, from, inputs]);
    };
    expect(await of("per-layer")).toEqual([
      ["one", [], ["x"]],
      ["two", [0], []],
      ["three", [0, 1], []],
      ["head", [2], []],
    ]);
    expect(await of("one")).toEqual([
      ["one", [], ["x"]],
      ["head", [0], []],
    ]);
    expect(await of("none")).toEqual([["the whole graph", [], ["x"]]]);
  });

  it("counts every parameter once, whatever the sections", async () => {
    for (const [name, loss] of [
      ["resnet_small", "softmax-cross-entropy"],
      ["gpt_tied", "softmax-cross-entropy"],
      ["vgg_small", "softmax-cross-entropy"],
      ["activations", "mean-squared-error"],
    ] as const) {
      const { proto } = await loadModel(join(GRAPHS, "pytorch", name, "model.onnx"));
      const outlines = [];
      for (const sections of ["per-layer", "output", "none"]) {
        outlines.push(await outlineModel(proto, { loss, sections: parseSections(sections) }));
      }
      const [layers, ...others] = outlines.map(({ total }) => total);
      for (const other of others) expect([name, other]).toEqual([name, layers]);
      expect([name, layers?.isComplete]).toEqual([name, true]);
      for (const { parts } of outlines) {
        for (const [i, part] of parts.entries()) expect(part.from.every((source) => source !== i)).toBe(true);
      }
    }
  });
});

describe("floating-point operations", () => {
  const shapes: Record<string, readonly number[]> = {
    ...{ x: [2, 6, 8, 8], w: [4, 3, 3, 3], y: [2, 4, 6, 6], t: [6, 2, 2, 2], up: [2, 2, 16, 16] },
    ...{ a: [5, 7], b: [7, 3], c: [5, 3], s: [10, 5, 7], p: [10, 5, 3], row: [5] },
  };
  const count = (opType: string, input: string[], output: string, attributes: Record<string, number | string> = {}) => {
    const b = new GraphBuilder(emptyGraph("one"));
    b.node(opType, input, { outputs: [output], attributes });
    return flopsOf(b.graph.node[0] as (typeof b.graph.node)[0], (name) => shapes[name]);
  };
  it.each([
    ["MatMul", ["a", "b"], "c", {}, 2 * 5 * 7 * 3],
    ["MatMul", ["s", "b"], "p", {}, 2 * 10 * 5 * 7 * 3],
    ["Gemm", ["a", "b"], "c", {}, 2 * 5 * 7 * 3],
    ["Gemm", ["b", "a"], "unknown", { transA: 1 }, undefined],
    // Each output element sums over 3 channels of its group and 9 places.
    ["Conv", ["x", "w"], "y", { group: 2 }, 2 * (2 * 4 * 36) * 27],
    // Each input element goes to 2 channels and 4 places.
    ["ConvTranspose", ["x", "t"], "up", {}, 2 * (2 * 6 * 64) * 8],
    ["Einsum", ["s", "b"], "p", { equation: "bij,jk->bik" }, 2 * 10 * 5 * 7 * 3],
    ["ReduceSum", ["a"], "row", {}, 35],
    ["Tanh", ["a"], "a", {}, 35],
    ["Reshape", ["a", "n"], "a", {}, 0],
    ["Tanh", ["n"], "n", {}, undefined],
  ] as const)("of %s of %j", (opType, input, output, attributes, expected) => {
    expect(count(opType, [...input], output, { ...attributes })).toBe(expected);
  });
});
