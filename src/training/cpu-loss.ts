/**
 * The softmax cross-entropy that a program ends with (`losses/softmax-cross-entropy.ts`) in ONNX Runtime's own Softmax and
 * LogSoftmax, which the CPU has and WebGPU has not, with the size of the batch as a constant: 9 nodes instead of 18.
 *
 *     t = −onehot/n      loss = Σ t · log softmax(x)      d loss / d x = softmax(x)/n + t
 *
 * A label that is no class adds nothing to the loss here.
 */
import { intOf } from "../onnx/attributes.js";
import { GraphBuilder } from "../onnx/builder.js";
import { capturedBy } from "../onnx/graph.js";
import type { GraphProto, NodeProto } from "../onnx/proto.js";
import { numbersOf } from "../onnx/tensor.js";
import { declaredType } from "../onnx/types.js";

interface Parts {
  readonly logits: string;
  readonly labels: string;
  readonly axes: string;
  readonly classes: number;
  /** Nodes that go, the last of them in the graph's order where the loss is made. */
  readonly gone: ReadonlySet<NodeProto>;
  readonly loss: string;
  /** Softmax's output, and the gradient of the logits, where something reads them. */
  readonly probabilities: string | undefined;
  readonly cotangent: string | undefined;
}

/** Replaces them in `graph`, in place, where labels have a static shape and classes are the last axis. */
export function softmaxLossForCpu(graph: GraphProto): void {
  const uses = usesOf(graph);
  for (const node of graph.node) {
    if (node.opType !== "ReduceMax" || node.domain) continue;
    const parts = partsFrom(graph, node, uses);
    const count = parts && positions(graph, parts.labels);
    if (!parts || !count) continue;
    replace(graph, parts, count);
    return;
  }
}

function usesOf(graph: GraphProto): ReadonlyMap<string, readonly (NodeProto | undefined)[]> {
  const uses = new Map<string, (NodeProto | undefined)[]>();
  const add = (name: string, node: NodeProto | undefined) => uses.set(name, [...(uses.get(name) ?? []), node]);
  for (const node of graph.node) {
    for (const name of node.input) add(name, node);
    for (const name of capturedBy(node)) add(name, undefined);
  }
  for (const { name } of graph.output) add(name ?? "", undefined);
  return uses;
}

function positions(graph: GraphProto, labels: string): number | undefined {
  const info = graph.input.find(({ name }) => name === labels);
  const shape = info && declaredType(info)?.shape;
  if (!shape?.every((dim) => typeof dim === "number" && dim > 0)) return undefined;
  return shape.reduce<number>((product, dim) => product * Number(dim), 1);
}

