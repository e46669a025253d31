/** What artifacts become, and how sets that do not fit together are refused. */
import { copyFileSync, cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isArtifacts } from "../../src/artifacts/artifact-files.js";
import { readCheckpoint, type TrainingCheckpoint } from "../../src/artifacts/checkpoint.js";
import { writeCheckpoint } from "../../src/artifacts/checkpoint-writer.js";
import { loadArtifacts } from "../../src/artifacts/load.js";
import { readOptimizerModel } from "../../src/artifacts/optimizer-model.js";
import { columnOf, makeDataset } from "../../src/data/dataset.js";
import { FishyError } from "../../src/errors.js";
import { type Attributes, attributesFrom, float, intOf } from "../../src/onnx/attributes.js";
import { emptyGraph, valueInfo } from "../../src/onnx/builder.js";
import { problemsOf } from "../../src/onnx/check.js";
import { decodeModel, encodeModel, withFields } from "../../src/onnx/codec.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { narrow } from "../../src/onnx/half.js";
import { loadModel } from "../../src/onnx/model-file.js";
import { countOperators } from "../../src/onnx/opcount.js";
import { DataType, type ModelProto, type NodeProto, type TensorProto } from "../../src/onnx/proto.js";
import { dataOf, dimsOf, numbersOf, tensorFromData, tensorFromNumbers } from "../../src/onnx/tensor.js";
import { type OptimizerOptions, parseOptimizerOptions } from "../../src/optimizers/registry.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { exportCheckpoint } from "../../src/training/export-parameters.js";
import { keepBackward } from "../../src/training/keep-backward.js";
import { artifactOptimizer, artifactRewriteOptions, openSource } from "../../src/training/source.js";
import { train } from "../../src/training/train.js";
import { toOrt } from "../support/golden-run.js";
import { modelOf, relativeError, runModel } from "../support/run.js";
import { GRAPHS, hasArtifacts, SHARED } from "../support/shared.js";
import { temporaryFolder } from "../support/temporary.js";
import { FIXTURES, folderOf, group, int64Scalar, oracleOf } from "./support.js";

describe("a folder of artifacts", () => {
  it.each(FIXTURES)("%s: an ordinary model with its parameters and the loss inside", async (name) => {
    const { proto, loss, trainable, frozen, notes, optimizer } = await loadArtifacts(folderOf(name));
    expect(problemsOf(proto)).toEqual([]);
    expect([...countOperators(proto).keys()].filter((operator) => operator.includes("::"))).toEqual([]);
    expect(proto.graph.output.map((output) => output.name)).toEqual([loss]);
    const values = new Set(proto.graph.initializer.map((tensor) => tensor.name));
    for (const parameter of [...trainable, ...frozen]) expect(values.has(parameter)).toBe(true);
    expect(proto.graph.input).toHaveLength(2);
    expect(notes).toEqual([]);
    expect(optimizer).toEqual({
      name: "adamw",
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-6,
      weightDecay: 0,
      mode: 1,
      biasCorrection: true,
    });
  });

  it("what trains comes from the checkpoint", async () => {
    const lora = await loadArtifacts(folderOf("lora"));
    expect(lora.trainable).toEqual(["A", "B"]);
    expect(lora.frozen).toEqual(["linear.weight", "linear.bias"]);
    const cnn = await loadArtifacts(folderOf("cnn"));
    expect(cnn.frozen).toEqual(["bn1.running_mean", "bn1.running_var", "bn2.running_mean", "bn2.running_var"]);
  });

  it("of a prefix, or one of its models alone", async () => {
    const folder = temporaryFolder();
    for (const file of ["training_model.onnx", "eval_model.onnx", "checkpoint"]) {
      copyFileSync(join(folderOf("mlp"), file), join(folder, `mine_${file}`));
    }
    expect(await isArtifacts(folder)).toBe(true);
    expect((await loadArtifacts(folder)).files.eval).toBe(join(folder, "mine_eval_model.onnx"));
    expect((await loadArtifacts(join(folder, "mine_training_model.onnx"))).trainable).toHaveLength(4);
    cpSync(folderOf("lora"), folder, { recursive: true });
    await expect(loadArtifacts(folder)).rejects.toThrow(
      /several sets of training artifacts, with the prefixes '', 'mine_'/,
    );
    expect((await loadArtifacts(join(folder, "mine_eval_model.onnx"))).trainable).toHaveLength(4);
  });

  it("a model of such a name that is none of them is a model", async () => {
    const folder = temporaryFolder();
    const path = join(folder, "my_training_model.onnx");
    copyFileSync(join(GRAPHS, "pytorch", "mlp_tanh", "model.onnx"), path);
    expect(await isArtifacts(path)).toBe(false);
    expect((await openSource(path)).proto.graph.output).toHaveLength(1);
    copyFileSync(join(folderOf("mlp"), "training_model.onnx"), path);
    expect(await isArtifacts(path)).toBe(true);
  });

  it("of something else: says what is missing", async () => {
    const folder = temporaryFolder();
    expect(await isArtifacts(folder)).toBe(false);
    await expect(loadArtifacts(folder)).rejects.toThrow(/no training_model\.onnx and no eval_model\.onnx/);
    writeFileSync(join(folder, "training_model.ort"), "");
    await expect(loadArtifacts(folder)).rejects.toThrow(/own format \(\.ort\)/);
    expect(await isArtifacts("no/such/folder")).toBe(false);
  });
});

