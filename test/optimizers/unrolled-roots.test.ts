/** Inverse roots without Loop and float64, as WebGPU takes them. */
import { Matrix } from "ml-matrix";
import { describe, expect, it } from "vitest";
import { subgraphsOf } from "../../src/onnx/attributes.js";
import { prune } from "../../src/onnx/graph.js";
import { DataType, type GraphProto } from "../../src/onnx/proto.js";
import { parseOptions } from "../../src/optimizers/options.js";
import { emitInverseRoots, rootOptionsFor } from "../../src/optimizers/shampoo/newton.js";
import { rootOptions } from "../../src/optimizers/shampoo/options.js";
import { f32, modelOf, newBuilder, runModel } from "../support/run.js";
import { largestEigenvalue, matrixFunction, maxDifference, withEigenvalues } from "./matrices.js";

interface Setting {
  epsilon?: number;
  epsilonKind?: "relative" | "absolute";
  root?: Record<string, unknown>;
}

async function rootsOf(matrices: readonly Matrix[], exponent: number, setting: Setting = {}) {
  const count = matrices.length;
  const size = (matrices[0] as Matrix).rows;
  const b = newBuilder();
  b.input("s", { elemType: DataType.FLOAT, shape: [count, size, size] });
  const { epsilon = 1e-6, epsilonKind = "relative" } = setting;
  const root = parseOptions(rootOptions, setting.root ?? {}, "root");
  const options = rootOptionsFor({ epsilon, epsilonKind, root }, "webgpu");
  const result = emitInverseRoots(b, "s", count, size, exponent, options);
  for (const key of ["root", "failed", "residual", "retries"] as const) {
    const elemType = key === "failed" ? DataType.BOOL : DataType.FLOAT;
    b.output(b.alias(result[key], `result:${key}`), { elemType, shape: undefined });
  }
  const model = modelOf(b.graph);
  prune(model.graph);
  const data = matrices.flatMap((matrix) => matrix.to1DArray());
  const out = await runModel(model, { s: f32(data, [count, size, size]) });
  const numbers = (key: string) => Array.from(out[`result:${key}`]?.data as ArrayLike<number>, Number);
  const flat = numbers("root");
  const at = (i: number) => flat.slice(i * size * size, (i + 1) * size * size);
  return {
    model,
    roots: matrices.map((_, i) => Matrix.from1DArray(size, size, at(i))),
    failed: numbers("failed"),
    residual: numbers("residual"),
    retries: numbers("retries"),
  };
}

/** Relative to the largest entry, of the root of the matrix with a ridge of 1e-5·λ_max. */
function errorOf(root: Matrix, matrix: Matrix, exponent: number, epsilon = 1e-5): number {
  const ridge = epsilon * largestEigenvalue(matrix);
  const expected = matrixFunction(matrix, (x) => (x + ridge) ** (-1 / exponent));
  return maxDifference(root, expected) / expected.clone().abs().max();
}

function spectrum(size: number, smallest: number): number[] {
  return Array.from({ length: size }, (_, i) => smallest ** (i / (size - 1)));
}

describe("unrolled inverse roots", () => {
  it("have no Loop and no float64", async () => {
    const { model } = await rootsOf([withEigenvalues(spectrum(8, 1e-3), 1)], 4);
    const visit = (graph: GraphProto) => {
      for (const { dataType } of graph.initializer) expect(dataType).not.toBe(DataType.DOUBLE);
      for (const node of graph.node) {
        expect(node.opType).not.toMatch(/^(Loop|Scan)$/);
        for (const inner of subgraphsOf(node)) visit(inner);
      }
    };
    visit(model.graph);
  });

  it.each([2, 4])("p = %d: conditions up to 10⁴ to three digits, in stacks of unlike spectra", async (exponent) => {
    for (const size of [2, 24]) {
      const matrices = [1, 1e-2, 1e-4].map((smallest, i) => withEigenvalues(spectrum(size, smallest), i + 1));
      const { roots, failed, residual } = await rootsOf(matrices, exponent);
      expect(failed).toEqual([0, 0, 0]);
      for (const [i, matrix] of matrices.entries()) {
        expect(errorOf(roots[i] as Matrix, matrix, exponent), `size ${size}, ${i}`).toBeLessThan(1e-3);
        expect(residual[i]).toBeLessThan(1e-2);
      }
    }
  });

  it("give a matrix of low rank the ridge that float32 needs, however small the absolute one is", async () => {
    const matrix = withEigenvalues([1, 0.5, 0, 0, 0, 0], 3);
    const { failed, residual } = await rootsOf([matrix], 2, { epsilon: 1e-12, epsilonKind: "absolute" });
    expect(failed).toEqual([0]);
    expect(residual[0]).toBeLessThan(0.1);
  });

  it("try again with ten times the ridge as long as the residual is too large", async () => {
    // The first stays far below the threshold, so it keeps its root; the second passes it with more ridge.
    const matrices = [withEigenvalues(spectrum(6, 0.5), 1), withEigenvalues([1, 1, 1, 1, 1, 0], 2)];
    const threshold = 5e-4;
    const { retries, residual, failed, roots } = await rootsOf(matrices, 4, { root: { threshold, retries: 4 } });
    expect(retries[0]).toBe(0);
    expect(retries[1]).toBeGreaterThan(0);
    expect(failed).toEqual([0, 0]);
    expect(Math.max(...residual)).toBeLessThanOrEqual(threshold);
    const tries = retries[1] as number;
    expect(errorOf(roots[1] as Matrix, matrices[1] as Matrix, 4, 1e-5 * 10 ** tries)).toBeLessThan(1e-2);
  });

  it("fail when no try is good enough", async () => {
    const { failed, retries } = await rootsOf([withEigenvalues([1, 1, 1, 0], 2)], 4, {
      root: { threshold: 1e-9, retries: 1 },
    });
    expect(failed).toEqual([1]);
    expect(retries).toEqual([1]);
  });
});
