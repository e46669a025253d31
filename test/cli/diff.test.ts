/** `fishy inspect --diff`: made-up changes are found, each as what it is, and nothing else. */
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { loadModel, saveModel } from "../../src/onnx/model-file.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { dataOf, tensorFromData, tensorFromNumbers } from "../../src/onnx/tensor.js";
import type { ModelDiff } from "../../src/rewrite/diff.js";
import { fishy } from "../support/cli.js";
import { twoLayerNet } from "../support/mlp.js";
import { GRAPHS } from "../support/shared.js";
import { temporaryFolder } from "../training/support.js";

const folder = temporaryFolder();
const path = (name: string) => join(folder, name);
const write = (name: string, model: ModelProto) => saveModel({ proto: model }, path(name));

async function diff(a: string, b: string): Promise<ModelDiff> {
  const { code, stdout, stderr } = await fishy("inspect", "--diff", path(a), path(b), "--json");
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return JSON.parse(stdout);
}

/** The same network with something changed. */
function changed(change: (model: ModelProto) => void): ModelProto {
  const { model } = twoLayerNet();
  change(model);
  return model;
}

beforeAll(async () => {
  await write("a.onnx", twoLayerNet().model);
});

describe("fishy inspect --diff", () => {
  it("the same model, also with its weights elsewhere", async () => {
    await saveModel({ proto: twoLayerNet().model }, path("same.onnx"), { externalData: true, externalThreshold: 0 });
    expect(await diff("a.onnx", "same.onnx")).toMatchObject({ identical: true, equalParameters: 2 });
    const { stdout } = await fishy("inspect", path("a.onnx"), "--diff", path("same.onnx"));
    expect(stdout).toMatch(/^No difference: the same graph, and the same bits in all 2 initializers\.$/m);
  });

  it("values: the largest and the relative distance", async () => {
    const b = changed(({ graph }) => {
      const weight = graph.initializer[0] as (typeof graph.initializer)[number];
      const data = (dataOf(weight) as Float32Array).map((x) => x * 2);
      data[3] = (data[3] as number) + 100;
      graph.initializer[0] = tensorFromData("fc1.weight", DataType.FLOAT, [6, 5], data);
    });
    await write("values.onnx", b);
    const [w] = twoLayerNet().weights;
    const moved = w.map((x, i) => (i === 3 ? x + 100 : x));
    const norm = (x: readonly number[]) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
    const { parameters, nodes, model, equalParameters } = await diff("a.onnx", "values.onnx");
    expect({ nodes, model, equalParameters }).toEqual({ nodes: [], model: [], equalParameters: 1 });
    expect(parameters).toHaveLength(1);
    expect(parameters[0]).toMatchObject({ name: "fc1.weight", change: "values", before: "float [6, 5]" });
    expect(parameters[0]?.largest).toBeCloseTo(Math.max(...moved.map(Math.abs)), 4);
    expect(parameters[0]?.relative).toBeCloseTo(norm(moved) / norm(w), 4);
  });

  it("signed zeros and NaNs are differences of bits, infinities of one sign none of value", async () => {
    const special = (values: number[]) =>
      changed(({ graph }) => {
        graph.initializer.push(tensorFromNumbers("s", DataType.FLOAT, [3], values));
      });
    await write("s1.onnx", special([0, 1, Number.POSITIVE_INFINITY]));
    await write("s2.onnx", special([-0, 1, Number.POSITIVE_INFINITY]));
    await write("s3.onnx", special([0, Number.NaN, 2]));
    expect((await diff("s1.onnx", "s2.onnx")).parameters).toMatchObject([{ name: "s", largest: 0, relative: 0 }]);
    // JSON writes NaN as null.
    expect((await diff("s1.onnx", "s3.onnx")).parameters).toMatchObject([{ name: "s", largest: null }]);
  });

  it("nodes: another operator, attribute, input; added and removed", async () => {
    const b = changed(({ graph }) => {
      const [first, second, third] = graph.node as [
        (typeof graph.node)[0],
        (typeof graph.node)[0],
        (typeof graph.node)[0],
      ];
      first.attribute = [];
      second.opType = "Relu";
      third.input[0] = "n1";
      graph.node.splice(2, 0, { opType: "Neg", name: "new", input: ["h1"], output: ["n1"], attribute: [] });
    });
    b.graph.initializer[0] = tensorFromNumbers("fc1.weight", DataType.FLOAT, [5, 6], new Array(30).fill(1));
    await write("nodes.onnx", b);
    const { nodes, operators, parameters } = await diff("a.onnx", "nodes.onnx");
    const byNode = new Map(nodes.map((entry) => [entry.details[0]?.name ?? entry.node, entry]));
    expect(byNode.get("transB")).toMatchObject({
      change: "changed",
      operator: "Gemm",
      details: [{ before: "1", after: null }],
    });
    expect(byNode.get("operator")).toMatchObject({ details: [{ before: "Tanh", after: "Relu" }] });
    expect(byNode.get("inputs")).toMatchObject({ details: [{ before: "h1, fc2.weight", after: "n1, fc2.weight" }] });
    expect(byNode.get("new")).toMatchObject({ change: "added", operator: "Neg" });
    expect(nodes).toHaveLength(4);
    expect(operators).toEqual([
      { operator: "Neg", before: 0, after: 1 },
      { operator: "Relu", before: 0, after: 1 },
      { operator: "Tanh", before: 1, after: 0 },
    ]);
    expect(parameters).toMatchObject([{ change: "type", before: "float [6, 5]", after: "float [5, 6]" }]);
  });

  it("inputs, outputs, opset, metadata; initializers added and removed", async () => {
    const b = changed((model) => {
      model.metadataProps.push({ key: "author", value: "x".repeat(200) });
      model.producerVersion = "2";
      model.graph.initializer.push(tensorFromNumbers("extra", DataType.INT64, [2], [1, 2]));
    });
    await write("model.onnx", b);
    const { model, parameters } = await diff("a.onnx", "model.onnx");
    expect(model.map(({ name }) => name)).toEqual(["producer", "metadata author"]);
    expect(model[1]?.after).toMatch(/^x{80}… \([0-9a-f]{12}\)$/);
    expect(parameters).toEqual([{ name: "extra", change: "added", before: null, after: "int64 [2]" }]);
    expect((await diff("model.onnx", "a.onnx")).parameters).toMatchObject([{ change: "removed" }]);
  });

  it("training programs: loss, score, draw, boundaries, sections", async () => {
    const source = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
    const rewrite = async (name: string, ...flags: string[]) =>
      expect(
        await fishy("rewrite", source, "--loss", "softmax-cross-entropy", "-o", path(name), ...flags),
      ).toMatchObject({
        code: 0,
      });
    await rewrite("p1.onnx");
    await rewrite("p2.onnx", "--score", "centred", "--sections", "output");
    const { program, parameters } = await diff("p1.onnx", "p2.onnx");
    const facts = new Map(program.map(({ name, before, after }) => [name, [before, after]]));
    expect(facts.get("score")).toEqual(["paper", "centred"]);
    const { proto } = await loadModel(path("p1.onnx"));
    const boundaries = [...facts].filter(([name]) => name.startsWith("boundary "));
    expect(boundaries).toHaveLength(2);
    for (const [name, [before, after]] of boundaries) {
      expect(proto.graph.node.flatMap((node) => node.output)).toContain(name.slice("boundary ".length));
      expect([before?.split(": ")[1], after]).toEqual(["tanh", null]);
    }
    expect([...facts.keys()].filter((name) => name.startsWith("section ")).length).toBe(3);
    // The trained parameters themselves are the same in both.
    expect(parameters.filter(({ name }) => /weight|bias/.test(name))).toEqual([]);
    const { stdout } = await fishy("inspect", "--diff", path("p1.onnx"), path("p2.onnx"));
    expect(stdout).toMatch(/^Training programs$/m);
    expect(stdout).toMatch(/… and \d+ more \(--json has all\)/);
  });

  it.each([
    [["--diff"], 2],
    [["--diff", "a"], 2],
    [["x", "--diff", "a", "b"], 2],
    [["--diff", "no.onnx", "such.onnx"], 1],
  ])("%j fails with %i", async (argv, exit) => {
    expect((await fishy("inspect", ...argv)).code).toBe(exit);
  });
});