describe("Dropout and BatchNormalization", () => {
  const files = (...kinds: ("training" | "eval")[]) => ({
    ...Object.fromEntries(kinds.map((kind) => [kind, join(folderOf("cnn"), `${kind}_model.onnx`)])),
    checkpoint: join(folderOf("cnn"), "checkpoint"),
  });

  it.each([
    ["eval and training model", files("eval", "training"), 0],
    ["training model", files("training"), 0],
    ["eval model", files("eval"), 1],
  ] as const)("%s: train as the training model has them", async (_, source, notes) => {
    const loaded = await loadArtifacts(source);
    const { graph } = loaded.proto;
    const index = new GraphIndex(graph);
    const dropouts = graph.node.filter((node) => node.opType === "Dropout");
    const ratios = dropouts.map((node) => numbersOf(index.constant(node.input[1] ?? "") as TensorProto)[0]);
    const modes = dropouts.map((node) => numbersOf(index.constant(node.input[2] ?? "") as TensorProto)[0]);
    expect(ratios).toEqual([0.25, 0.5]);
    expect(modes).toEqual([1, 1]);
    const norms = graph.node.filter((node) => node.opType === "BatchNormalization");
    expect(norms.map((node) => [intOf(node, "training_mode"), node.output.length])).toEqual([
      [1, 3],
      [1, 3],
    ]);
    expect(loaded.notes).toHaveLength(notes);
    if (notes) expect(loaded.notes[0]).toContain("2 Dropout and 2 BatchNormalization nodes train");
  });

  it("stay off where the training model has them off", async () => {
    const folder = temporaryFolder();
    cpSync(folderOf("cnn"), folder, { recursive: true });
    const path = join(folder, "training_model.onnx");
    const model = decodeModel(readFileSync(path));
    const dropout = model.graph.node.find((node) => node.name === "/drop2/Dropout");
    const off = tensorFromNumbers(dropout?.input[2] ?? "", DataType.BOOL, [], [0]);
    model.graph.initializer = model.graph.initializer.map((tensor) => (tensor.name === off.name ? off : tensor));
    writeFileSync(path, encodeModel(model));
    const { proto } = await loadArtifacts(folder);
    expect(proto.graph.node.filter((node) => node.opType === "Dropout").map((node) => node.input[2] !== "")).toEqual([
      true,
      false,
    ]);
  });
});

