import { join } from "node:path";
import type { Tensor } from "onnxruntime-node";
import * as ort from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { columnOf, makeDataset } from "../../src/data/dataset.js";
import { intOf } from "../../src/onnx/attributes.js";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { takenNames } from "../../src/onnx/graph.js";
import { DataType, type ModelProto, type NodeProto } from "../../src/onnx/proto.js";
import { inferTypes } from "../../src/onnx/types.js";
import type { Optimizer } from "../../src/optimizers/optimizer.js";
import { partProgram } from "../../src/optimizers/program.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import type { TrainingProgram } from "../../src/rewrite/manifest.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { withLossScaling } from "../../src/training/loss-scaling.js";
import { parseRunOptions } from "../../src/training/options.js";
import { checkPrecision, LOSS_SCALE, withPrecision } from "../../src/training/precision.js";
import { runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { buildStepGraph } from "../../src/training/step-graph.js";
import { type TrainResult, train } from "../../src/training/train.js";
import { f32, modelOf, relativeError, runModel } from "../support/run.js";
import { loadGolden } from "../support/shared.js";
import { differingTensors, gaussians, temporaryFolder } from "./support.js";

const PRODUCTS = new Set(["MatMul", "Gemm", "Conv", "ConvTranspose"]);
const programs = {
  autoencoder_tanh: "sigmoid-cross-entropy",
  cnn: "softmax-cross-entropy",
  transformer_encoder: "softmax-cross-entropy",
} as const;

async function programOf(name: keyof typeof programs): Promise<TrainingProgram> {
  return rewrite(loadGolden(name).model, { loss: programs[name], sections: { kind: "per-layer" } });
}

/**
 * The same program with float16 played by float32: ONNX Runtime's CPU drops casts to float16 and back. What is cast, either
 * way, is rounded to 11 bits, or to a multiple of 2⁻²⁴ where that is coarser.
 */
function played({ model, manifest }: TrainingProgram): TrainingProgram {
  const graph = { ...model.graph, node: [] as NodeProto[] };
  const b = new GraphBuilder(graph, { names: takenNames(model.graph), counters: new Map() });
  for (const node of model.graph.node) {
    const [x, output] = [node.input[0] as string, node.output[0] as string];
    const isCast = node.opType === "Cast" && [output, x].some((name) => /\/float16(_\d+)?$/.test(name));
    if (!isCast) {
      graph.node.push(node);
      continue;
    }
    const exponent = b.op("Floor", [b.div(b.log(b.abs(x)), b.f32(Math.LN2))]);
    const unit = b.max(b.pow(b.f32(2), b.sub(exponent, b.f32(10))), b.f32(2 ** -24));
    const input = [b.op("Round", [b.div(x, unit)]), unit];
    graph.node.push({ opType: "Mul", input, output: [output], name: b.unique("played"), attribute: [] });
  }
  return { model: { ...model, graph }, manifest };
}

/** What a program gives for the golden file's batch. */
async function gradientsOf(name: keyof typeof programs, { model, manifest }: TrainingProgram, scale?: number) {
  const { golden } = loadGolden(name);
  const feeds: Record<string, Tensor> = { seed: new ort.Tensor("int64", BigInt64Array.of(5n), []) };
  for (const [key, { type, dims, data }] of golden.tensors) {
    const input = key === "target" ? (manifest.loss.target as string) : key.replace(/^input\//, "");
    if (!model.graph.input.some((info) => info.name === input)) continue;
    feeds[input] =
      type === DataType.INT64
        ? new ort.Tensor("int64", data as BigInt64Array, [...dims])
        : f32(data as ArrayLike<number>, dims);
  }
  if (scale !== undefined) feeds[LOSS_SCALE] = f32([scale], []);
  const results = await runModel(model, feeds);
  const outputs = manifest.parameters.flatMap((parameter) => [parameter.gradient, parameter.sampledGradient as string]);
  return new Map(
    outputs.map((output) => [
      output,
      Float64Array.from(results[output]?.data as Float32Array, (value) => value / (scale ?? 1)),
    ]),
  );
}

describe("a program in half precision", () => {
  test.each(["float16", "bfloat16"] as const)("%s: products alone, each value cast once", async (precision) => {
    const program = await programOf("cnn");
    const half = await withPrecision(program, precision);
    const type = precision === "float16" ? DataType.FLOAT16 : DataType.BFLOAT16;
    const casts = half.model.graph.node.filter((node) => node.opType === "Cast" && intOf(node, "to") === type);
    expect(new Set(casts.map((node) => node.input[0])).size).toBe(casts.length);
    const made = new Map(half.model.graph.node.flatMap((node) => node.output.map((output) => [output, node] as const)));
    const isHalf = (name: string) => casts.includes(made.get(name) as NodeProto);
    const counts = { half: 0, whole: 0 };
    for (const node of half.model.graph.node.filter(({ opType }) => PRODUCTS.has(opType ?? ""))) {
      const halves = node.input.filter(Boolean).map(isHalf);
      expect(new Set(halves).size).toBe(1);
      if (precision === "float16" || !node.opType?.startsWith("Conv")) expect(halves[0]).toBe(true);
      counts[halves[0] ? "half" : "whole"]++;
    }
    expect(counts.half).toBeGreaterThan(5);
    // CUDA has no bfloat16 convolutions.
    expect(counts.whole > 0).toBe(precision === "bfloat16");
    const types = new Map(half.model.graph.output.map((info) => [info.name, info.type?.tensorType?.elemType]));
    for (const { gradient } of half.manifest.parameters) expect(types.get(gradient)).toBe(DataType.FLOAT);
    expect(half.manifest).toBe(program.manifest);
    expect(await withPrecision(program, "float32")).toBe(program);
  });

  test.each(Object.keys(programs) as (keyof typeof programs)[])(
    "%s: gradients, sampled ones too, within float16's accuracy of float32's, whatever the scale",
    async (name) => {
      const program = await programOf(name);
      const half = played(await withPrecision(program, "float16"));
      const reference = await gradientsOf(name, program);
      for (const scale of [64, 4096]) {
        const errors = [...(await gradientsOf(name, half, scale))].map(([output, values]) =>
          relativeError(values, reference.get(output) as Float64Array),
        );
        // float16 has 11 bits: one rounding is 2.4e-4 on average.
        expect(Math.max(...errors)).toBeLessThan(0.02);
        expect(Math.max(...errors)).toBeGreaterThan(1e-5);
      }
    },
  );

  test("a step's graph keeps the optimizer's products in float32, and the scale among its state", async () => {
    const half = await withPrecision(await programOf("autoencoder_tanh"), "float16");
    const optimizer = withLossScaling(createOptimizer({ name: "fishy", blockSize: 32 }, half.manifest.parameters));
    const { tensors } = loadGolden("autoencoder_tanh").golden;
    const shapes = new Map([...tensors].map(([name, { dims }]) => [name.replace("input/", ""), dims]));
    const parts = { statistics: true, roots: true };
    const { model, stateInputs, state, metrics } = buildStepGraph(half, optimizer, { parts, shapes });
    expect(model.graph.input.some((info) => info.name === LOSS_SCALE)).toBe(false);
    expect(stateInputs.has(LOSS_SCALE) && state.has(LOSS_SCALE) && metrics.has("loss_scale/skipped")).toBe(true);
    const types = await inferTypes(model as ModelProto);
    const own = model.graph.node.filter((node) => node.opType === "MatMul" && node.name?.startsWith("fishy/"));
    expect(own.length).toBeGreaterThan(5);
    for (const { input } of own) for (const name of input) expect(types.get(name)?.elemType).not.toBe(DataType.FLOAT16);
  });

  test("gradients too small for float16 need the scale", async () => {
    // y = x·w with the loss 1e-9·Σy: the gradient of w, 1e-9·xᵀ1, is zero in float16.
    const b = new GraphBuilder(emptyGraph("small"));
    b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 2] });
    b.initializer("w", DataType.FLOAT, [2, 1], Float32Array.of(1, 1));
    const y = b.mul(b.matMul("x", "w"), b.f32(1e-9));
    b.alias(b.reduceSum(y, undefined, false), "value");
    b.output("value", { elemType: DataType.FLOAT, shape: [] });
    const program = await rewrite(modelOf(b.graph), {
      loss: "in-graph",
      lossOutput: "value",
      sections: { kind: "none" },
    } as never);
    const { model, manifest } = played(await withPrecision(program, "float16"));
    const at = async (scale: number) => {
      const seed = new ort.Tensor("int64", BigInt64Array.of(0n), []);
      const feeds = { seed, x: f32([1, 2, 3, 4], [2, 2]), [LOSS_SCALE]: f32([scale], []) };
      const results = await runModel(model, feeds);
      const [parameter] = manifest.parameters;
      return [...(results[parameter?.gradient ?? ""] as ort.Tensor).data] as number[];
    };
    expect(await at(1)).toEqual([0, 0]);
    const scaled = await at(2 ** 16);
    expect(scaled[0] as number).toBeCloseTo(4e-9 * 2 ** 16, 6);
    expect(scaled[1] as number).toBeCloseTo(6e-9 * 2 ** 16, 6);
  });

  test("devices without such products refuse them, with a remedy", () => {
    const at = (kind: "cpu" | "cuda" | "webgpu") => ({ kind, index: 0 });
    expect(() => checkPrecision("bfloat16", at("cpu"))).toThrow(
      "cpu has no matrix products in bfloat16. Use precision float32 or float16, or the device cuda.",
    );
    expect(() => checkPrecision("bfloat16", at("webgpu"))).toThrow(/webgpu has no/);
    checkPrecision("bfloat16", at("cuda"));
    checkPrecision("float16", at("webgpu"));
    checkPrecision("float32", at("cpu"));
  });

  test("a program that does not name its cotangents is refused", async () => {
    const { model, manifest } = await programOf("autoencoder_tanh");
    const { cotangents: _, ...older } = manifest;
    await expect(withPrecision({ model, manifest: older }, "float16")).rejects.toThrow(
      /Rewrite the source model again/,
    );
  });
});

