/** Training models on the inference build: their own gradients through model-local functions, and the sampled ones. */
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { sampledOutput } from "../../src/artifacts/keep-backward.js";
import { loadArtifacts, loadTrainingModel } from "../../src/artifacts/load.js";
import { nextBufferName, polyfill } from "../../src/artifacts/polyfill/polyfill.js";
import { bufferName, LAZY_RESET } from "../../src/artifacts/training-names.js";
import type { NamedTensor } from "../../src/data/safetensors.js";
import { problemsOf } from "../../src/onnx/check.js";
import { withFields } from "../../src/onnx/codec.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { tensorFromNumbers } from "../../src/onnx/tensor.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { keepBackward } from "../../src/training/keep-backward.js";
import { artifactRewriteOptions } from "../../src/training/source.js";
import { toOrt } from "../support/golden-run.js";
import { type Feeds, f32, relativeError, runModel } from "../support/run.js";
import { hasArtifacts, SHARED } from "../support/shared.js";
import { FIXTURES, folderOf, group, int64Scalar, oracleOf, readOracle } from "./support.js";
import { withoutDropout } from "./trajectory.js";

/** Gives Dropout the ratio 0, as in the oracle: its masks cannot be compared. */
function withRatioZero(model: ModelProto): ModelProto {
  const ratios = new Set(model.graph.node.flatMap(({ opType, input }) => (opType === "Dropout" ? [input[1]] : [])));
  const initializer = model.graph.initializer.map((tensor) =>
    ratios.has(tensor.name) ? tensorFromNumbers(tensor.name ?? "", DataType.FLOAT, [], [0]) : tensor,
  );
  return withFields(model, { graph: withFields(model.graph, { initializer }) });
}

/** The batch, the parameters, empty buffers of `parameters`, and the seed where the model has one. */
function feedsOf(model: ModelProto, oracle: ReadonlyMap<string, NamedTensor>, reset = true): Feeds {
  const before = group(oracle, "before");
  const feeds: Feeds = { [LAZY_RESET]: new ort.Tensor("bool", Uint8Array.of(reset ? 1 : 0), [1]) };
  for (const { name = "", type } of model.graph.input) {
    if (name in feeds) continue;
    const value = oracle.get(`input/${name}`) ?? before.get(name);
    if (value) feeds[name] = toOrt(value);
    else if (name === "seed") feeds[name] = int64Scalar(3);
    else {
      const dims = type?.tensorType?.shape?.dim.map((dim) => Number(dim.dimValue)) ?? [];
      // Not zero: a buffer that is overwritten does not matter.
      feeds[name] = f32(Array(dims.reduce((product, dim) => product * dim, 1)).fill(0.5), dims);
    }
  }
  return feeds;
}

describe("polyfilled", () => {
  it.each(FIXTURES)("%s: ONNX Runtime's own backward pass gives its own gradients", async (name) => {
    const oracle = oracleOf(name);
    const { proto } = await loadTrainingModel(join(folderOf(name), "training_model.onnx"));
    const model = await polyfill(withRatioZero(proto));
    expect(problemsOf(model)).toEqual([]);
    expect(model.graph.node.every((node) => node.opType !== "MaxPoolGrad" || node.domain === "com.microsoft")).toBe(
      true,
    );
    const result = await runModel(model, feedsOf(model, oracle));
    const loss = result[model.graph.output[0]?.name ?? ""]?.data as Float32Array;
    expect(relativeError(loss, oracle.get("loss")?.data as Float32Array)).toBeLessThan(1e-6);
    const expected = group(oracle, "grad");
    const largest = Math.max(...[...expected.values()].map(({ data }) => Math.hypot(...(data as Float32Array))));
    for (const [parameter, { data }] of expected) {
      const error = relativeError(result[nextBufferName(parameter)]?.data as Float32Array, data as Float32Array);
      // The gradient of a bias before a BatchNormalization is zero but for rounding.
      const size = Math.hypot(...(data as Float32Array)) / largest;
      expect(size < 1e-6 ? error * size : error, parameter).toBeLessThan(1e-5);
    }
  });

  it("accumulates where it is not told to start anew", async () => {
    const oracle = oracleOf("mlp");
    const { proto } = await loadTrainingModel(join(folderOf("mlp"), "training_model.onnx"));
    const model = await polyfill(proto);
    const result = await runModel(model, feedsOf(model, oracle, false));
    for (const [parameter, { data }] of group(oracle, "grad")) {
      const expected = (data as Float32Array).map((value) => value + 0.5);
      expect(relativeError(result[nextBufferName(parameter)]?.data as Float32Array, expected)).toBeLessThan(1e-6);
    }
  });

  it("lists what it cannot write", async () => {
    const { proto } = await loadTrainingModel(join(folderOf("mlp"), "training_model.onnx"));
    const node = proto.graph.node.map((each) =>
      each.opType === "ReluGrad" ? withFields(each, { opType: "ResizeGrad" }) : each,
    );
    const model = withFields(proto, { graph: withFields(proto.graph, { node }) });
    await expect(polyfill(model)).rejects.toThrow(
      /'.*ReluGrad_0' \(ResizeGrad\) is an operator that fishy cannot write/,
    );
  });
});

