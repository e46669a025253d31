/** The share of the batch that is sampled: its gradient is that of the program on the first examples alone. */
import * as ort from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { DataType } from "../../src/onnx/proto.js";
import { elementCount } from "../../src/onnx/tensor.js";
import type { TrainingProgram } from "../../src/rewrite/manifest.js";
import { type RewriteOptions, rewrite } from "../../src/rewrite/rewrite.js";
import { goldenFeeds, goldenLoss } from "../support/golden-run.js";
import { twoLayerNet } from "../support/mlp.js";
import { type Feeds, modelOf, newBuilder, relativeError, runModel } from "../support/run.js";
import { loadGolden } from "../support/shared.js";

/** The first rows of what depends on the batch. */
function firstRows(feeds: Feeds, rows: number): Feeds {
  return Object.fromEntries(
    Object.entries(feeds).map(([name, tensor]) => {
      if (tensor.dims.length === 0) return [name, tensor];
      const [, ...dims] = tensor.dims;
      const data = (tensor.data as Float32Array).slice(0, rows * elementCount(dims));
      return [name, new ort.Tensor(tensor.type as "float32", data, [rows, ...dims])];
    }),
  );
}

function statisticsOutputs({ manifest }: TrainingProgram): string[] {
  return manifest.parameters.flatMap(({ sampledGradient, statistics }) => [
    ...(sampledGradient === undefined ? [] : [sampledGradient]),
    ...(statistics ?? []).flatMap((term) =>
      term.kind === "layer" ? [term.input, term.output, term.weight] : [term.value],
    ),
  ]);
}

/** Two programs of one model: what the share gives, and what the whole gives of the first rows. */
async function compare(name: string, options: RewriteOptions, share: number, rows: number) {
  const golden = loadGolden(name);
  const common = { loss: goldenLoss(golden), ...options };
  const whole = await rewrite(golden.model, common);
  const part = await rewrite(loadGolden(name).model, { ...common, sampledShare: share });
  expect(part.manifest.sampledShare).toBe(share);
  const feeds = goldenFeeds(golden, part, 5);
  const actual = await runModel(part.model, feeds);
  const expected = await runModel(whole.model, firstRows(feeds, rows));
  const outputs = statisticsOutputs(part);
  expect(outputs).toEqual(statisticsOutputs(whole));
  expect(outputs.length).toBeGreaterThan(0);
  for (const output of outputs) {
    const [a, b] = [actual[output] as ort.Tensor, expected[output] as ort.Tensor];
    expect(a.dims, output).toEqual(b.dims);
    expect(relativeError(a.data as Float32Array, b.data as Float32Array), output).toBeLessThan(2e-5);
  }
  // The true gradient is that of all examples.
  const all = await runModel(whole.model, feeds);
  for (const { gradient } of part.manifest.parameters) {
    expect(relativeError(actual[gradient]?.data as Float32Array, all[gradient]?.data as Float32Array)).toBeLessThan(
      1e-6,
    );
  }
}

describe("the sampled gradient is that of the first examples", () => {
  test.each<[string, number, number, RewriteOptions]>([
    ["mlp_tanh", 0.5, 4, {}],
    ["mlp_tanh", 0.3, 3, { score: "centred" }],
    ["mlp_tanh", 0.01, 1, { draw: "two-point" }],
    ["mlp_tanh", 0.25, 2, { draw: "expected" }],
    ["mlp_loss_in_graph", 0.5, 4, {}],
    ["autoencoder_tanh", 0.5, 3, { sections: { kind: "every", every: 2 } }],
    ["cnn", 0.4, 2, {}],
    ["cnn", 0.6, 3, { draw: "expected" }],
    ["cnn", 0.4, 2, { sections: { kind: "output" } }],
    ["vgg_small", 0.5, 2, { sections: { kind: "classifier" } }],
    ["transformer_encoder", 0.34, 2, {}],
    ["gpt_tied", 0.6, 2, {}],
  ])("%s, %f of it", async (name, share, rows, options) => {
    await compare(name, options, share, rows);
  });

  test("and costs their part: the backward nodes have their shapes", async () => {
    const net = twoLayerNet();
    const { model, manifest } = await rewrite(net.model, { loss: "softmax-cross-entropy", sampledShare: 0.25 });
    const rows = 4 * 8;
    const cotangents = model.graph.node
      .filter(({ name = "" }) => name.startsWith("sampled/"))
      .flatMap(({ input }) => input);
    const produced = new Set(model.graph.node.flatMap(({ output }) => output));
    const probes = [...new Set(cotangents)].filter((name) => produced.has(name));
    const known = new Set(model.graph.output.map(({ name }) => name));
    for (const name of probes) if (!known.has(name)) model.graph.output.push({ name });
    const result = await runModel(model, {
      x: new ort.Tensor("float32", new Float32Array(rows * 5).fill(0.1), [rows, 5]),
      labels: new ort.Tensor("int64", new BigInt64Array(rows), [rows]),
      seed: new ort.Tensor("int64", BigInt64Array.of(1n), []),
    });
    const dims = probes.flatMap((name) => result[name]?.dims ?? []);
    expect(dims).toContain(8);
    expect(dims).not.toContain(rows);
    expect(manifest.boundaries.map(({ preActivation }) => preActivation)).toEqual(["a1", "logits"]);
  });
});

