import { describe, expect, test } from "vitest";
import { BoundDataset } from "../../src/data/bind.js";
import { shuffledBatches } from "../../src/data/shuffled.js";
import type { Batch } from "../../src/data/source.js";
import { DataType } from "../../src/onnx/proto.js";
import type { Optimizer, ParameterSpec } from "../../src/optimizers/optimizer.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { wantedInputs } from "../../src/training/inputs.js";
import { buildStepGraph } from "../../src/training/step-graph.js";
import { Stepper } from "../../src/training/stepper.js";
import { clusters, countingOptimizer, handMadeProgram } from "./support.js";

const INPUTS = 5;
const HIDDEN = 4;
const CLASSES = 3;
const BATCH = 6;
const data = clusters(60, INPUTS, CLASSES);

function batchesOf(program: ReturnType<typeof handMadeProgram>): { inputs: BoundDataset["inputs"]; batches: Batch[] } {
  const bound = BoundDataset.bind(data, wantedInputs(program));
  const rows = Uint32Array.from({ length: 60 }, (_, i) => i);
  const source = shuffledBatches(bound, rows, { batchSize: BATCH, seed: 1 });
  return { inputs: bound.inputs, batches: [...(source.batches(0, 0) as Iterable<Batch>)] };
}

async function stepperFor(make: (parameters: readonly ParameterSpec[]) => Optimizer) {
  const program = handMadeProgram(INPUTS, HIDDEN, CLASSES);
  const { inputs, batches } = batchesOf(program);
  const optimizer = make(program.manifest.parameters);
  const stepper = await Stepper.create({ program, optimizer, inputs, batchSize: BATCH, seed: 3, threads: 1 });
  return { program, optimizer, stepper, batches };
}

/** One step of plain gradient descent in float64, written independently of the graph. */
function referenceStep(
  parameters: Map<string, Float64Array>,
  x: Float32Array,
  labels: BigInt64Array,
  rate: number,
): number {
  const get = (name: string) => parameters.get(name) as Float64Array;
  const [A, a, B, b] = [get("A"), get("a"), get("B"), get("b")];
  const gradients = new Map([...parameters].map(([name, values]) => [name, new Float64Array(values.length)]));
  const add = (name: string, i: number, value: number) => {
    const gradient = gradients.get(name) as Float64Array;
    gradient[i] = (gradient[i] as number) + value;
  };
  let loss = 0;
  for (let n = 0; n < BATCH; n++) {
    const h = Array.from({ length: HIDDEN }, (_, j) => {
      let sum = a[j] as number;
      for (let i = 0; i < INPUTS; i++) sum += (x[n * INPUTS + i] as number) * (A[i * HIDDEN + j] as number);
      return Math.tanh(sum);
    });
    const logits = Array.from({ length: CLASSES }, (_, k) => {
      return h.reduce((sum, value, j) => sum + value * (B[j * CLASSES + k] as number), b[k] as number);
    });
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    const label = Number(labels[n]);
    loss += (Math.log(total) - (logits[label] as number)) / BATCH;
    const dLogits = logits.map((logit, k) => (Math.exp(logit) / total - (k === label ? 1 : 0)) / BATCH);
    for (let j = 0; j < HIDDEN; j++) {
      let back = 0;
      for (let k = 0; k < CLASSES; k++) {
        add("B", j * CLASSES + k, (h[j] as number) * (dLogits[k] as number));
        back += (B[j * CLASSES + k] as number) * (dLogits[k] as number);
      }
      const dPre = back * (1 - (h[j] as number) ** 2);
      add("a", j, dPre);
      for (let i = 0; i < INPUTS; i++) add("A", i * HIDDEN + j, (x[n * INPUTS + i] as number) * dPre);
    }
    for (let k = 0; k < CLASSES; k++) add("b", k, dLogits[k] as number);
  }
  for (const [name, values] of parameters) {
    const gradient = gradients.get(name) as Float64Array;
    for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) - rate * (gradient[i] as number);
  }
  return loss;
}

