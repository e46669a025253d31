/** float16 and bfloat16 exports of PyTorch: their gradients against float64, training, and what is written back. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { encodeSafetensors, type NamedTensor } from "../../src/data/safetensors.js";
import { widen } from "../../src/onnx/half.js";
import { loadModel, saveModel } from "../../src/onnx/model-file.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { dataOf } from "../../src/onnx/tensor.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { exportModel } from "../../src/training/export.js";
import { train } from "../../src/training/train.js";
import { fishy } from "../support/cli.js";
import { goldenFeeds } from "../support/golden-run.js";
import { relativeError, runModel } from "../support/run.js";
import { loadGolden } from "../support/shared.js";
import { clusters, temporaryFolder } from "../training/support.js";

const LOSS = { loss: "softmax-cross-entropy" } as const;
const folder = temporaryFolder();

function initializer(model: ModelProto, name: string) {
  const tensor = model.graph.initializer.find((candidate) => candidate.name === name);
  if (!tensor) throw new Error(`no ${name}`);
  return tensor;
}

const bitsOf = (model: ModelProto, name: string) => dataOf(initializer(model, name)) as Uint16Array;

describe.each([
  "mlp_float16",
  "mlp_bfloat16_dynamo",
  "cnn_float16",
  "transformer_float16",
  "transformer_float16_dynamo",
])("%s", (name) => {
  const golden = loadGolden(name, "half");
  const expected = (key: string) => golden.golden.tensors.get(key)?.data as Float64Array;

  it("has PyTorch's float64 loss and gradients of the same numbers", async () => {
    const program = await rewrite(golden.model, LOSS);
    const results = await runModel(program.model, goldenFeeds(golden, program));
    const loss = expected("loss")[0] as number;
    expect(Math.abs(Number(results.loss?.data[0]) - loss)).toBeLessThan(1e-6 * Math.max(1, loss));
    const { parameters } = program.manifest;
    const wanted = [...golden.golden.tensors.keys()].filter((key) => key.startsWith("grad/"));
    // Both exporters rename weights that they transpose.
    if (/^(mlp|cnn)_float16$/.test(name)) expect(parameters.map((p) => `grad/${p.name}`).sort()).toEqual(wanted.sort());
    let compared = 0;
    for (const { name: parameter, gradient, sampledGradient } of parameters) {
      expect(results[sampledGradient as string]?.type).toBe("float32");
      const reference = expected(`grad/${parameter}`);
      if (!reference) continue;
      expect(relativeError(results[gradient]?.data as Float32Array, reference), parameter).toBeLessThan(
        name.startsWith("transformer") ? 1e-4 : 1e-5,
      );
      compared++;
    }
    expect(compared).toBeGreaterThanOrEqual(5);
  });

  it("parameters train in float32; frozen weights keep their bytes", async () => {
    const { model, manifest } = await rewrite(golden.model, { ...LOSS, freeze: ["*.bias"] });
    for (const { name: parameter } of manifest.parameters) {
      expect(initializer(model, parameter).dataType).toBe(DataType.FLOAT);
    }
    expect(manifest.frozen.length).toBeGreaterThan(0);
    for (const parameter of manifest.frozen) {
      expect(bitsOf(model, parameter)).toEqual(bitsOf(golden.model, parameter));
    }
  });
});

describe("training a float16 export", () => {
  const { model } = loadGolden("mlp_float16", "half");
  const data = clusters(100, 6, 4);
  const dataFile = join(folder, "data.safetensors");
  const options = {
    rewrite: LOSS,
    data,
    optimizer: { name: "fishy", learningRate: 0.01 },
    batchSize: 20,
    heldOut: 0.2,
  } as const;

  beforeAll(() => {
    const columns = [...data.columns].map(([name, { type, dims, data: values }]): [string, NamedTensor] => [
      name,
      { type, dims: [data.length, ...dims], data: values },
    ]);
    writeFileSync(dataFile, encodeSafetensors(new Map(columns)));
  });

  it("keeps float32 masters, and writes float16 again: the nearest to them", async () => {
    mkdirSync(join(folder, "external"));
    const path = join(folder, "external", "model.onnx");
    await saveModel({ proto: model }, path, { externalData: true, externalThreshold: 0 });
    const outDir = join(folder, "run");
    const result = await train({ ...options, model: path, steps: 6, outDir });
    expect(result.losses.at(-1)).toBeLessThan(result.losses[0] as number);

    const out = join(folder, "trained.onnx");
    await exportModel(outDir, out);
    const trained = (await loadModel(out)).proto;
    expect(trained.graph.input).toEqual(model.graph.input);
    for (const name of ["layers.0.weight", "layers.4.bias"]) {
      expect(initializer(trained, name).dataType).toBe(DataType.FLOAT16);
      const masters = result.state?.model.get(name)?.data as Float32Array;
      const rounded = widen(DataType.FLOAT16, bitsOf(trained, name));
      let isMaster = true;
      masters.forEach((value, i) => {
        const error = Math.abs(value - (rounded[i] as number));
        expect(error).toBeLessThanOrEqual(Math.max(2 ** -11 * Math.abs(value), 2 ** -25));
        if (error > 0) isMaster = false;
      });
      expect(isMaster, "small steps are kept").toBe(false);
    }
    // Judged by the masters, and by the file that was written: nearly the same.
    const losses = [];
    for (const judged of [outDir, out]) {
      const loss = judged === out ? ["--loss", "softmax-cross-entropy"] : [];
      const evaluated = await fishy("eval", judged, "--data", dataFile, "--json", ...loss);
      expect(evaluated.code, evaluated.stderr).toBe(0);
      losses.push(JSON.parse(evaluated.stdout).loss);
    }
    expect(losses[0]).toBeLessThan(result.losses[0] as number);
    expect(losses[0]).not.toBe(losses[1]);
    expect(losses[0]).toBeCloseTo(losses[1] as number, 3);
  });

  it("a run of no step gives the file's own bytes back", async () => {
    const outDir = join(folder, "still");
    await train({ ...options, model: { proto: model }, optimizer: { name: "sgd", learningRate: 0 }, steps: 1, outDir });
    await exportModel(outDir, join(folder, "still.onnx"));
    const still = (await loadModel(join(folder, "still.onnx"))).proto;
    for (const { name = "" } of model.graph.initializer) expect(bitsOf(still, name)).toEqual(bitsOf(model, name));
  });

  it("fishy inspect and fishy eval take it", async () => {
    const path = join(folder, "model.onnx");
    await saveModel({ proto: model }, path);
    const inspected = await fishy("inspect", path, "--loss", "softmax-cross-entropy", "--json");
    expect(inspected.code, inspected.stderr).toBe(0);
    expect(JSON.parse(inspected.stdout).parameters).toHaveLength(6);
  });
});