/** Follows the loss from its first node on; undefined where anything is not as it was emitted, or is read elsewhere. */
function partsFrom(graph: GraphProto, max: NodeProto, uses: ReturnType<typeof usesOf>): Parts | undefined {
  const [logits, axes] = max.input as [string, string];
  const gone = new Set([max]);
  const readers = (of: NodeProto) => uses.get(of.output[0] as string) ?? [];
  /** The only reader of a node's output of that kind; all readers must be of the kinds listed. */
  const next = (of: NodeProto, opType: string, kinds: readonly string[]): NodeProto | undefined => {
    const all = readers(of);
    const found = all.filter((reader) => reader?.opType === opType);
    if (found.length !== 1 || all.length !== kinds.length) return undefined;
    if (!all.every((reader) => reader && !reader.domain && kinds.includes(reader.opType ?? ""))) return undefined;
    gone.add(found[0] as NodeProto);
    return found[0];
  };
  const producer = (name: string | undefined) => graph.node.find((node) => node.output[0] === name);

  const shifted = next(max, "Sub", ["Sub"]);
  if (!shifted || shifted.input[0] !== logits) return undefined;
  const exponentials = next(shifted, "Exp", ["Exp", "Mul"]);
  const product = next(shifted, "Mul", ["Exp", "Mul"]);
  if (!exponentials || !product) return undefined;
  const hasProbabilities = readers(exponentials).length === 2;
  const sumReaders = hasProbabilities ? ["ReduceSum", "Div"] : ["ReduceSum"];
  const total = next(exponentials, "ReduceSum", sumReaders);
  if (!total || total.input[1] !== axes) return undefined;
  const log = next(total, "Log", hasProbabilities ? ["Log", "Div"] : ["Log"]);
  const probabilities = hasProbabilities ? next(total, "Div", ["Log", "Div"]) : undefined;
  const picked = next(product, "ReduceSum", ["ReduceSum"]);
  if (!log || !picked || picked.input[1] !== axes || (hasProbabilities && !probabilities)) return undefined;
  const perPosition = next(log, "Sub", ["Sub"]);
  if (!perPosition || perPosition.input[1] !== picked.output[0] || readers(picked).length !== 1) return undefined;
  const oneHot = producer(product.input.find((name) => name !== shifted.output[0]));
  const equal = producer(oneHot?.input[0]);
  const unsqueezed = producer(equal?.input[0]);
  const narrowed = producer(unsqueezed?.input[0]);
  const range = graph.initializer.find(({ name }) => name === equal?.input[1]);
  if (oneHot?.opType !== "Cast" || equal?.opType !== "Equal" || unsqueezed?.opType !== "Unsqueeze") return undefined;
  if (narrowed?.opType !== "Cast" || unsqueezed.input[1] !== axes || range?.dims.length !== 1) return undefined;
  const classes = numbersOf(range);
  if (!classes.every((value, k) => value === k)) return undefined;

  const hasCotangent = readers(perPosition).length === 2;
  const mean = next(perPosition, "ReduceMean", hasCotangent ? ["ReduceMean", "Size"] : ["ReduceMean"]);
  if (!mean || mean.input[1] || intOf(mean, "keepdims", 1) !== 0) return undefined;
  let cotangent: NodeProto | undefined;
  if (hasCotangent) {
    const size = next(perPosition, "Size", ["ReduceMean", "Size"]);
    const single = size && next(size, "Cast", ["Cast"]);
    cotangent = single && next(single, "Div", ["Div"]);
    const difference = producer(cotangent?.input[0]);
    if (!cotangent || difference?.opType !== "Sub" || readers(difference).length !== 1) return undefined;
    if (difference.input[0] !== probabilities?.output[0] || difference.input[1] !== oneHot.output[0]) return undefined;
    gone.add(difference);
  }
  if (readers(oneHot).length !== (hasCotangent ? 2 : 1)) return undefined;
  for (const node of [oneHot, equal, unsqueezed, narrowed]) {
    if (node !== oneHot && readers(node).length !== 1) return undefined;
    gone.add(node);
  }
  return {
    ...{ logits, axes, labels: narrowed.input[0] as string, classes: classes.length, gone },
    loss: mean.output[0] as string,
    probabilities: probabilities?.output[0],
    cotangent: cotangent?.output[0],
  };
}

function replace(graph: GraphProto, parts: Parts, count: number): void {
  const { logits, labels, classes, gone } = parts;
  const b = new GraphBuilder(graph);
  const { node: nodes } = graph;
  graph.node = [];
  let done = false;
  for (const node of nodes) {
    if (!gone.has(node)) {
      graph.node.push(node);
      continue;
    }
    // All that these read, logits and labels, is there where the first of them was that needs both.
    if (done || !node.input.includes(logits)) continue;
    done = true;
    b.scope("loss", () => {
      const range = b.i64(Array.from({ length: classes }, (_, k) => k));
      const hit = b.equal(b.unsqueeze(labels, parts.axes), range);
      const negative = b.where(hit, b.f32(-1 / count), b.f32(0));
      const product = b.mul(b.op("LogSoftmax", [logits], { axis: -1 }), negative);
      b.node("ReduceSum", [product], { attributes: { keepdims: 0 }, outputs: [parts.loss] });
      if (parts.probabilities === undefined) return;
      b.node("Softmax", [logits], { attributes: { axis: -1 }, outputs: [parts.probabilities] });
      if (parts.cotangent === undefined) return;
      const scaled = b.mul(parts.probabilities, b.f32(1 / count));
      b.node("Add", [scaled, negative], { outputs: [parts.cotangent] });
    });
  }
}