describe("parts that do not belong together", () => {
  async function withCheckpoint(
    change: (checkpoint: TrainingCheckpoint) => Partial<TrainingCheckpoint>,
  ): Promise<string> {
    const folder = temporaryFolder();
    cpSync(folderOf("frozen_backbone"), folder, { recursive: true });
    const checkpoint = await readCheckpoint(join(folder, "checkpoint"));
    await writeCheckpoint(join(folder, "checkpoint"), { ...checkpoint, ...change(checkpoint) });
    return folder;
  }
  const without = (tensors: ReadonlyMap<string, TensorProto>, name: string) =>
    new Map([...tensors].filter(([key]) => key !== name));
  const replaced = (tensors: ReadonlyMap<string, TensorProto>, tensor: TensorProto) =>
    new Map(tensors).set(tensor.name ?? "", tensor);

  it("a trainable parameter missing", async () => {
    const folder = await withCheckpoint(({ trainable }) => ({ trainable: without(trainable, "classifier.0.bias") }));
    await expect(loadArtifacts(folder)).rejects.toThrow(
      /checkpoint lacks the parameter 'classifier\.0\.bias' of .*eval_model/,
    );
  });

  it("a frozen parameter missing", async () => {
    const folder = await withCheckpoint(({ frozen }) => ({ frozen: without(frozen, "features.0.weight") }));
    await expect(loadArtifacts(folder)).rejects.toThrow(/checkpoint lacks the parameter 'features\.0\.weight'/);
  });

  it("a parameter too many", async () => {
    const other = tensorFromNumbers("other.weight", DataType.FLOAT, [1], [1]);
    const folder = await withCheckpoint(({ trainable }) => ({ trainable: replaced(trainable, other) }));
    await expect(loadArtifacts(folder)).rejects.toThrow(/has no parameter 'other\.weight', which the checkpoint holds/);
  });

  it("another shape, another type", async () => {
    const shape = tensorFromNumbers("classifier.0.bias", DataType.FLOAT, [5, 2], Array(10).fill(0));
    const wrongShape = await withCheckpoint(({ trainable }) => ({ trainable: replaced(trainable, shape) }));
    await expect(loadArtifacts(wrongShape)).rejects.toThrow(
      /'classifier\.0\.bias' is float \[10\] in .*its value float \[5, 2\]/,
    );
    const type = tensorFromData("classifier.0.bias", DataType.DOUBLE, [10], new Float64Array(10));
    const wrongType = await withCheckpoint(({ trainable }) => ({ trainable: replaced(trainable, type) }));
    await expect(loadArtifacts(wrongType)).rejects.toThrow(/is float \[10\] in .*its value double \[10\]/);
  });

  it("a checkpoint of another model", async () => {
    const files = {
      training: join(folderOf("mlp"), "training_model.onnx"),
      checkpoint: join(folderOf("lora"), "checkpoint"),
    };
    await expect(loadArtifacts(files)).rejects.toThrow(FishyError);
  });

  it("no bit of the checkpoint changes what the parameters are", async () => {
    const folder = temporaryFolder();
    cpSync(folderOf("mlp"), folder, { recursive: true });
    const bytes = readFileSync(join(folder, "checkpoint"));
    const whole = await loadArtifacts(folder);
    const shapes = (proto: ModelProto) =>
      proto.graph.initializer.map((tensor) => [tensor.name, tensor.dataType, dimsOf(tensor)]);
    // Every 37th bit: all of them take a minute, and the decoder is tried with all.
    for (let bit = 0; bit < 8 * bytes.length; bit += 37) {
      const damaged = Uint8Array.from(bytes);
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
      writeFileSync(join(folder, "checkpoint"), damaged);
      try {
        expect(shapes((await loadArtifacts(folder)).proto)).toEqual(shapes(whole.proto));
      } catch (error) {
        if (!(error instanceof FishyError)) throw error;
      }
    }
  });
});

describe("values without a checkpoint", () => {
  const training = join(folderOf("mlp"), "training_model.onnx");

  it("none: says how to give them", async () => {
    await expect(loadArtifacts({ training })).rejects.toThrow(
      /no checkpoint, so the parameters '0\.weight'.*--parameters FILE/s,
    );
  });

  it("a flat buffer, in the training model's order", async () => {
    const whole = await loadArtifacts(folderOf("mlp"));
    const all = whole.trainable.flatMap((name) =>
      Array.from(
        dataOf(whole.proto.graph.initializer.find((tensor) => tensor.name === name) as TensorProto) as Float32Array,
      ),
    );
    const loaded = await loadArtifacts({ training }, { parameterBuffer: Float32Array.from(all) });
    for (const name of whole.trainable) {
      const [a, b] = [whole, loaded].map(({ proto }) => proto.graph.initializer.find((tensor) => tensor.name === name));
      expect(dataOf(a as TensorProto)).toEqual(dataOf(b as TensorProto));
    }
    await expect(loadArtifacts({ training }, { parameterBuffer: new Float32Array(3) })).rejects.toThrow(
      /has 3 elements; the trainable parameters need 160, all of them 160/,
    );
  });
});

