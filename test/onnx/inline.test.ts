import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { attributesFrom, float } from "../../src/onnx/attributes.js";
import { problemsOf } from "../../src/onnx/check.js";
import { cloneModel } from "../../src/onnx/codec.js";
import { inlineFunctions } from "../../src/onnx/inline.js";
import {
  type AttributeProto,
  AttributeType,
  type FunctionProto,
  type GraphProto,
  type ModelProto,
  type NodeProto,
} from "../../src/onnx/proto.js";
import { toProgramOpset } from "../../src/onnx/upgrade/upgrade.js";
import { convert, expectSame, operatorsOf, wave } from "../support/convert.js";
import { modelOf, newBuilder, relativeError, runModel } from "../support/run.js";

const FLOAT = { elemType: 1, shape: ["n", 4] } as const;

function node(opType: string, input: string[], output: string[], more: Partial<NodeProto> = {}): NodeProto {
  return { opType, input, output, attribute: [], ...more };
}

function reference(name: string, refAttrName: string, type: number): AttributeProto {
  return { name, refAttrName, type };
}

function fn(name: string, parts: Partial<FunctionProto>): FunctionProto {
  return {
    name,
    domain: "local",
    input: ["x"],
    output: ["y"],
    node: [],
    opsetImport: [{ domain: "", version: 18 }],
    ...parts,
  };
}

/** A model whose main graph calls functions; IR 10 knows attribute defaults and overloads. */
function modelWith(
  functions: FunctionProto[],
  nodes: NodeProto[],
  inputs = ["x"],
  outputs = ["y"],
  opset = 18,
): ModelProto {
  const g = newBuilder();
  for (const name of inputs) g.input(name, FLOAT);
  g.graph.node.push(...nodes);
  for (const name of outputs) g.output(name, { elemType: 1, shape: undefined });
  const model = modelOf(g.graph, opset);
  model.opsetImport.push({ domain: "local", version: 1 });
  return { ...model, irVersion: 10, functions };
}

const call = (name: string, input: string[], output: string[], more: Partial<NodeProto> = {}) =>
  node(name, input, output, { domain: "local", ...more });

/** y = LeakyRelu(x, alpha) + x, alpha by default 0.25. */
const leaky = fn("Leaky", {
  attributeProto: attributesFrom({ alpha: float(0.25) }),
  node: [
    node("LeakyRelu", ["x"], ["a"], { attribute: [reference("alpha", "alpha", AttributeType.FLOAT)], name: "leak" }),
    node("Add", ["a", "x"], ["y"]),
  ],
});

const feeds = { x: wave([3, 4]) };

