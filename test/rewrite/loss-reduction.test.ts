/** How a loss sums up its examples, in graphs that no exporter of the tests writes: deep ones, and ones with subgraphs. */
import { expect, test } from "vitest";
import { type Dim, emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { DataType } from "../../src/onnx/proto.js";
import { lossReduction } from "../../src/rewrite/loss-reduction.js";

const FLOAT = DataType.FLOAT;

/** The reduction of `loss`, a scalar; other values are [n, 3]. */
function reductionOf(b: GraphBuilder, loss: string, scalars: Iterable<string> = []) {
  const isScalar = new Set([loss, ...scalars]);
  const names = ["x", ...b.graph.node.flatMap(({ output }) => output)];
  const shapeOf = (name: string): Dim[] => (isScalar.has(name) ? [] : ["n", 3]);
  const types = new Map(names.map((name) => [name, { elemType: FLOAT, shape: shapeOf(name) }]));
  return lossReduction(new GraphIndex(b.graph), types, loss, ["x"]).kind;
}

function withInput(): GraphBuilder {
  const b = new GraphBuilder(emptyGraph("outer"));
  b.input("x", { elemType: FLOAT, shape: ["n", 3] });
  return b;
}

test("of tens of thousands of operators one after the other", () => {
  const b = withInput();
  let value = "x";
  for (let i = 0; i < 20_000; i++) value = b.op("Tanh", [value]);
  expect(reductionOf(b, b.reduce("ReduceMean", value, undefined, false))).toBe("mean");
});

test("of sums whose terms are one value, again and again", () => {
  const b = withInput();
  let value = "x";
  for (let i = 0; i < 100; i++) value = b.add(value, value);
  let loss = b.reduce("ReduceMean", value, undefined, false);
  const scalars = [loss];
  for (let i = 0; i < 100; i++) {
    loss = b.add(loss, loss);
    scalars.push(loss);
  }
  expect(reductionOf(b, loss, scalars)).toBe("mean");
});

test("of tens of thousands of operators on each element, between the network and the mean and after it", () => {
  const b = withInput();
  let value = "x";
  for (let i = 0; i < 20_000; i++) value = b.op("Neg", [value]);
  let loss = b.reduce("ReduceSum", value, undefined, false);
  const scalars = [loss];
  for (let i = 0; i < 20_000; i++) {
    loss = b.op("Neg", [loss]);
    scalars.push(loss);
  }
  expect(reductionOf(b, loss, scalars)).toBe("sum");
});

test("a mean over what a branch computes from the batch is of no known kind", () => {
  const b = withInput();
  const branch = (name: string, operator: string) => {
    const inner = b.subgraph(name);
    inner.node(operator, ["x"], { outputs: [name] });
    inner.output(name, { elemType: FLOAT, shape: [] });
    return inner.graph;
  };
  const branches = { then_branch: branch("largest", "ReduceMax"), else_branch: branch("least", "ReduceMin") };
  const scale = b.op("If", ["condition"], branches);
  const mean = b.reduce("ReduceMean", "x", undefined, false);
  expect(reductionOf(b, b.div(mean, scale), [scale, mean])).toBe("unknown");
});