describe("float16", () => {
  /** The linear layer's weight as float16, cast where it is used. */
  async function halved(): Promise<{ eval: string; checkpoint: string }> {
    const folder = temporaryFolder();
    const files = { eval: join(folder, "eval_model.onnx"), checkpoint: join(folder, "checkpoint") };
    const model = decodeModel(readFileSync(join(folderOf("lora"), "eval_model.onnx")));
    const { graph } = model;
    graph.input = graph.input.map((input) =>
      input.name === "linear.weight"
        ? valueInfo("linear.weight", { elemType: DataType.FLOAT16, shape: [6, 8] })
        : input,
    );
    for (const node of graph.node) node.input = node.input.map((name) => (name === "linear.weight" ? "wide" : name));
    graph.node.unshift({
      opType: "Cast",
      name: "widen",
      input: ["linear.weight"],
      output: ["wide"],
      attribute: attributesFrom({ to: DataType.FLOAT }),
    });
    writeFileSync(files.eval, encodeModel(model));
    const checkpoint = await readCheckpoint(join(folderOf("lora"), "checkpoint"));
    // 0.5 everywhere: bits 0x3800.
    const weight = tensorFromData("linear.weight", DataType.FLOAT16, [6, 8], new Uint16Array(48).fill(0x3800));
    const frozen = new Map(checkpoint.frozen).set("linear.weight", weight);
    await writeCheckpoint(files.checkpoint, { ...checkpoint, frozen });
    return files;
  }

  it("frozen weights stay float16 while the others train", async () => {
    const files = await halved();
    const artifacts = await loadArtifacts(files);
    const half = await rewrite(artifacts.proto, artifactRewriteOptions(artifacts));
    const oracle = oracleOf("lora");
    const feeds = {
      seed: int64Scalar(1),
      ...Object.fromEntries([...group(oracle, "input")].map(([input, value]) => [input, toOrt(value)])),
    };
    const found = await runModel(half.model, feeds);
    const parameters = new Map([["linear.weight", tensorFromNumbers("", DataType.FLOAT, [6, 8], Array(48).fill(0.5))]]);
    const wide = await loadArtifacts(folderOf("lora"), { parameters });
    const expected = await runModel((await rewrite(wide.proto, artifactRewriteOptions(wide))).model, feeds);
    for (const output of ["loss", "A_grad", "B_grad", "A_sampled_grad"]) {
      expect(relativeError(found[output]?.data as Float32Array, expected[output]?.data as Float32Array)).toBeLessThan(
        1e-6,
      );
    }
  });

  it("trainable float16 parameters have float32 masters", async () => {
    const files = await halved();
    const artifacts = await loadArtifacts(files);
    const { model, manifest } = await rewrite(
      artifacts.proto,
      artifactRewriteOptions(artifacts, { trainable: ["linear.weight"] }),
    );
    expect(manifest.parameters.map(({ name }) => name)).toEqual(["linear.weight"]);
    const tensor = model.graph.initializer.find(({ name }) => name === "linear.weight");
    expect(tensor?.dataType).toBe(DataType.FLOAT);
    expect([...dataOf(tensor as TensorProto)]).toEqual(Array(48).fill(0.5));
  });

  it("artifacts of float16 parameters train, and give a float16 checkpoint and model back", async () => {
    const folder = temporaryFolder();
    const artifacts = await loadArtifacts(folderOf("half"));
    const half = (name: string) => artifacts.proto.graph.initializer.find((tensor) => tensor.name === name);
    expect(half("layers.0.weight")?.dataType).toBe(DataType.FLOAT16);
    const x = columnOf(
      "input",
      DataType.FLOAT,
      [32, 8],
      Float32Array.from({ length: 256 }, (_, i) => Math.sin(i * i)),
    );
    const labels = columnOf(
      "labels",
      DataType.INT64,
      [32],
      BigInt64Array.from({ length: 32 }, (_, i) => BigInt(i % 4)),
    );
    const result = await train({
      model: folderOf("half"),
      data: makeDataset("waves", [x, labels]),
      optimizer: { name: "fishy", learningRate: 0.01 },
      batchSize: 32,
      steps: 20,
      outDir: join(folder, "run"),
    });
    expect(result.losses.at(-1)).toBeLessThan(result.losses[0] as number);
    await exportCheckpoint(join(folder, "run"), join(folder, "checkpoint"));
    const back = await readCheckpoint(join(folder, "checkpoint"));
    for (const [name, tensor] of back.trainable) {
      expect(tensor.dataType).toBe(DataType.FLOAT16);
      const masters = result.state?.model.get(name)?.data as Float32Array;
      expect(dataOf(tensor)).toEqual(narrow(DataType.FLOAT16, masters));
    }
    const trained = await loadModel(result.modelFile as string);
    expect(trained.proto.graph.initializer.map(({ dataType }) => dataType)).toEqual(Array(4).fill(DataType.FLOAT16));
  });

  it("gradients that are kept cannot be of half precision", async () => {
    await expect(keepBackward(await loadArtifacts(folderOf("half")))).rejects.toThrow(/half precision.*float32/);
  });
});

