/**
 * What tools/bench/compare.mjs trains. A problem has methods, one grid of learning rates for all of them, and `run`,
 * which trains once and returns the loss of every step, the seconds until then, and the losses at the end. `steps` (and
 * `tuningSteps` where tuning is shorter), and `seeds` of the final runs where there are not three.
 */
import { join } from "node:path";
import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import { createArrayOptimizer, train } from "../../dist/index.js";
import { deepAutoencoder } from "./deep-autoencoder.mjs";

export const root = join(import.meta.dirname, "..", "..");
const graph = (name) => join(root, "graphs", name);
const data = join(root, "graphs", "data", "fashion-mnist");

const schedule = { kind: "linear" };
const secondOrder = { blockSize: 256, rootInterval: 20, epsilon: 1e-4 };
const METHODS = {
  SGD: { name: "sgd", momentum: 0.9 },
  Adam: { name: "adam" },
  Shampoo: { name: "shampoo", ...secondOrder },
  "FIM Shampoo": { name: "fim-shampoo", ...secondOrder },
  Fishy: { name: "fishy", ...secondOrder },
};
const { "FIM Shampoo": fim, Fishy: fishy, ...others } = METHODS;
/** With one layer FIM Shampoo and Fishy sample at the same boundary and are one method. */
const ONE_LAYER = { ...others, "FIM Shampoo = Fishy": fishy };

/** Short runs of a slow network: roots from the start, samples at every second step. */
const deep = { startStep: 3, statisticsInterval: 2 };
const DEEP = {
  Adam: METHODS.Adam,
  Shampoo: { ...METHODS.Shampoo, ...deep },
  "FIM Shampoo": { ...fim, ...deep },
  Fishy: { ...fishy, ...deep },
};

/** On one layer with Gaussian errors the Fisher is the Kronecker product of the statistics: exponent −1 is its inverse. */
const INVERSE = { "Fishy, exponent −1": { ...fishy, exponent: 1 } };

