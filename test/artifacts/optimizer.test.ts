/** Our optimizers in the artifacts' variants against ONNX Runtime's trajectories. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { loadArtifacts } from "../../src/artifacts/load.js";
import { readOptimizerModel } from "../../src/artifacts/optimizer-model.js";
import { loadModel } from "../../src/onnx/model-file.js";
import type { TensorProto } from "../../src/onnx/proto.js";
import { dataOf, type TensorData } from "../../src/onnx/tensor.js";
import type { OptimizerOptions } from "../../src/optimizers/registry.js";
import { createArrayOptimizer } from "../../src/training/array-optimizer.js";
import { toOrt } from "../support/golden-run.js";
import { type Feeds, relativeError } from "../support/run.js";
import { hasArtifacts, SHARED } from "../support/shared.js";
import { FIXTURES, folderOf, group, oracleOf, readOracle } from "./support.js";
import { trajectory } from "./trajectory.js";

/** What `optimizer_model.onnx` of every artifact says. */
const ARTIFACT_ADAMW: OptimizerOptions = {
  name: "adamw",
  variant: "transformers",
  learningRate: 1e-3,
  epsilon: 1e-6,
  weightDecay: 0,
};

const batchOf = (name: string): Feeds =>
  Object.fromEntries([...group(oracleOf(name), "input")].map(([input, value]) => [input, toOrt(value)]));

describe("five steps of AdamW", () => {
  it.each(FIXTURES)("%s: losses and parameters are those of ONNX Runtime's training session", async (name) => {
    const oracle = oracleOf(name);
    const { losses, values } = await trajectory(await loadArtifacts(folderOf(name)), batchOf(name), {
      steps: 5,
      optimizer: ARTIFACT_ADAMW,
    });
    expect(relativeError(losses, oracle.get("losses")?.data as Float32Array)).toBeLessThan(1e-6);
    expectValues(values, oracle);
  });

  it.each(FIXTURES)("%s: goes on from a saved session, moments and step included", async (name) => {
    const oracle = oracleOf(name);
    const folder = folderOf(name);
    const artifacts = await loadArtifacts({
      training: join(folder, "training_model.onnx"),
      eval: join(folder, "eval_model.onnx"),
      checkpoint: join(folder, "checkpoint_step3"),
    });
    const [saved] = artifacts.checkpoint?.optimizerGroups ?? [];
    const state = new Map<string, TensorData>();
    for (const [parameter, moments] of saved?.moments ?? []) {
      state.set(`${parameter}/exp_avg`, dataOf(moments.get("momentum0") as TensorProto));
      state.set(`${parameter}/exp_avg_sq`, dataOf(moments.get("momentum1") as TensorProto));
    }
    const { losses, values } = await trajectory(artifacts, batchOf(name), {
      steps: 2,
      optimizer: ARTIFACT_ADAMW,
      from: { step: saved?.step ?? 0, state },
    });
    const expected = oracle.get("losses")?.data as Float32Array;
    expect(relativeError(losses, expected.slice(3))).toBeLessThan(1e-6);
    expectValues(values, oracle);
  });
});

/** The gradient of a bias before a BatchNormalization is zero but for rounding, which Adam makes steps of. */
const WITHOUT_GRADIENT = "conv1.bias";

function expectValues(values: ReadonlyMap<string, Float32Array>, oracle: ReturnType<typeof oracleOf>): void {
  for (const [parameter, { data }] of group(oracle, "after")) {
    const tolerance = parameter === WITHOUT_GRADIENT ? 1e-3 : 1e-5;
    expect(relativeError(values.get(parameter) as Float32Array, data as Float32Array), parameter).toBeLessThan(
      tolerance,
    );
  }
}

describe("optimizer models", () => {
  it("of an optimizer unknown to artifacts: refused", async () => {
    const { proto } = await loadModel(join(folderOf("mlp"), "eval_model.onnx"));
    expect(() => readOptimizerModel(proto, "x.onnx")).toThrow(
      /x\.onnx holds neither AdamWOptimizer nor SGDOptimizerV2, but Gemm/,
    );
  });
});

interface OptimizerTrajectory {
  readonly Parameters: Record<string, number[][]>;
  readonly Gradients: Record<string, number[][]>;
  readonly Momentum1s?: Record<string, number[][]>;
  readonly Momentum2s?: Record<string, number[][]>;
}