describe("losses of older files, and further outputs", () => {
  it("a loss of shape [1, 1] becomes a scalar, and outputs that were asked for stay", async () => {
    const folder = temporaryFolder();
    const model = decodeModel(readFileSync(join(folderOf("lora"), "eval_model.onnx")));
    const mean = model.graph.node.at(-1) as NodeProto;
    expect(mean.opType).toBe("ReduceMean");
    mean.attribute = attributesFrom({ keepdims: 1 });
    const loss = model.graph.output[0]?.name ?? "";
    const typed = (name: string, ...dims: (string | number)[]) =>
      valueInfo(name, { elemType: DataType.FLOAT, shape: dims });
    model.graph.output = [typed(loss, 1, 1), typed("output", "batch", 6)];
    const path = join(folder, "eval_model.onnx");
    writeFileSync(path, encodeModel(model));
    const artifacts = await loadArtifacts({ eval: path, checkpoint: join(folderOf("lora"), "checkpoint") });
    expect(artifacts.loss).not.toBe(loss);
    expect(artifacts.outputs).toEqual(["output"]);
    const program = await rewrite(artifacts.proto, artifactRewriteOptions(artifacts));
    const oracle = oracleOf("lora");
    const result = await runModel(program.model, {
      seed: int64Scalar(1),
      ...Object.fromEntries([...group(oracle, "input")].map(([input, value]) => [input, toOrt(value)])),
    });
    expect(result.loss?.dims).toEqual([]);
    expect(result.loss?.data[0]).toBeCloseTo(Number(oracle.get("loss")?.data[0]), 5);
    for (const [parameter, { data }] of group(oracle, "grad")) {
      expect(relativeError(result[`${parameter}_grad`]?.data as Float32Array, data as Float32Array)).toBeLessThan(1e-5);
    }
  });
});

describe("the default optimizer", () => {
  const optimizerModel = (node: NodeProto[]): ModelProto => ({
    ...modelOf(emptyGraph("optimizer")),
    graph: { ...emptyGraph("optimizer"), node },
  });
  const node = (opType: string, attributes: Attributes = {}): NodeProto => ({
    opType,
    domain: "com.microsoft",
    input: [],
    output: [],
    attribute: attributesFrom(attributes),
  });
  const optionsOf = async (model: ModelProto) =>
    artifactOptimizer({ ...(await loadArtifacts(folderOf("mlp"))), optimizer: readOptimizerModel(model) });

  it("AdamW of either mode, with clipping", async () => {
    const clip = node("InplaceClipGradNorm", { max_norm: float(2.5), norm_type: "fro" });
    const adamw = (mode: number) =>
      node("AdamWOptimizer", { adam_mode: mode, weight_decay: float(0.05), alpha: float(0.8) });
    const options = await optionsOf(optimizerModel([clip, adamw(0)]));
    expect(parseOptimizerOptions(options as OptimizerOptions)).toMatchObject({
      name: "adamw",
      variant: "pytorch",
      beta1: 0.8,
      weightDecay: 0.05,
      learningRate: 1e-3,
      maxGradientNorm: 2.5,
    });
    expect(await optionsOf(optimizerModel([adamw(1)]))).toMatchObject({ variant: "transformers" });
  });

  it("SGD; and an AdamW without bias correction is refused", async () => {
    const sgd = await optionsOf(optimizerModel([node("SGDOptimizerV2")]));
    expect(parseOptimizerOptions(sgd as OptimizerOptions)).toMatchObject({
      name: "sgd",
      learningRate: 1e-3,
      momentum: 0,
    });
    await expect(optionsOf(optimizerModel([node("AdamWOptimizer", { correct_bias: 0 })]))).rejects.toThrow(
      /without bias correction/,
    );
  });
});

