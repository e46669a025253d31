/** A two-layer network with fixed weights, as an exporter would write it, and its forward pass in float64. */
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { tensorFromNumbers } from "../../src/onnx/tensor.js";
import { modelOf } from "./run.js";

export interface TwoLayerNet {
  readonly model: ModelProto;
  readonly batch: number;
  readonly sizes: readonly [number, number, number];
  /** Row-major, [out, in]. */
  readonly weights: readonly [number[], number[]];
  readonly x: number[];
}

/** Numbers in (−1, 1) from a linear congruential generator: the test's own, so that it owes nothing to the code. */
export function pseudoRandom(seed: number, count: number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    // Rounded to float32, which the graph computes with.
    return Math.fround((state / 2147483648) * 2 - 1);
  });
}

/** x [n, 5] → Gemm → activation [n, 6] → Gemm → logits [n, 3]. */
export function twoLayerNet(activation = "Tanh", scale = 1): TwoLayerNet {
  const sizes = [5, 6, 3] as const;
  const batch = 4;
  const [inputs, hidden, classes] = sizes;
  const w1 = pseudoRandom(7, hidden * inputs).map((w) => Math.fround(w * scale));
  const w2 = pseudoRandom(11, classes * hidden);
  const graph = emptyGraph("two_layers");
  const b = new GraphBuilder(graph);
  b.input("x", { elemType: DataType.FLOAT, shape: ["batch", inputs] });
  graph.initializer.push(tensorFromNumbers("fc1.weight", DataType.FLOAT, [hidden, inputs], w1));
  graph.initializer.push(tensorFromNumbers("fc2.weight", DataType.FLOAT, [classes, hidden], w2));
  b.node("Gemm", ["x", "fc1.weight"], { outputs: ["a1"], attributes: { transB: 1 } });
  b.node(activation, ["a1"], { outputs: ["h1"] });
  b.node("Gemm", ["h1", "fc2.weight"], { outputs: ["logits"], attributes: { transB: 1 } });
  b.output("logits", { elemType: DataType.FLOAT, shape: ["batch", classes] });
  return { model: modelOf(graph), batch, sizes, weights: [w1, w2], x: pseudoRandom(3, batch * inputs) };
}

export interface Forward {
  readonly a1: number[][];
  readonly h1: number[][];
  readonly p: number[][];
}

export function forward({ x, batch, sizes, weights }: TwoLayerNet, f: (a: number) => number): Forward {
  const [inputs, hidden, classes] = sizes;
  const dot = (w: number[], row: number, width: number, v: number[]) =>
    v.reduce((sum, value, j) => sum + (w[row * width + j] as number) * value, 0);
  const a1: number[][] = [];
  const h1: number[][] = [];
  const p: number[][] = [];
  for (let i = 0; i < batch; i++) {
    const row = x.slice(i * inputs, (i + 1) * inputs);
    const a = Array.from({ length: hidden }, (_, k) => dot(weights[0], k, inputs, row));
    const h = a.map(f);
    const logits = Array.from({ length: classes }, (_, k) => dot(weights[1], k, hidden, h));
    const total = logits.reduce((sum, value) => sum + Math.exp(value), 0);
    a1.push(a);
    h1.push(h);
    p.push(logits.map((value) => Math.exp(value) / total));
  }
  return { a1, h1, p };
}