describe("loss scaling", () => {
  const scaling = { initial: 2 ** 10, interval: 3 };

  /** An optimizer's update alone, step after step, on gradients of one parameter that are scaled as a program's are. */
  function updater(inner: Optimizer) {
    const optimizer = withLossScaling(inner, scaling);
    const part = partProgram(optimizer, "update") as NonNullable<ReturnType<typeof partProgram>>;
    const state = new Map(optimizer.state.map(({ name, init, dims }) => [name, { data: init(), dims }]));
    let parameter = Float32Array.of(1, 2);
    let step = 0;
    return {
      state,
      async update(gradient: readonly number[]) {
        step++;
        const scale = Number(state.get(LOSS_SCALE)?.data[0]);
        const hyperparameters = optimizer.hyperparameters(step);
        const feeds = Object.fromEntries(
          [...part.inputs].map(([input, { role, name }]) => {
            if (role === "parameter") return [input, f32(parameter, [2])];
            if (role === "hyperparameter") return [input, f32([hyperparameters[name] as number], [])];
            if (role === "gradient")
              return [
                input,
                f32(
                  gradient.map((value) => value * scale),
                  [2],
                ),
              ];
            const { data, dims } = state.get(name) as { data: Float32Array; dims: number[] };
            return [input, f32(data, dims)];
          }),
        );
        const results = await runModel(part.model, feeds);
        let metrics: Record<string, number> = {};
        for (const [output, { role, name }] of part.outputs) {
          const data = results[output]?.data as Float32Array;
          if (role === "parameter") parameter = data.slice();
          else if (role === "state") state.set(name, { data: data.slice(), dims: state.get(name)?.dims ?? [] });
          else metrics = { ...metrics, [name]: data[0] as number };
        }
        return { parameter: [...parameter], scale: Number(state.get(LOSS_SCALE)?.data[0]), metrics };
      },
    };
  }

  test("hands the optimizer the gradients without the scale, to the bit", async () => {
    const sgd = createOptimizer({ name: "sgd", learningRate: 0.5 }, [{ name: "w", dims: [2] }]);
    const { parameter, metrics } = await updater(sgd).update([0.1, -0.3]);
    const step = (w: number, g: number) => Math.fround(w - Math.fround(0.5 * Math.fround(g)));
    expect(parameter).toEqual([step(1, 0.1), step(2, -0.3)]);
    expect(metrics).toEqual({ loss_scale: 1024, "loss_scale/skipped": 0 });
  });

  test("skips a step with a gradient that is not finite, halves the scale, and doubles it after good steps", async () => {
    const adam = createOptimizer({ name: "adam", learningRate: 0.1 }, [{ name: "w", dims: [2] }]);
    const { update, state } = updater(adam);
    const first = await update([1, 1]);
    const moments = () =>
      [...state].filter(([name]) => !name.startsWith(LOSS_SCALE)).map(([, { data }]) => [...(data as Float32Array)]);
    const before = moments();
    for (const [i, broken] of [
      [Number.POSITIVE_INFINITY, 0],
      [0, Number.NaN],
      [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
    ].entries()) {
      const { parameter, scale, metrics } = await update(broken);
      expect(parameter).toEqual(first.parameter);
      expect(moments()).toEqual(before);
      expect(scale).toBe(1024 / 2 ** (i + 1));
      expect(metrics["loss_scale/skipped"]).toBe(1);
    }
    const scales: number[] = [];
    for (let i = 0; i < 7; i++) scales.push((await update([1, 1])).scale);
    expect(scales).toEqual([128, 128, 256, 256, 256, 512, 512]);
    // A skip starts the count anew.
    await update([Number.NaN, 1]);
    scales.length = 0;
    for (let i = 0; i < 3; i++) scales.push((await update([1, 1])).scale);
    expect(scales).toEqual([256, 256, 512]);
  });

  test("the scale stays between 1 and 2²⁴", async () => {
    const { update, state } = updater(createOptimizer({ name: "sgd" }, [{ name: "w", dims: [2] }]));
    state.set(LOSS_SCALE, { data: Float32Array.of(1), dims: [] });
    expect((await update([Number.NaN, 0])).scale).toBe(1);
    state.set(LOSS_SCALE, { data: Float32Array.of(2 ** 24), dims: [] });
    for (let i = 0; i < 3; i++) expect((await update([0, 0])).scale).toBe(2 ** 24);
  });
});

describe("a run in float16", () => {
  const folder = temporaryFolder();
  const { model: proto } = loadGolden("autoencoder_tanh");
  const data = makeDataset("pictures", [
    columnOf(
      "pixels",
      DataType.FLOAT,
      [60, 8, 8],
      gaussians(60 * 64, 0.2, 3n).map((value) => Math.min(1, Math.abs(value))),
    ),
  ]);
  const options = {
    ...{ model: { proto }, rewrite: { loss: "sigmoid-cross-entropy" } as const, data, inputs: { target: "pixels" } },
    ...{ batchSize: 10, steps: 9, seed: 2, threads: 1 },
    optimizer: { name: "fishy", learningRate: 3e-3, rootInterval: 3, startStep: 2, blockSize: 32 } as const,
  };

  test("trains like float32, the same in groups of steps, and resumes with the same bits", async () => {
    const outDir = join(folder, "run");
    const whole = await train({ ...options, precision: "float16", outDir, checkpointEvery: 1, keepCheckpoints: 20 });
    const float32 = await train(options);
    const [first, last] = [whole.losses[0] as number, whole.losses.at(-1) as number];
    expect(last).toBeLessThan(first);
    expect(Math.abs(last / (float32.losses.at(-1) as number) - 1)).toBeLessThan(0.01);
    type State = NonNullable<TrainResult["state"]>;
    const grouped = await train({ ...options, precision: "float16", stepsPerRun: 4 });
    expect(grouped.losses).toEqual(whole.losses);
    expect(differingTensors(grouped.state as State, whole.state as State)).toEqual([]);
    expect(whole.state?.optimizer.get(LOSS_SCALE)?.data[0]).toBeGreaterThanOrEqual(1);

    const directory = new RunDirectory(outDir);
    const program = await directory.readProgram();
    const from = join(outDir, "checkpoint-4");
    const stored = directory.readOptions().run;
    const resumed = await runTraining({ program, data, directory, from, options: parseRunOptions(stored) });
    expect(differingTensors(resumed.state, whole.state as State)).toEqual([]);
    const other = runTraining({
      program,
      data,
      directory,
      from,
      options: parseRunOptions({ ...stored, precision: "float32" }),
    });
    await expect(other).rejects.toThrow(/precision: float16, now not set/);
  });

  test("refuses to take several batches in a step", async () => {
    const refused = train({ ...options, precision: "float16", accumulation: 2 });
    await expect(refused).rejects.toThrow(/float16 scales the loss of each batch/);
  });
});