describe("inlineFunctions", () => {
  it("puts the body in place, with names of its own for every call", async () => {
    const model = modelWith(
      [leaky],
      [
        call("Leaky", ["x"], ["h"], { name: "first" }),
        call("Leaky", ["h"], ["y"], { name: "second", attribute: attributesFrom({ alpha: float(0.5) }) }),
      ],
    );
    expect(await expectSame(model, feeds)).toEqual(["LeakyRelu", "Add", "LeakyRelu", "Add"]);
    const { graph, opsetImport } = inlineFunctions(model).model;
    expect(graph.node.map(({ name }) => name)).toEqual(["first/leak", "first/Add", "second/leak", "second/Add"]);
    expect(graph.node[0]?.output).toEqual(["first/a"]);
    expect(graph.node.map(({ attribute }) => attribute[0]?.f)).toEqual([0.25, undefined, 0.5, undefined]);
    expect(opsetImport.map(({ domain }) => domain)).toEqual([""]);
  });

  it("leaves out an attribute that has neither value nor default", async () => {
    const { attributeProto: _, ...rest } = leaky;
    const model = modelWith([fn("Leaky", { ...rest, attribute: ["alpha"] })], [call("Leaky", ["x"], ["y"])]);
    await expectSame(model, feeds);
    expect(inlineFunctions(model).model.graph.node[0]?.attribute).toEqual([]);
  });

  it("follows functions that call functions, and tells overloads apart", async () => {
    const twice = fn("Twice", {
      node: [call("Leaky", ["x"], ["m"]), call("Leaky", ["m"], ["y"], { overload: "neg" })],
    });
    const negative = fn("Leaky", { overload: "neg", node: [node("Neg", ["x"], ["y"])] });
    const imports = {
      opsetImport: [
        { domain: "", version: 18 },
        { domain: "local", version: 1 },
      ],
    };
    const model = modelWith([leaky, { ...twice, ...imports }, negative], [call("Twice", ["x"], ["y"])]);
    const converted = await convert(model);
    expect(operatorsOf(converted)).toEqual(["LeakyRelu", "Add", "Neg"]);
    // ONNX Runtime itself takes the last overload for all, so it is no reference here.
    const { y } = await runModel(converted, feeds);
    const expected = Array.from(feeds.x.data as Float32Array, (x) => -((x < 0 ? 0.25 * x : x) + x));
    expect(relativeError(y?.data as Float32Array, expected)).toBeLessThan(1e-6);
  });

  it("drops omitted inputs and outputs", async () => {
    const clip = fn("Bound", {
      input: ["x", "low", "high"],
      output: ["unused", "y"],
      node: [node("Clip", ["x", "low", "high"], ["y"]), node("Abs", ["x"], ["unused"])],
    });
    const model = modelWith([clip], [call("Bound", ["x"], ["", "y"])]);
    expect((await expectSame(model, feeds)).sort()).toEqual(["Abs", "Clip"]);
  });

  it("hands an input back and gives a value out twice", async () => {
    const pass = fn("Pass", { input: ["x"], output: ["x", "y"], node: [node("Exp", ["x"], ["y"])] });
    const same = fn("Same", { output: ["y", "y"], node: [node("Abs", ["x"], ["y"])] });
    const nodes = [call("Pass", ["x"], ["p", "q"]), call("Same", ["q"], ["r", "s"])];
    const model = modelWith([pass, same], nodes, ["x"], ["p", "r", "s"]);
    const inlined = inlineFunctions(cloneModel(model)).model;
    expect(problemsOf(inlined)).toEqual([]);
    const { p, r, s } = await runModel(inlined, feeds);
    expect(p?.data).toEqual(feeds.x.data);
    expect(r?.data).toEqual(s?.data);
    const exponentials = Array.from(feeds.x.data as Float32Array, Math.exp);
    expect(relativeError(s?.data as Float32Array, exponentials)).toBeLessThan(1e-6);
  });

  it("renames inside subgraphs, which may hide names of the body", async () => {
    const branch = (output: string, nodes: NodeProto[]): GraphProto => ({
      name: "branch",
      node: nodes,
      initializer: [],
      input: [],
      output: [{ name: output, type: { tensorType: { elemType: 1 } } }],
      valueInfo: [],
    });
    const choose = fn("Choose", {
      input: ["c", "x"],
      node: [
        node("Abs", ["x"], ["a"]),
        node("If", ["c"], ["y"], {
          attribute: attributesFrom({
            then_branch: branch("b", [node("Exp", ["a"], ["b"])]),
            else_branch: branch("b", [
              node("LeakyRelu", ["x"], ["b"], { attribute: [reference("alpha", "slope", AttributeType.FLOAT)] }),
            ]),
          }),
        }),
      ],
      attribute: ["slope"],
    });
    const attribute = attributesFrom({ slope: float(0.75) });
    const model = modelWith(
      [choose],
      [call("Choose", ["c", "x"], ["a"], { attribute }), call("Choose", ["c", "a"], ["y"], { attribute })],
    );
    model.graph.input.unshift({ name: "c", type: { tensorType: { elemType: 9, shape: { dim: [] } } } });
    for (const c of [true, false]) await expectSame(model, { ...feeds, c: new ort.Tensor("bool", [c], []) });
  });

  it("inlines calls within the branches of the main graph", async () => {
    const g = newBuilder();
    const [c, x] = [g.input("c", { elemType: 9, shape: [] }), g.input("x", FLOAT)];
    const [then, other] = [g.subgraph("then"), g.subgraph("else")];
    then.graph.node.push(call("Leaky", [x], ["t"]));
    then.output("t", { elemType: 1, shape: undefined });
    other.output(other.neg(x), { elemType: 1, shape: undefined });
    g.output(g.op("If", [c], { then_branch: then.graph, else_branch: other.graph }), { elemType: 1, shape: undefined });
    const model = modelWith([leaky], []);
    model.graph = g.graph;
    for (const value of [true, false]) await expectSame(model, { ...feeds, c: new ort.Tensor("bool", [value], []) });
  });

  it("converts a function by the opset that it imports itself", async () => {
    // Softmax over axis 1 of a 3-D tensor flattens before opset 13; the main graph's own does not.
    const older = fn("Older", {
      opsetImport: [{ domain: "", version: 11 }],
      node: [node("Softmax", ["x"], ["y"], { attribute: attributesFrom({ axis: 1 }) })],
    });
    const soft = node("Softmax", ["h"], ["y"], { attribute: attributesFrom({ axis: 1 }) });
    const model = modelWith([older], [call("Older", ["x"], ["h"]), soft], [], ["h", "y"]);
    model.graph.input.push({
      name: "x",
      type: { tensorType: { elemType: 1, shape: { dim: [{ dimParam: "n" }, { dimValue: 3 }, { dimValue: 4 }] } } },
    });
    const x = wave([2, 3, 4]);
    const { h, y } = await runModel(await toProgramOpset(model), { x });
    const sum = (tensor: ort.Tensor | undefined, at: number[]) =>
      at.reduce((total, i) => total + Number(tensor?.data[i]), 0);
    expect(sum(h, [...Array(12).keys()])).toBeCloseTo(1, 5);
    expect(sum(y, [0, 4, 8])).toBeCloseTo(1, 5);
  });

  it("passes metadata on", () => {
    const scoped = call("Leaky", ["x"], ["y"], { metadataProps: [{ key: "scope", value: "block.0" }] });
    const { model } = inlineFunctions(modelWith([leaky], [scoped]));
    expect(model.graph.node.map(({ metadataProps }) => metadataProps?.[0]?.value)).toEqual(["block.0", "block.0"]);
  });

  it("refuses functions that call each other in a circle", () => {
    const a = fn("A", { node: [call("B", ["x"], ["y"])] });
    const b = fn("B", { node: [call("A", ["x"], ["y"])] });
    expect(() => inlineFunctions(modelWith([a, b], [call("A", ["x"], ["y"])]))).toThrow(
      /call each other in a circle: local::A → local::B → local::A/,
    );
  });

  it("brings in the domains that function bodies need and refuses two versions of one", () => {
    const gelu = (name: string, version: number) =>
      fn(name, {
        opsetImport: [
          { domain: "", version: 18 },
          { domain: "com.microsoft", version },
        ],
        node: [node("Gelu", ["x"], ["y"], { domain: "com.microsoft" })],
      });
    const one = inlineFunctions(modelWith([gelu("A", 1)], [call("A", ["x"], ["y"])])).model;
    expect(one.opsetImport).toEqual([
      { domain: "", version: 18 },
      { domain: "com.microsoft", version: 1 },
    ]);
    const two = modelWith([gelu("A", 1), gelu("B", 2)], [call("A", ["x"], ["h"]), call("B", ["h"], ["y"])]);
    expect(() => inlineFunctions(two)).toThrow(/function 'B' uses version 2 of the domain 'com\.microsoft'/);
  });

  it("gives a model without functions back as it is", () => {
    const model = modelWith([], [node("Abs", ["x"], ["y"])]);
    expect(inlineFunctions(model).model).toBe(model);
  });
});
