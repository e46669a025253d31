/** The CPU's own forms of a loss and of a gradient: the same numbers as the program's, in fewer nodes. */
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { cloneModel } from "../../src/onnx/codec.js";
import { DataType, type GraphProto } from "../../src/onnx/proto.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { reluMasksForCpu } from "../../src/training/cpu-masks.js";
import { buildStepGraph } from "../../src/training/step-graph.js";
import { mulberry32 } from "../support/gradient-check.js";
import { f32, modelOf, newBuilder, relativeError, runModel } from "../support/run.js";

const BATCH = 6;
const CLASSES = 5;

const count = (graph: GraphProto, opType: string) => graph.node.filter((node) => node.opType === opType).length;

/** x·W is the logits of a model with a batch axis that is a symbol; `positions` after it, or classes between two axes. */
async function stepGraph(device: "cpu" | "cuda", positions: number[] = [], classAxis?: number) {
  const b = newBuilder();
  b.input("x", { elemType: DataType.FLOAT, shape: ["batch", ...positions, 3] });
  const weights = b.initializer("w", DataType.FLOAT, [3, CLASSES], new Float32Array(3 * CLASSES).fill(0.25));
  const product = b.matMul("x", weights);
  const logits = classAxis === undefined ? product : b.transpose(product, [0, 2, 1]);
  const shape = classAxis === undefined ? ["batch", ...positions, CLASSES] : ["batch", CLASSES, ...positions];
  b.output(b.alias(logits, "logits"), { elemType: DataType.FLOAT, shape });
  const program = await rewrite(modelOf(b.graph), {
    loss: "softmax-cross-entropy",
    sections: { kind: "none" },
    ...(positions.length > 0 && { classAxis: classAxis ?? positions.length + 1 }),
  });
  const optimizer = createOptimizer({ name: "sgd", learningRate: 1 }, [{ name: "w", dims: [3, CLASSES] }]);
  const graph = buildStepGraph(program, optimizer, {
    parts: { statistics: false, roots: false },
    shapes: new Map([
      ["x", [BATCH, ...positions, 3]],
      ["labels", [BATCH, ...positions]],
    ]),
    device,
  });
  return { graph, loss: program.manifest.lossOutput };
}

/** The loss and the new weights for weights of some scale. */
async function step(
  device: "cpu" | "cuda",
  scale: number,
  positions: number[] = [],
  { classAxis, labels = [0n, 4n, 2n] }: { classAxis?: number; labels?: bigint[] } = {},
) {
  const { graph, loss } = await stepGraph(device, positions, classAxis);
  const random = mulberry32(3);
  const rows = BATCH * positions.reduce((a, c) => a * c, 1);
  const out = await runModel(graph.model, {
    x: f32(
      Float32Array.from({ length: rows * 3 }, () => random() - 0.5),
      [BATCH, ...positions, 3],
    ),
    labels: new ort.Tensor(
      "int64",
      BigInt64Array.from({ length: rows }, (_, i) => labels[i % labels.length] as bigint),
      [BATCH, ...positions],
    ),
    w: f32(
      Float32Array.from({ length: 3 * CLASSES }, () => scale * (random() - 0.5)),
      [3, CLASSES],
    ),
    ...Object.fromEntries([...graph.hyperparameters.values()].map((name) => [name, f32([1], [])])),
  });
  const weights = out[graph.carried.get("w") as string]?.data as Float32Array;
  return { nodes: graph.model.graph, loss: Number(out[loss]?.data[0]), weights };
}

describe("softmax cross-entropy on the CPU", () => {
  it.each([[[]], [[2]], [[2, 3]]])("gives the program's loss and gradient, positions %j", async (positions) => {
    for (const scale of [1, 100, 1e4, 1e8]) {
      const [cpu, other] = [await step("cpu", scale, positions), await step("cuda", scale, positions)];
      expect([count(cpu.nodes, "LogSoftmax"), count(other.nodes, "LogSoftmax")]).toEqual([1, 0]);
      expect(count(cpu.nodes, "Size") + count(cpu.nodes, "ReduceMax")).toBe(0);
      expect(Math.abs(cpu.loss - other.loss)).toBeLessThan(2e-6 * Math.abs(other.loss));
      expect(relativeError(cpu.weights, other.weights)).toBeLessThan(1e-6);
    }
  });

  it("takes a label that is no class as a row of zeros, in the gradient", async () => {
    const options = { labels: [0n, -1n, 5n, -100n] };
    const [cpu, other] = [await step("cpu", 1, [], options), await step("cuda", 1, [], options)];
    expect(relativeError(cpu.weights, other.weights)).toBeLessThan(1e-6);
  });

  it("stays as it is where classes are not the last axis", async () => {
    const cpu = await step("cpu", 1, [2], { classAxis: 1 });
    expect(count(cpu.nodes, "LogSoftmax")).toBe(0);
    expect(cpu.loss).toBeCloseTo((await step("cuda", 1, [2], { classAxis: 1 })).loss, 6);
  });
});

describe("the gradient of Relu on the CPU", () => {
  /** Relu's gradient as the rule writes it, of a cotangent from an operator. */
  function masked(opType: "MatMul" | "Div") {
    const b = newBuilder();
    const type = { elemType: DataType.FLOAT, shape: [4, 4] };
    for (const name of ["a", "left", "right"]) b.input(name, type);
    const y = b.op("Relu", ["a"]);
    const dy = b.op(opType, ["left", "right"]);
    const result = b.where(b.greater(y, b.f32(0)), dy, b.f32(0));
    b.output(result, type);
    const model = modelOf(b.graph);
    const after = cloneModel(model);
    reluMasksForCpu(after.graph);
    return { model, after, result };
  }

  it("is a product with a mask behind a product, with the same numbers", async () => {
    const { model, after, result } = masked("MatMul");
    expect([count(after.graph, "Where"), count(after.graph, "Mul")]).toEqual([0, 1]);
    const random = mulberry32(5);
    const values = () => Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 0 : random() - 0.5));
    const feeds = { a: f32(values(), [4, 4]), left: f32(values(), [4, 4]), right: f32(values(), [4, 4]) };
    const [before, now] = [await runModel(model, feeds), await runModel(after, feeds)];
    const numbers = (out: typeof now) => Array.from(out[result]?.data as Float32Array, (x) => x + 0);
    expect(numbers(now)).toEqual(numbers(before));
    expect(numbers(now).filter((x) => x !== 0).length).toBeGreaterThan(3);
  });

  it("stays where the cotangent may be infinite, as PyTorch has it", async () => {
    const { after, result } = masked("Div");
    const feeds = Object.fromEntries(
      ["a", "left", "right"].map((name, i) => [name, f32(new Float32Array(16).fill(i % 2), [4, 4])]),
    );
    expect(Array.from((await runModel(after, feeds))[result]?.data as Float32Array)).toEqual(new Array(16).fill(0));
  });
});