describe("refused", () => {
  test("where a section has batch statistics, with what to do instead", async () => {
    const { model } = loadGolden("resnet_small");
    const options = { loss: "softmax-cross-entropy", sampledShare: 0.5 } as const;
    const refusal = /computed from the whole batch, as BatchNormalization's statistics are.*--statistics-batch N/s;
    await expect(rewrite(model, options)).rejects.toThrow(refusal);
    // The only section is the whole network.
    const output = rewrite(loadGolden("resnet_small").model, { ...options, sections: { kind: "output" } });
    await expect(output).rejects.toThrow(refusal);
  });

  test("where examples meet: a product over the batch, a softmax along it, a reversal, a roll", async () => {
    const attempt = async (build: (b: ReturnType<typeof newBuilder>, h: string) => string) => {
      const b = newBuilder();
      b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 4] });
      const w = (name: string, dims: number[]) =>
        b.initializer(
          name,
          DataType.FLOAT,
          dims,
          Float32Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(i + 1)),
        );
      const h = b.matMul("x", w("first.weight", [4, 4]));
      const logits = b.matMul(build(b, h), w("second.weight", [4, 3]));
      b.output(logits, { elemType: DataType.FLOAT, shape: ["batch", 3] });
      return rewrite(modelOf(b.graph), {
        loss: "softmax-cross-entropy",
        sections: { kind: "output" },
        sampledShare: 0.5,
      });
    };
    await expect(attempt((b, h) => b.op("Tanh", [h]))).resolves.toBeDefined();
    await expect(attempt((b, h) => b.matMul(b.matMul(h, b.transpose(h, [1, 0])), h))).rejects.toThrow(
      "does not tell where its examples are",
    );
    await expect(attempt((b, h) => b.op("Softmax", [h], { axis: 0 }))).rejects.toThrow("it may mix examples");
    await expect(attempt((b, h) => b.op("CumSum", [h, b.i64(0)]))).rejects.toThrow("it may mix examples");
    await expect(attempt((b, h) => b.slice(h, [-1], [-1000000], [0], [-1]))).rejects.toThrow("does not tell where");
    await expect(attempt((b, h) => b.sub(h, b.reduce("ReduceMean", h, [0], true)))).rejects.toThrow(
      "is computed from the whole batch",
    );
    // Positions before examples: a Reshape that takes an example apart.
    await expect(
      attempt((b, h) => b.reshape(b.transpose(b.reshape(h, [-1, 2, 2]), [1, 0, 2]), [-1, 4])),
    ).rejects.toThrow("does not tell where its examples are");
  });

  test("without a symbol for the batch, and outside (0, 1]", async () => {
    const net = twoLayerNet();
    for (const sampledShare of [0, -0.5, 1.5, Number.NaN]) {
      await expect(rewrite(net.model, { loss: "softmax-cross-entropy", sampledShare })).rejects.toThrow(
        `must be above 0 and at most 1; got ${sampledShare}`,
      );
    }
    const shape = net.model.graph.input[0]?.type?.tensorType?.shape;
    if (shape?.dim[0]) shape.dim[0] = { dimValue: 4 };
    await expect(rewrite(net.model, { loss: "softmax-cross-entropy", sampledShare: 0.5 })).rejects.toThrow(
      "fixed to a batch of 4",
    );
  });
});
