/**
 * Two tables of Shampoo's parts.
 *
 *     npm run build && node tools/bench/shampoo.mjs accuracy
 *     npm run build && node tools/bench/shampoo.mjs cost [autoencoder|deep] [FOLDER]
 *
 * accuracy: inverse roots of (S + ε·λ_max·I) against their exact value. S has rank 8 and integer entries, so it is exact
 * in float32, its eigendecomposition is that of an 8×8 matrix, and ε alone sets the condition number to 1/ε.
 *
 * cost: seconds of each part of a step on an autoencoder's matrices, with statistics whose eigenvalues fall evenly over
 * six decades. With FOLDER, the matrices are saved there, and `python tools/bench/dsyevd.py FOLDER` times LAPACK on them.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import * as ort from "onnxruntime-node";
import { formatTable } from "../../dist/cli/table.js";
import { emptyGraph, GraphBuilder } from "../../dist/onnx/builder.js";
import { partProgram } from "../../dist/optimizers/program.js";
import { createOptimizer, parseOptimizerOptions } from "../../dist/optimizers/registry.js";
import { emitInverseRoots } from "../../dist/optimizers/shampoo/newton.js";
import { createSession } from "../../dist/runtime/session.js";

const [mode = "accuracy", network = "autoencoder", folder] = process.argv.slice(2);
const tensor = (data, dims) => new ort.Tensor("float32", data, dims);
const wrap = (graph) => ({
  irVersion: 8,
  graph,
  opsetImport: [{ domain: "", version: 18 }],
  metadataProps: [],
  trainingInfo: [],
  functions: [],
});

/** Numbers from −1 to 1 that are the same at every run. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

async function rootOf(data, size, exponent, options) {
  const b = new GraphBuilder(emptyGraph("root"));
  b.input("s", { elemType: 1, shape: [1, size, size] });
  const result = emitInverseRoots(b, "s", 1, size, exponent, options);
  for (const key of ["root", "residual", "iterations"]) {
    b.output(b.alias(result[key], `out:${key}`), { elemType: 1, shape: undefined });
  }
  const session = await createSession(wrap(b.graph));
  const out = await session.fetch({ s: tensor(data, [1, size, size]) }, ["out:root", "out:residual", "out:iterations"]);
  await session.release();
  return { root: out["out:root"].data, residual: out["out:residual"].data[0], rounds: out["out:iterations"].data[0] };
}

async function accuracy() {
  const rows = [];
  for (const size of [2, 16, 128, 1024]) {
    const rank = Math.min(8, size / 2);
    const next = generator(size);
    const a = Array.from({ length: size }, () =>
      Array.from({ length: rank }, (_, k) => Math.round((k === 0 ? 12 : 6) * next()) || 1),
    );
    const small = new Matrix(a).transpose().mmul(new Matrix(a));
    const { eigenvectorMatrix: v, realEigenvalues: lambda } = new EigenvalueDecomposition(small, {
      assumeSymmetric: true,
    });
    // Eigenvectors of AAᵀ are A·v/√λ.
    const u = new Matrix(a).mmul(v).mmul(Matrix.diag(lambda.map((x) => x ** -0.5)));
    const s = new Float32Array(new Matrix(a).mmul(new Matrix(a).transpose()).to1DArray());
    for (const exponent of [1, 1.5, 2, 3, 4, 6, 8]) {
      for (const solver of ["newton", "higher-order"]) {
        const cells = [];
        for (const power of [2, 4, 6, 8, 10, 12]) {
          const epsilon = 10 ** -power;
          const { root } = parseOptimizerOptions({ name: "fishy", root: { solver, retries: 0 } });
          const result = await rootOf(s, size, exponent, { epsilon, epsilonKind: "relative", root });
          const ridge = epsilon * Math.max(...lambda);
          const base = ridge ** (-1 / exponent);
          const change = lambda.map((x) => (x + ridge) ** (-1 / exponent) - base);
          const expected = u.mmul(Matrix.diag(change)).mmul(u.transpose());
          let [error, largest] = [0, 0];
          for (let i = 0; i < size; i++) {
            for (let j = 0; j < size; j++) {
              const value = expected.get(i, j) + (i === j ? base : 0);
              error = Math.max(error, Math.abs(result.root[i * size + j] - value));
              largest = Math.max(largest, Math.abs(value));
            }
          }
          cells.push(`${(error / largest).toExponential(0)} / ${result.residual.toExponential(0)} / ${result.rounds}`);
        }
        rows.push([String(size), String(exponent), solver, ...cells]);
      }
    }
  }
  console.log(formatTable(["size", "p", "solver", "10²", "10⁴", "10⁶", "10⁸", "10¹⁰", "10¹²"], rows));
}

const NETWORKS = {
  autoencoder: [784, 1000, 500, 250, 30, 250, 500, 1000, 784],
  deep: [784, 1000, ...Array(8).fill(500), 250, 30, 250, ...Array(8).fill(500), 1000, 784],
};

/** Σ_k 10^(−6k/d) a_k a_kᵀ: eigenvalues over six decades. */
async function decaying(size, count) {
  const b = new GraphBuilder(emptyGraph("decaying"));
  b.input("a", { elemType: 1, shape: [count, size, size] });
  b.output(b.matMul("a", b.transpose("a", [0, 2, 1])), { elemType: 1, shape: undefined });
  const session = await createSession(wrap(b.graph));
  const next = generator(size);
  const a = Float32Array.from({ length: count * size * size }, (_, i) => next() * 10 ** ((-3 * (i % size)) / size));
  const out = await session.fetch({ a: tensor(a, [count, size, size]) }, session.outputNames);
  await session.release();
  return out[session.outputNames[0]].data;
}

