/** Float64 linear algebra for the tests, independent of the code under test. */
import { EigenvalueDecomposition, Matrix, QR } from "ml-matrix";

/** Uniform numbers in [0, 1) from a linear congruential generator (Numerical Recipes). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Normal numbers (Box–Muller). */
export function normals(count: number, seed: number): number[] {
  const uniform = generator(seed);
  for (let i = 0; i < 10; i++) uniform();
  return Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

export function randomOrthogonal(size: number, seed: number): Matrix {
  const values = normals(size * size, seed);
  return new QR(Matrix.from1DArray(size, size, values)).orthogonalMatrix;
}

/** A symmetric matrix with the given eigenvalues and random eigenvectors. */
export function withEigenvalues(eigenvalues: readonly number[], seed: number): Matrix {
  const q = randomOrthogonal(eigenvalues.length, seed);
  const matrix = q.mmul(Matrix.diag([...eigenvalues])).mmul(q.transpose());
  return matrix.add(matrix.transpose()).mul(0.5);
}

/** Applies f to the eigenvalues of a symmetric matrix. */
export function matrixFunction(matrix: Matrix, f: (eigenvalue: number) => number): Matrix {
  const { eigenvectorMatrix, realEigenvalues } = new EigenvalueDecomposition(matrix, { assumeSymmetric: true });
  return eigenvectorMatrix.mmul(Matrix.diag(realEigenvalues.map(f))).mmul(eigenvectorMatrix.transpose());
}

export function largestEigenvalue(matrix: Matrix): number {
  return Math.max(...new EigenvalueDecomposition(matrix, { assumeSymmetric: true }).realEigenvalues);
}

/** The nearest float32 numbers. */
export function rounded(matrix: Matrix): Matrix {
  return Matrix.from1DArray(matrix.rows, matrix.columns, [...Float32Array.from(matrix.to1DArray())]);
}

export function maxDifference(a: Matrix, b: Matrix): number {
  return Matrix.sub(a, b).abs().max();
}