describe("a step", () => {
  test("of gradient descent equals an independent one in float64, over ten steps", async () => {
    const { stepper, batches } = await stepperFor((parameters) =>
      createOptimizer({ name: "sgd", learningRate: 0.5 }, parameters),
    );
    const initial = stepper.state.tensors().model;
    const reference = new Map(
      ["A", "a", "B", "b"].map((name) => [name, Float64Array.from(initial.get(name)?.data as Float32Array)]),
    );
    for (const [i, batch] of batches.entries()) {
      const x = new Float32Array(BATCH * INPUTS);
      const labels = new BigInt64Array(BATCH);
      batch.fill(
        new Map<string, Float32Array | BigInt64Array>([
          ["x", x],
          ["labels", labels],
        ]),
      );
      const expected = referenceStep(reference, x, labels, 0.5);
      const { loss } = await stepper.step(i + 1, batch);
      expect(Math.abs(loss - expected)).toBeLessThan(1e-6 * expected);
    }
    const trained = stepper.state.tensors().model;
    for (const [name, values] of reference) {
      const found = trained.get(name)?.data as Float32Array;
      for (const [i, value] of values.entries()) expect(Math.abs((found[i] as number) - value)).toBeLessThan(2e-6);
    }
    await stepper.release();
  });

  test("carries running statistics", async () => {
    const { stepper, batches } = await stepperFor((parameters) => createOptimizer({ name: "sgd" }, parameters));
    const expected = new Float64Array(INPUTS);
    for (const [i, batch] of batches.slice(0, 3).entries()) {
      const x = new Float32Array(BATCH * INPUTS);
      batch.fill(new Map([["x", x]]));
      for (let j = 0; j < INPUTS; j++) {
        let mean = 0;
        for (let n = 0; n < BATCH; n++) mean += (x[n * INPUTS + j] as number) / BATCH;
        expected[j] = 0.9 * (expected[j] as number) + 0.1 * mean;
      }
      await stepper.step(i + 1, batch);
    }
    const mean = stepper.state.tensors().model.get("mean")?.data as Float32Array;
    for (const [j, value] of expected.entries()) expect(mean[j]).toBeCloseTo(value, 6);
    await stepper.release();
  });

  test("updates statistics before roots and roots before parameters, at their steps", async () => {
    const { stepper, batches, optimizer } = await stepperFor(countingOptimizer);
    // The bias starts at zero.
    let [statistics, root, b0] = [0, 0, 0];
    for (let step = 1; step <= 8; step++) {
      const { metrics, blockMetrics } = await stepper.step(step, batches[step] as Batch);
      const parts = optimizer.schedule(step);
      // As countingOptimizer says, in order.
      if (parts.statistics) statistics += 1;
      if (parts.roots) root = 10 * statistics + step;
      b0 -= root;
      expect(metrics.root).toBe(parts.roots ? root : undefined);
      expect(blockMetrics.roots).toEqual(parts.roots ? [root, root + 1] : undefined);
      const { model, optimizer: state } = stepper.state.tensors();
      expect(state.get("statistics")?.data[0]).toBe(statistics);
      expect(state.get("root")?.data[0]).toBe(root);
      expect(model.get("b")?.data[0]).toBe(b0);
    }
    await stepper.release();
  });
});

describe("a step's graph", () => {
  const shapes = new Map([
    ["x", [BATCH, INPUTS]],
    ["labels", [BATCH]],
  ]);

  test("holds only what its parts need", () => {
    const program = handMadeProgram(INPUTS, HIDDEN, CLASSES);
    const optimizer = countingOptimizer(program.manifest.parameters, "sampled");
    const plain = buildStepGraph(program, optimizer, { parts: { statistics: false, roots: false }, shapes });
    const full = buildStepGraph(program, optimizer, { parts: { statistics: true, roots: true }, shapes });
    expect(plain.inputs.has("seed")).toBe(false);
    expect(full.inputs.has("seed")).toBe(true);
    expect(plain.model.graph.node.length).toBeLessThan(full.model.graph.node.length);
    expect(plain.stateInputs.has("statistics")).toBe(false);
    const outputs = plain.model.graph.output.map((output) => output.name);
    expect(outputs.some((name) => name?.endsWith("_grad"))).toBe(false);
  });

  test("without sampled gradients refuses an optimizer that needs them", () => {
    const { model, manifest } = handMadeProgram(INPUTS, HIDDEN, CLASSES);
    const parameters = manifest.parameters.map(({ sampledGradient: _, section: __, ...parameter }) => parameter);
    const optimizer = countingOptimizer(parameters, "sampled");
    const build = () =>
      buildStepGraph({ model, manifest: { ...manifest, parameters } }, optimizer, {
        parts: { statistics: true, roots: false },
        shapes,
      });
    expect(build).toThrow(/counting takes its statistics from sampled gradients.*nothing for 'A'.*--sections/);
  });

  test("of a model without the type of an input fails by name", () => {
    const program = handMadeProgram(INPUTS, HIDDEN, CLASSES);
    expect(wantedInputs(program)).toEqual([
      { name: "x", type: DataType.FLOAT, shape: ["batch", INPUTS], isTarget: false },
      { name: "labels", type: DataType.INT64, shape: ["batch"], isTarget: true, classes: CLASSES },
    ]);
  });
});
