/** TensorFlow.js on its WebAssembly backend as a contestant: `tfjs.mjs FOLDER PART THREADS PEERS`, for stacks of layers. */
import { createRequire } from "node:module";
import { join } from "node:path";
import { denseWork } from "./dense.mjs";
import { now, serve } from "./protocol.mjs";

const [folder, part, threads, peers] = process.argv.slice(2);
const { work, layers, activation, x: data, labels } = await denseWork(folder);
const before = process.memoryUsage().rss;
const require = createRequire(join(peers, "package.json"));
const tf = require("@tensorflow/tfjs");
const wasm = require("@tensorflow/tfjs-backend-wasm");
wasm.setThreadsCount(Number(threads));
await tf.setBackend("wasm");
await tf.ready();

const variables = layers.map(({ weight, bias }) => ({
  weight: tf.variable(tf.tensor(weight.data, weight.dims)),
  bias: tf.variable(tf.tensor(bias.data, bias.dims)),
}));
const x = tf.tensor(data, [work.batch, ...work.dims]);
const target = labels ? tf.oneHot(tf.tensor1d(labels, "int32"), work.classes).toFloat() : x;
const optimizer = tf.train.adam(1e-5);

function lossOf() {
  let y = x;
  for (const [i, { weight, bias }] of variables.entries()) {
    y = tf.add(tf.matMul(y, weight, false, true), bias);
    if (i + 1 < variables.length) y = tf[activation](y);
  }
  if (work.loss === "softmax-cross-entropy") return tf.losses.softmaxCrossEntropy(target, y);
  if (work.loss === "mean-squared-error") return tf.losses.meanSquaredError(target, y);
  return tf.losses.sigmoidCrossEntropy(target, y).mul(work.dims[0]);
}

function step() {
  return tf.tidy(() => {
    const { value, grads } = tf.variableGrads(lossOf);
    if (part === "adam") optimizer.applyGradients(grads);
    else for (const gradient of Object.values(grads)) gradient.dataSync();
    return value.dataSync()[0];
  });
}

const loss = step();
step();
serve({ loss, version: `tfjs ${tf.version.tfjs} (wasm)`, kinds: ["step"], before }, async (repeat) => {
  const times = [];
  for (let i = 0; i < Math.min(repeat, 20); i++) {
    const start = now();
    step();
    times.push(now() - start);
  }
  return { step: times };
});
