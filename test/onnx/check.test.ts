import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkModel, problemsOf } from "../../src/onnx/check.js";
import { decodeModel } from "../../src/onnx/codec.js";
import { compareOperators, countOperators } from "../../src/onnx/opcount.js";
import { DataType, type ModelProto, type NodeProto, type TensorProto } from "../../src/onnx/proto.js";
import { modelOf, newBuilder } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";

const folder = join(GRAPHS, "pytorch");
const names = readdirSync(folder).filter((name) => !name.includes("."));
const load = (name: string) => decodeModel(readFileSync(join(folder, name, "model.onnx")));

const scalar = { elemType: DataType.FLOAT, shape: [] };

/** z = |If(c) { −x } else { x + w }|. */
function model(): ModelProto {
  const g = newBuilder();
  const [c, x] = [g.input("c", { elemType: DataType.BOOL, shape: [] }), g.input("x", scalar)];
  const w = g.initializer("w", DataType.FLOAT, [], Float32Array.of(1));
  const then = g.subgraph("then");
  then.output(then.neg(x), scalar);
  const other = g.subgraph("else");
  other.output(other.add(x, w), scalar);
  const y = g.op("If", [c], { then_branch: then.graph, else_branch: other.graph });
  g.output(g.alias(g.abs(y), "z"), scalar);
  return modelOf(g.graph);
}

describe("checkModel", () => {
  it.each(names)("finds nothing wrong with %s", (name) => {
    expect(problemsOf(load(name))).toEqual([]);
  });

  it("finds nothing wrong with captured values", () => {
    expect(problemsOf(model())).toEqual([]);
  });

  const branch = (m: ModelProto) => m.graph.node[0]?.attribute[0]?.g as ModelProto["graph"];
  it.each<[string, (m: ModelProto) => void, RegExp]>([
    ["a value made twice", (m) => m.graph.node.push({ ...(m.graph.node[1] as NodeProto) }), /'Abs' is defined twice/],
    ["a value named as an input", (m) => ((m.graph.node[1] as NodeProto).output = ["x"]), /'x' is defined twice/],
    ["wrong order", (m) => m.graph.node.reverse(), /node 'z' \(Identity\) uses 'Abs' before node 'Abs' makes it/],
    [
      "an undefined value",
      (m) => ((m.graph.node[1] as NodeProto).input = ["q"]),
      /\(Abs\) uses 'q', which nothing makes/,
    ],
    ["a missing output", (m) => m.graph.output.push({ name: "q" }), /output 'q' is made by no node/],
    ["an output twice", (m) => m.graph.output.push({ name: "z" }), /output 'z' is listed twice/],
    [
      "an initializer twice",
      (m) => m.graph.initializer.push(m.graph.initializer[0] as TensorProto),
      /initializer 'w' is defined twice/,
    ],
    [
      "a foreign domain",
      (m) => ((m.graph.node[1] as NodeProto).domain = "com.x"),
      /does not import its domain 'com\.x'/,
    ],
    [
      "two versions",
      (m) => m.opsetImport.push({ domain: "ai.onnx", version: 9 }),
      /imported twice, as versions 18 and 9/,
    ],
    [
      "an undefined value in a branch",
      (m) => ((branch(m).node[0] as NodeProto).input = ["q"]),
      /\(If\): node .*\(Neg\) uses 'q', which nothing makes/,
    ],
    [
      "a branch that makes an outer value",
      (m) => ((branch(m).node[0] as NodeProto).output = ["x"]),
      /'x' is defined twice/,
    ],
    [
      "a value that only a branch has",
      (m) => ((m.graph.node[1] as NodeProto).input = [branch(m).output[0]?.name as string]),
      /uses 'Neg', which nothing makes/,
    ],
    ["a node's name twice", (m) => ((m.graph.node[1] as NodeProto).name = "z"), /two nodes have the name 'z'/],
    [
      "an attribute twice",
      (m) => m.graph.node[1]?.attribute.push({ name: "a" }, { name: "a" }),
      /has the attribute 'a' twice/,
    ],
  ])("finds %s", (_, damage, message) => {
    const damaged = model();
    damage(damaged);
    expect(problemsOf(damaged).join("\n")).toMatch(message);
    expect(() => checkModel(damaged)).toThrow(/^The model is not valid ONNX:\n {2}- /);
  });

  it("checks functions", () => {
    const m = model();
    const node: NodeProto = { input: ["a"], output: ["b"], opType: "Abs", attribute: [] };
    const fn = {
      name: "f",
      domain: "local",
      input: ["a"],
      output: ["b"],
      node: [node],
      opsetImport: [{ version: 18 }],
    };
    m.functions.push(fn);
    expect(problemsOf(m)).toEqual([]);
    m.functions.push({ ...fn, output: ["c"] });
    expect(problemsOf(m)).toEqual([
      "the function local::f is defined twice",
      "function local::f: the output 'c' is made by no node",
    ]);
  });
});

describe("operator counts", () => {
  it("counts nodes of branches", () => {
    expect(Object.fromEntries(countOperators(model()))).toEqual({ If: 1, Neg: 1, Add: 1, Abs: 1, Identity: 1 });
  });

  it("compares two models", () => {
    const after = model();
    after.graph.node.push({ input: ["z"], output: ["q"], opType: "Gelu", domain: "com.microsoft", attribute: [] });
    const counts = compareOperators(load("mlp_tanh"), after);
    expect(counts.rows.find(({ operator }) => operator === "com.microsoft::Gelu")).toMatchObject({
      before: 0,
      after: 1,
    });
    expect(counts.rows.find(({ operator }) => operator === "Gemm")).toMatchObject({ before: 3, after: 0 });
    expect(counts.total).toEqual({ before: load("mlp_tanh").graph.node.length, after: 6 });
  });
});
