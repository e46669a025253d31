/**
 * What is computed: models, batches and their sizes. Weights and data come from a seeded generator, so that every
 * contestant computes the same numbers. The graphs are PyTorch exports without weights (tools/bench/peers/models.py).
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadModel, saveModel } from "../../../dist/index.js";
import { dimsOf, elementCount } from "../../../dist/onnx/tensor.js";

const dense = (widths) => (batch) =>
  widths.slice(1).reduce((sum, out, i) => sum + 2 * batch * widths[i] * out * (i === 0 ? 2 : 3), 0);
const mirrored = (widths) => [...widths, ...widths.slice(0, -1).reverse()];

/** 3×3 convolutions of VGG16 by [channels in, channels out, output height]. */
const VGG = [
  ...[
    [3, 64, 32],
    [64, 64, 32],
    [64, 128, 16],
    [128, 128, 16],
    [128, 256, 8],
    [256, 256, 8],
    [256, 256, 8],
  ],
  ...[
    [256, 512, 4],
    [512, 512, 4],
    [512, 512, 4],
    [512, 512, 2],
    [512, 512, 2],
    [512, 512, 2],
  ],
];

/**
 * `flops`: multiplications and additions of the matrix products of forward and backward pass, without the gradient of
 * the data. `dims`: of one example.
 */
export const WORKS = {
  autoencoder: {
    letter: "a",
    title: "deep autoencoder 784-[1000, 500×8, 250, 30]-mirrored",
    batch: 1000,
    dims: [784],
    loss: "sigmoid-cross-entropy",
    flops: dense(mirrored([784, 1000, ...Array(8).fill(500), 250, 30])),
  },
  vgg16: {
    letter: "b",
    title: "VGG16 for 32×32×3",
    batch: 64,
    dims: [3, 32, 32],
    loss: "softmax-cross-entropy",
    classes: 10,
    flops: (batch) =>
      VGG.reduce((sum, [i, o, size], k) => sum + 2 * batch * 9 * i * o * size * size * (k === 0 ? 2 : 3), 0) +
      6 * batch * (512 * 512 * 2 + 512 * 10),
  },
  transformer: {
    letter: "c",
    title: "transformer encoder, 4 layers, d = 256, sequence 128",
    batch: 16,
    dims: [128],
    tokens: 1000,
    loss: "softmax-cross-entropy",
    classes: 10,
    flops: (batch) => 6 * batch * (4 * 128 * (12 * 256 * 256 + 2 * 128 * 256) + 256 * 10),
  },
  mlp: {
    letter: "d",
    title: "MLP 64-128-128-10",
    batch: 32,
    dims: [64],
    loss: "softmax-cross-entropy",
    classes: 10,
    flops: dense([64, 128, 128, 10]),
  },
  ...Object.fromEntries(
    [2, 4, 8, 16, 32].map((layers) => [
      `deep${layers}`,
      {
        title: `${layers} layers of 500`,
        batch: 1000,
        dims: [500],
        loss: "mean-squared-error",
        flops: dense(Array(layers + 1).fill(500)),
      },
    ]),
  ),
};

/** Uniform numbers in [0, 1): a 32-bit xorshift. */
function generator(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/**
 * Writes `model.onnx`, `x.bin` (float32, or int64 tokens), `labels.bin` (int64, where there are classes) and `work.json`
 * into `folder`.
 */
export async function writeWork(name, folder, batch = WORKS[name].batch) {
  const work = WORKS[name];
  mkdirSync(folder, { recursive: true });
  const { proto } = await loadModel(join(import.meta.dirname, `${name}.onnx`));
  const next = generator(20_241_124);
  let parameters = 0;
  for (const tensor of proto.graph.initializer) {
    const dims = dimsOf(tensor);
    if (tensor.rawData?.length || tensor.dataType !== 1) continue;
    const count = elementCount(dims);
    parameters += count;
    // He's initialisation (2015); scales of norms one, biases zero.
    const bound = dims.length > 1 ? Math.sqrt(6 / (count / dims[0])) / (work.tokens ? Math.sqrt(6) : 1) : 0;
    const data = Float32Array.from({ length: count }, () =>
      dims.length > 1 ? bound * (2 * next() - 1) : /norm\d?\.weight$/.test(tensor.name) ? 1 : 0,
    );
    tensor.rawData = new Uint8Array(data.buffer);
  }
  await saveModel({ proto, directory: folder }, join(folder, "model.onnx"));
  const count = batch * elementCount(work.dims);
  const x = work.tokens
    ? BigInt64Array.from({ length: count }, () => BigInt(Math.floor(work.tokens * next())))
    : Float32Array.from({ length: count }, next);
  writeFileSync(join(folder, "x.bin"), new Uint8Array(x.buffer));
  if (work.classes) {
    const labels = BigInt64Array.from({ length: batch }, () => BigInt(Math.floor(work.classes * next())));
    writeFileSync(join(folder, "labels.bin"), new Uint8Array(labels.buffer));
  }
  const { dims, tokens, loss, classes } = work;
  const description = { name, batch, dims, tokens, loss, classes, parameters, flops: work.flops(batch) };
  writeFileSync(join(folder, "work.json"), JSON.stringify(description));
  return description;
}
