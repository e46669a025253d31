/**
 * The table of the roots' accuracy (for what they cost: roots.mjs and step-parts.mjs).
 *
 *     npm run build && node tools/bench/shampoo.mjs [SIZE…]
 *
 * Inverse roots of (S + ε·λ_max·I) against their exact value. S has rank 8 and integer entries, so it is exact
 * in float32, its eigendecomposition is that of an 8×8 matrix, and ε alone sets the condition number to 1/ε.
 */
import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import * as ort from "onnxruntime-node";
import { formatTable } from "../../dist/cli/table.js";
import { emptyGraph, GraphBuilder } from "../../dist/onnx/builder.js";
import { parseOptimizerOptions } from "../../dist/optimizers/registry.js";
import { emitInverseRoots } from "../../dist/optimizers/shampoo/newton.js";
import { emitTiledRoot, isTiled } from "../../dist/optimizers/shampoo/tiled-roots.js";
import { createSession } from "../../dist/runtime/session.js";
import { generator, modelOf } from "./support.mjs";

const sizes = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [2, 16, 128, 256, 1024];
const tensor = (data, dims) => new ort.Tensor("float32", data, dims);

async function rootOf(data, size, exponent, options) {
  const b = new GraphBuilder(emptyGraph("root"));
  const dims = isTiled(size) ? [size, size] : [1, size, size];
  b.input("s", { elemType: 1, shape: dims });
  const result = isTiled(size)
    ? emitTiledRoot(b, "s", size, exponent, options)
    : emitInverseRoots(b, "s", 1, size, exponent, options);
  for (const key of ["root", "residual", "iterations"]) {
    b.output(b.alias(result[key], `out:${key}`), { elemType: 1, shape: undefined });
  }
  const session = await createSession(modelOf(b.graph));
  const out = await session.fetch({ s: tensor(data, dims) }, ["out:root", "out:residual", "out:iterations"]);
  await session.release();
  return { root: out["out:root"].data, residual: out["out:residual"].data[0], rounds: out["out:iterations"].data[0] };
}

async function accuracy() {
  const rows = [];
  for (const size of sizes) {
    const rank = Math.min(8, size / 2);
    const random = generator(size);
    const next = () => 2 * random() - 1;
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

await accuracy();