async function cost() {
  const sizes = NETWORKS[network];
  const parameters = sizes.slice(1).flatMap((out, i) => [
    { name: `${i}.weight`, dims: [out, sizes[i]] },
    { name: `${i}.bias`, dims: [out] },
  ]);
  const settings = [
    { name: "adam" },
    ...[1024, 512, 256, 128].map((blockSize) => ({ name: "fishy", blockSize })),
    { name: "fishy", blockSize: 1024, root: { solver: "newton" } },
    { name: "fishy", blockSize: 1024, root: { precision: "float32" }, epsilon: 1e-4 },
    { name: "shampoo", blockSize: 1024 },
    { name: "shampoo", blockSize: 1024, root: { solver: "newton" } },
  ];
  const rows = [];
  let saved = 0;
  for (const options of settings) {
    const optimizer = createOptimizer(options, parameters);
    const row = [JSON.stringify(options).replaceAll('"', "")];
    for (const part of ["statistics", "roots", "update"]) {
      const program = partProgram(optimizer, part);
      if (!program) {
        row.push("");
        continue;
      }
      const feeds = {};
      const next = generator(1);
      for (const [input, { role, name }] of program.inputs) {
        const state = role === "state" ? optimizer.state.find((one) => one.name === name) : undefined;
        const dims = role === "hyperparameter" ? [] : (state ?? parameters.find((one) => one.name === name)).dims;
        const count = dims.reduce((product, dim) => product * dim, 1);
        let data = state?.init();
        if (role === "hyperparameter") data = Float32Array.of(optimizer.hyperparameters(20)[name]);
        else if (part === "roots" && name.includes("/statistics")) {
          data = await decaying(dims.at(-1), dims.length === 3 ? dims[0] : 1);
          if (folder && options.blockSize === 1024 && options === settings[1]) {
            mkdirSync(folder, { recursive: true });
            writeFileSync(join(folder, `${saved++}_${dims.at(-1)}.f32`), new Uint8Array(data.buffer));
          }
        } else if (!state || /graft|momentum|exp_avg/.test(name))
          data = Float32Array.from({ length: count }, () => next() ** 2);
        feeds[input] = tensor(data, dims);
      }
      const session = await createSession(program.model);
      const outputs = [...program.outputs.keys()];
      let best = Number.POSITIVE_INFINITY;
      for (let i = 0; i < (part === "roots" ? 3 : 10); i++) {
        const start = performance.now();
        await session.fetch(feeds, outputs);
        best = Math.min(best, performance.now() - start);
      }
      await session.release();
      row.push(`${best.toFixed(0)} ms`);
    }
    rows.push(row);
  }
  console.log(formatTable(["options", "statistics", "roots", "update"], rows));
}

await (mode === "cost" ? cost() : accuracy());