/** Uniform in [0, 1), the same at every run (mulberry32). */
export function generator(seed) {
  let state = (seed * 0x9e3779b9) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function normals(random, rows, columns) {
  const draw = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return new Matrix(Array.from({ length: rows }, () => Array.from({ length: columns }, draw)));
}

/** A symmetric matrix with eigenvalues from 1 down to 1/condition, evenly on a log scale, in random directions, and its root. */
function badlyScaled(random, size, condition) {
  const g = normals(random, size, size);
  const { eigenvectorMatrix: v } = new EigenvalueDecomposition(g.transpose().mmul(g), { assumeSymmetric: true });
  const withPower = (power) =>
    v
      .mmul(Matrix.diag(Array.from({ length: size }, (_, i) => condition ** ((-i / (size - 1)) * power))))
      .mmul(v.transpose());
  return { matrix: withPower(1), root: withPower(0.5) };
}

const ROWS = 32;
const COLUMNS = 24;
const CONDITION = 1e3;
const SAMPLES = 64;

/**
 * f(W) = ½ tr((W − W*)ᵀ A (W − W*) B), from W = 0. It is the expected loss of y = Wx with x ~ N(0, B) and errors of
 * covariance A⁻¹, so the sampled gradient is the mean of A·e·xᵀ = A^(1/2)·z·xᵀ over drawn x and z. The true gradient is
 * exact. Time is that of the optimizer's steps alone.
 */
async function runQuadratic(optimizer, { seed, steps }) {
  const random = generator(seed + 1);
  const [a, b] = [badlyScaled(random, ROWS, CONDITION), badlyScaled(random, COLUMNS, CONDITION)];
  const target = normals(random, ROWS, COLUMNS);
  const lossOf = (difference, gradient) => difference.dot(gradient) / 2;
  const dims = [ROWS, COLUMNS];
  const arrays = await createArrayOptimizer(optimizer, [{ name: "w", dims, data: new Float32Array(ROWS * COLUMNS) }], {
    totalSteps: steps,
  });
  const [losses, seconds] = [[], []];
  let total = 0;
  let start;
  for (let step = 0; step <= steps; step++) {
    const w = Matrix.from1DArray(ROWS, COLUMNS, [...arrays.parameters.get("w")]);
    const difference = Matrix.sub(w, target);
    const gradient = a.matrix.mmul(difference).mmul(b.matrix);
    start ??= lossOf(new Matrix([difference.to1DArray()]), new Matrix([gradient.to1DArray()]));
    losses.push(lossOf(new Matrix([difference.to1DArray()]), new Matrix([gradient.to1DArray()])) / start);
    seconds.push(total);
    if (step === steps) break;
    const inputs = b.root.mmul(normals(random, COLUMNS, SAMPLES));
    const sampled = a.root
      .mmul(normals(random, ROWS, SAMPLES))
      .mmul(inputs.transpose())
      .div(SAMPLES);
    const before = performance.now();
    await arrays.step({ w: gradient.to1DArray() }, { w: sampled.to1DArray() });
    total += (performance.now() - before) / 1000;
  }
  await arrays.release();
  return { losses, seconds, trainLoss: losses.at(-1), secondsPerStep: median(differences(seconds)) };
}

/** Trains an ONNX model with the public library, on 8,000 images; 2,000 are held out. */
async function runTraining(model, rewrite, batchSize, optimizer, { seed, steps }) {
  const [losses, seconds] = [[], []];
  const result = await train({
    model,
    rewrite,
    data,
    heldOut: 2000,
    batchSize,
    steps,
    seed,
    evaluateEvery: 0,
    optimizer,
    onStep(record) {
      losses.push(record.loss);
      seconds.push(record.seconds);
    },
  });
  return {
    losses,
    seconds,
    trainLoss: result.train.loss,
    heldOutLoss: result.heldOut.loss,
    heldOutAccuracy: result.heldOut.accuracy,
    secondsPerStep: result.medianSecondsPerStep,
  };
}

/** The seed draws the weights too, which no file holds. */
function runAutoencoder(optimizer, settings) {
  const model = deepAutoencoder(generator(settings.seed + 1));
  return runTraining(model, { loss: "sigmoid-cross-entropy", targetInput: "image" }, 100, optimizer, settings);
}

const classes = { loss: "softmax-cross-entropy" };

export const PROBLEMS = {
  quadratic: {
    title: `Quadratic in a ${ROWS}×${COLUMNS} matrix, condition 10⁶`,
    lossName: "f / f(start)",
    steps: 200,
    grid: [1e-2, 3e-2, 1e-1, 3e-1, 1, 3, 10],
    methods: { ...ONE_LAYER, ...INVERSE },
    smoothing: 1,
    run: runQuadratic,
  },
  logistic: {
    title: "Logistic regression on Fashion-MNIST, batch 500",
    lossName: "training loss",
    steps: 200,
    grid: [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1],
    methods: ONE_LAYER,
    smoothing: 10,
    run: (optimizer, settings) => runTraining(graph("logistic.onnx"), classes, 500, optimizer, settings),
  },
  cnn: {
    title: "Small CNN on Fashion-MNIST, batch 128",
    lossName: "training loss",
    steps: 150,
    grid: [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
    methods: METHODS,
    smoothing: 10,
    run: (optimizer, settings) => runTraining(graph("small_cnn.onnx"), classes, 128, optimizer, settings),
  },
  autoencoder: {
    title: "Deep autoencoder of the paper on Fashion-MNIST, batch 100",
    lossName: "training loss",
    tuningSteps: 40,
    steps: 100,
    grid: [3e-5, 1e-4, 3e-4, 1e-3],
    seeds: [1],
    methods: DEEP,
    smoothing: 5,
    run: runAutoencoder,
  },
};

export function withRate(options, learningRate) {
  return { ...options, learningRate, schedule };
}

export function differences(values) {
  return values.slice(1).map((value, i) => value - values[i]);
}

export function median(values) {
  const sorted = [...values].sort((x, y) => x - y);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