describe.skipIf(!hasArtifacts)("artifacts found in the wild (shared/artifacts)", () => {
  it.each([
    ["ms", "microsoft-onnxruntime-training_api"],
    ["seiz", "Bozu1206-SeizureGuard/training_artifacts"],
  ])("%s: polyfilled, gradients are ONNX Runtime's", async (name, set) => {
    const artifacts = join(SHARED, "artifacts");
    const feeds = readOracle(join(artifacts, "oracle", name), "feeds");
    const expected = readOracle(join(artifacts, "oracle", name), "expected");
    const { proto } = await loadTrainingModel(join(artifacts, set, "training_model.onnx"));
    const model = await polyfill(proto);
    const gradients = [...expected.keys()].filter((key) => key.endsWith("_grad"));
    for (const { name: input = "", type } of model.graph.input) {
      if (feeds.has(input) || input === LAZY_RESET) continue;
      const dims = type?.tensorType?.shape?.dim.map((dim) => Number(dim.dimValue)) ?? [];
      feeds.set(input, f32(new Float32Array(dims.reduce((product, dim) => product * dim, 1)), dims));
    }
    feeds.set(LAZY_RESET, new ort.Tensor("bool", Uint8Array.of(1), [1]));
    const result = await runModel(model, Object.fromEntries(feeds));
    expect(gradients).toHaveLength(4);
    for (const gradient of gradients) {
      const found = result[nextBufferName(gradient.replace(/_grad$/, ""))]?.data as Float32Array;
      expect(relativeError(found, expected.get(gradient)?.data as Float32Array), gradient).toBeLessThan(1e-5);
    }
  });
});

/** Kept gradients of half precision are refused: test/artifacts/load.test.ts. */
const KEPT = FIXTURES.filter((name) => name !== "mixed");

describe("with the sampled backward pass", () => {
  it.each(KEPT)("%s: true and sampled gradients are those of the training program", async (name) => {
    const oracle = oracleOf(name);
    const artifacts = await loadArtifacts(folderOf(name));
    const kept = await keepBackward(artifacts, {}, "both");
    const inputs = kept.model.graph.input.map((input) => input.name);
    const user = group(oracle, "input").size;
    expect(inputs[user]).toBe("seed");
    expect(inputs.at(-1)).toBe(LAZY_RESET);
    for (const parameter of artifacts.trainable) expect(inputs).toContain(bufferName(`${parameter}_sampled`));
    const model = await polyfill(withRatioZero(kept.model));
    const result = await runModel(model, feedsOf(model, oracle));

    const program = await rewrite(withoutDropout(artifacts.proto), artifactRewriteOptions(artifacts));
    const own = await runModel(program.model, {
      seed: int64Scalar(3),
      ...Object.fromEntries([...group(oracle, "input")].map(([input, value]) => [input, toOrt(value)])),
    });
    const sampledOf = (parameter: string) => own[`${parameter}_sampled_grad`]?.data as Float32Array;
    const largest = Math.max(...artifacts.trainable.map((parameter) => Math.hypot(...sampledOf(parameter))));
    for (const parameter of artifacts.trainable) {
      const expected = sampledOf(parameter);
      const size = Math.hypot(...expected) / largest;
      for (const output of [sampledOutput(parameter), nextBufferName(`${parameter}_sampled`)]) {
        const error = relativeError(result[output]?.data as Float32Array, expected);
        expect(size < 1e-6 ? error * size : error, output).toBeLessThan(1e-5);
      }
    }
  });

  it("through the very mask that Dropout drew", async () => {
    const artifacts = await loadArtifacts(folderOf("cnn"));
    // One section: its backward pass goes through all of the model.
    const { model } = await keepBackward(artifacts, { sections: { kind: "output" } });
    const masks = model.graph.node.flatMap(({ opType, output }) => (opType === "Dropout" ? [output[1] as string] : []));
    const readers = model.graph.node.filter(
      ({ name, input }) => name?.startsWith("fishy/") && input.some((x) => masks.includes(x)),
    );
    expect(masks).toHaveLength(2);
    expect(readers.length).toBeGreaterThanOrEqual(2);
  });

  it("needs a training model and a place to sample", async () => {
    const artifacts = await loadArtifacts(folderOf("mlp"));
    await expect(keepBackward(artifacts, { sections: { kind: "none" } })).rejects.toThrow(/nothing is sampled/);
    const { training: _, ...files } = artifacts.files;
    await expect(keepBackward({ ...artifacts, files })).rejects.toThrow(/needs the training_model\.onnx/);
  });
});