describe.skipIf(!hasArtifacts)("trajectories of Microsoft's optimizer tests (shared/artifacts)", () => {
  const adamw = (variant: "pytorch" | "transformers", epsilon: number, weightDecay: number): OptimizerOptions => ({
    name: "adamw",
    variant,
    learningRate: 1e-3,
    epsilon,
    weightDecay,
  });
  it.each([
    ["adamw_test_single_weight_mode_0", adamw("pytorch", 1e-8, 1e-2)],
    ["adamw_test_multiple_weights_mode_0", adamw("pytorch", 1e-8, 1e-2)],
    ["adamw_test_single_weight_mode_1", adamw("transformers", 1e-6, 0)],
    ["adamw_test_multiple_weights_mode_1", adamw("transformers", 1e-6, 0)],
    ["sgd_test_single_weight", { name: "sgd", learningRate: 1e-3 }],
    ["sgd_test_multiple_weights", { name: "sgd", learningRate: 1e-3 }],
  ] as [string, OptimizerOptions][])("%s", async (name, options) => {
    const file = join(SHARED, "artifacts", "microsoft-onnxruntime-optimizer-testdata", `${name}.json`);
    const expected: OptimizerTrajectory = JSON.parse(readFileSync(file, "utf8"));
    const flat = (values: number[][] | undefined, step: number) => Float32Array.from(values?.[step] ?? []);
    const parameters = Object.entries(expected.Parameters).map(([parameter, values]) => ({
      name: parameter,
      dims: [values[0]?.length ?? 0],
      data: flat(values, 0),
    }));
    const optimizer = await createArrayOptimizer(options, parameters);
    const steps = Object.values(expected.Gradients)[0]?.length ?? 0;
    expect(steps).toBe(10);
    for (let step = 0; step < steps; step++) {
      await optimizer.step(
        new Map(Object.entries(expected.Gradients).map(([key, values]) => [key, flat(values, step)])),
      );
      for (const { name: parameter } of parameters) {
        const wanted = flat(expected.Parameters[parameter], step + 1);
        expect(relativeError(optimizer.parameters.get(parameter) ?? [], wanted), `${parameter} ${step}`).toBeLessThan(
          1e-6,
        );
        if (!expected.Momentum1s) continue;
        const moments = [expected.Momentum1s, expected.Momentum2s].map((each) => flat(each?.[parameter], step + 1));
        const own = ["exp_avg", "exp_avg_sq"].map((key) => optimizer.state.get(`${parameter}/${key}`) as Float32Array);
        for (const [i, moment] of moments.entries()) expect(relativeError(own[i] ?? [], moment)).toBeLessThan(1e-5);
      }
    }
    await optimizer.release();
  });
});

describe.skipIf(!hasArtifacts)("ONNX Runtime's values for artifacts found in the wild (shared/artifacts)", () => {
  const artifacts = join(SHARED, "artifacts");
  const microsoft = join(artifacts, "microsoft-onnxruntime-training_api");
  const ORACLES = { ms: microsoft, seiz: join(artifacts, "Bozu1206-SeizureGuard", "training_artifacts") };

  it.each(Object.entries(ORACLES))("%s: loss, gradients, and five steps of AdamW", async (name, folder) => {
    const loaded = await loadArtifacts(folder);
    const feeds = readOracle(join(artifacts, "oracle", name), "feeds");
    const expected = readOracle(join(artifacts, "oracle", name), "expected");
    const parameters = new Set([...loaded.trainable, ...loaded.frozen]);
    const batch = Object.fromEntries([...feeds].filter(([key]) => !parameters.has(key)));
    for (const parameter of parameters) {
      const tensor = loaded.proto.graph.initializer.find((each) => each.name === parameter) as TensorProto;
      expect(dataOf(tensor)).toEqual(feeds.get(parameter)?.data);
    }
    const five = JSON.parse(readFileSync(join(artifacts, "oracle", name, "ort_adamw_5steps.json"), "utf8"));
    const { losses, gradients } = await trajectory(loaded, batch, { steps: 5, optimizer: ARTIFACT_ADAMW });
    expect(relativeError(losses.slice(0, 1), expected.get(loaded.loss)?.data as Float32Array)).toBeLessThan(1e-6);
    expect([...gradients.keys()].sort()).toEqual([...loaded.trainable].sort());
    for (const [parameter, gradient] of gradients) {
      const wanted = expected.get(`${parameter}_grad`)?.data as Float32Array;
      expect(relativeError(gradient, wanted), parameter).toBeLessThan(1e-5);
    }
    expect(relativeError(losses, five.losses)).toBeLessThan(1e-5);
  });

  it("Microsoft's reference MLP: 2.1786249, then 0.36050943 after one step", async () => {
    const text = readFileSync(join(microsoft, "input-0.in"), "utf8");
    const numbers = text
      .slice(text.indexOf("[") + 1, text.indexOf("]"))
      .split(",")
      .map(Number);
    const rows = numbers.length / 784;
    expect(rows).toBe(2);
    const loaded = await loadArtifacts(microsoft);
    const batch: Feeds = {
      "input-0": new ort.Tensor("float32", Float32Array.from(numbers), [rows, 784]),
      labels: new ort.Tensor("int32", new Int32Array(rows).fill(1), [rows]),
    };
    const { losses } = await trajectory(loaded, batch, { steps: 2, optimizer: ARTIFACT_ADAMW });
    const files = ["loss_1.out", "loss_2.out"].map((file) =>
      Number(readFileSync(join(microsoft, file), "utf8").split("\n")[1]),
    );
    expect(files).toEqual([2.1786249, 0.36050943]);
    for (const [i, loss] of losses.entries()) expect(Math.abs(loss / (files[i] as number) - 1)).toBeLessThan(1e-6);
  });
});