describe("labels of scores with more than two axes", () => {
  it("get the shape that the operator wants, not what ONNX Runtime declares", async () => {
    const folder = temporaryFolder();
    cpSync(folderOf("mlp"), folder, { recursive: true });
    const path = join(folder, "eval_model.onnx");
    const model = decodeModel(readFileSync(path));
    // [batch, 4] → [batch, 2, 2]: classes on axis 1.
    const loss = model.graph.node.at(-1);
    model.graph.node.splice(
      -1,
      1,
      {
        input: ["output", "positions"],
        output: ["scores"],
        opType: "Reshape",
        name: "positions",
        attribute: [],
      },
      withFields(loss as NodeProto, { input: ["scores", "labels"] }),
    );
    model.graph.initializer.push(tensorFromNumbers("positions", DataType.INT64, [3], [0, 2, 2]));
    const dims = (...list: (string | number)[]) => ({
      dim: list.map((d) => (typeof d === "string" ? { dimParam: d } : { dimValue: d })),
    });
    model.graph.valueInfo = [
      { name: "scores", type: { tensorType: { elemType: DataType.FLOAT, shape: dims("batch", 2, 2) } } },
    ];
    writeFileSync(path, encodeModel(model));
    const { proto } = await loadArtifacts({ eval: path, checkpoint: join(folder, "checkpoint") });
    const labels = proto.graph.input.find((input) => input.name === "labels");
    expect(labels?.type?.tensorType?.shape?.dim.map((dim) => dim.dimParam || Number(dim.dimValue))).toEqual([
      "batch",
      2,
    ]);
  });
});

describe.skipIf(!hasArtifacts)("artifacts found in the wild (shared/artifacts)", () => {
  const at = (...parts: string[]) => join(SHARED, "artifacts", ...parts);
  const microsoft = at("microsoft-onnxruntime-training_api");

  it("Microsoft's reference model, with its nominal checkpoint", async () => {
    await expect(
      loadArtifacts({ eval: join(microsoft, "eval_model.onnx"), checkpoint: join(microsoft, "nominal_checkpoint") }),
    ).rejects.toThrow(/checkpoint is nominal: it holds names without values.*--parameters/s);
    const { proto } = await loadArtifacts(microsoft);
    const values = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"].flatMap((name) =>
      Array.from(dataOf(proto.graph.initializer.find((tensor) => tensor.name === name) as TensorProto) as Float32Array),
    );
    const files = {
      training: join(microsoft, "training_model.onnx"),
      checkpoint: join(microsoft, "nominal_checkpoint"),
    };
    const filled = await loadArtifacts(files, { parameterBuffer: Float32Array.from(values) });
    expect(filled.trainable).toHaveLength(4);
  });

  it("the old folder checkpoint and version 1 fit the same model", async () => {
    const history = at("microsoft-onnxruntime-training_api-history");
    for (const checkpoint of ["pre-1.16-directory-format/checkpoint.ckpt", "v1-flatbuffer/checkpoint.ckpt"]) {
      const loaded = await loadArtifacts({
        training: join(microsoft, "training_model.onnx"),
        checkpoint: join(history, checkpoint),
      });
      expect(loaded.trainable).toEqual(["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]);
    }
  });

  it("custom operators are refused by name, two imports of ai.onnx are not", async () => {
    await expect(loadArtifacts(join(microsoft, "custom_ops"))).rejects.toThrow(
      /test\.customop::CustomOpOne\) is a custom operator: plain ONNX Runtime has no kernel/,
    );
  });

  it("files in ONNX Runtime's own format are refused", async () => {
    await expect(loadArtifacts(join(microsoft, "ort_format"))).rejects.toThrow(/own format/);
  });

  it("SeizureGuard: the folded convolutions stay frozen", async () => {
    const loaded = await loadArtifacts(at("Bozu1206-SeizureGuard/training_artifacts"));
    expect(loaded.trainable).toEqual([
      "classifier.0.weight",
      "classifier.0.bias",
      "classifier.1.weight",
      "classifier.1.bias",
    ]);
    expect(loaded.frozen).toHaveLength(6);
  });
});
