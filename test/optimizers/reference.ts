/**
 * Shampoo of one matrix, in float64 with eigendecompositions, written from the papers and independent of the code under
 * test. Slow and plain on purpose.
 */
import { Matrix } from "ml-matrix";
import { largestEigenvalue, matrixFunction } from "./matrices.js";

export interface ReferenceOptions {
  lr: number;
  beta2: number;
  init: number;
  correctStatistics: boolean;
  epsilon: number;
  exponent: number;
  /** Where rows and columns are cut, such as [[0, 3], [3, 5]]. */
  rows: [number, number][];
  columns: [number, number][];
  sides: "all" | "leading" | "last";
  isStatisticsStep: (step: number) => boolean;
  isRootStep: (step: number) => boolean;
  startStep: number;
  graft:
    | "none"
    | "sgd"
    | "sgd-normalized"
    | "adagrad"
    | "adagrad-normalized"
    | "rmsprop"
    | "rmsprop-normalized"
    | "adam"
    | "sqrt-n";
  graftBeta2: number;
  graftEpsilon: number;
  graftPerBlock: boolean;
  momentum: number;
  ema: boolean;
  correctMomentum: boolean;
  momentumFirst: boolean;
  nesterov: boolean;
  decay: number;
  decayKind: "l2" | "coupled" | "decoupled" | "independent";
}

export class ReferenceShampoo {
  private steps = 0;
  private updates = 0;
  private readonly left: Matrix[][];
  private readonly right: Matrix[][];
  private readonly leftRoot: Matrix[][];
  private readonly rightRoot: Matrix[][];
  private moment: Matrix;
  private buffer: Matrix;

  constructor(
    readonly o: ReferenceOptions,
    public theta: Matrix,
  ) {
    const grid = (size: (r: [number, number], c: [number, number]) => number, value: number) =>
      o.rows.map((r) => o.columns.map((c) => Matrix.eye(size(r, c)).mul(value)));
    this.left = grid(([a, b]) => b - a, o.init);
    this.right = grid((_, [a, b]) => b - a, o.init);
    this.leftRoot = grid(([a, b]) => b - a, 1);
    this.rightRoot = grid((_, [a, b]) => b - a, 1);
    this.moment = Matrix.zeros(theta.rows, theta.columns);
    this.buffer = Matrix.zeros(theta.rows, theta.columns);
  }

  step(trueGradient: Matrix, statisticsGradient = trueGradient): void {
    const o = this.o;
    const t = ++this.steps;
    let g = trueGradient;
    if (o.decayKind === "l2") {
      g = Matrix.add(g, Matrix.mul(this.theta, o.decay));
      if (statisticsGradient === trueGradient) statisticsGradient = g;
    }
    if (o.isStatisticsStep(t)) this.updateStatistics(statisticsGradient);
    if (o.isRootStep(t)) this.updateRoots();

    let numerator = g;
    let scale = 1;
    if (o.momentum > 0 && o.momentumFirst) ({ output: numerator, scale } = this.average(g));
    const graft = this.graft(g, Matrix.mul(numerator, scale));
    let step = graft;
    if (t >= o.startStep) step = this.withLength(this.precondition(Matrix.mul(numerator, scale)), graft);
    if (o.decayKind === "coupled") step = Matrix.add(step, Matrix.mul(this.theta, o.decay));
    if (o.momentum > 0 && !o.momentumFirst) {
      const { output, scale: factor } = this.average(step);
      step = Matrix.mul(output, factor);
    }
    if (o.decayKind === "decoupled") step = Matrix.add(step, Matrix.mul(this.theta, o.decay));
    if (o.decayKind === "independent") step = Matrix.add(step, Matrix.mul(this.theta, o.decay / o.lr));
    this.theta = Matrix.sub(this.theta, Matrix.mul(step, o.lr));
  }

  private average(x: Matrix): { output: Matrix; scale: number } {
    const { momentum: beta, ema, correctMomentum, nesterov } = this.o;
    const weight = ema ? 1 - beta : 1;
    this.buffer = Matrix.add(Matrix.mul(this.buffer, beta), Matrix.mul(x, weight));
    const output = nesterov ? Matrix.add(Matrix.mul(this.buffer, beta), Matrix.mul(x, weight)) : this.buffer;
    if (!ema || !correctMomentum) return { output, scale: 1 };
    // The weights of all gradients so far.
    let total = 0;
    for (let age = 0; age < this.steps; age++) total += weight * beta ** age;
    if (nesterov) total = beta * total + weight;
    return { output, scale: 1 / total };
  }

  private updateStatistics(g: Matrix): void {
    const { beta2 } = this.o;
    const weight = beta2 === 1 ? 1 : 1 - beta2;
    this.updates++;
    this.eachBlock(g, (block, i, j) => {
      const gram = (a: Matrix, b: Matrix) => Matrix.mul(a.mmul(b), weight);
      const l = (this.left[i] as Matrix[])[j] as Matrix;
      const r = (this.right[i] as Matrix[])[j] as Matrix;
      (this.left[i] as Matrix[])[j] = Matrix.add(Matrix.mul(l, beta2), gram(block, block.transpose()));
      (this.right[i] as Matrix[])[j] = Matrix.add(Matrix.mul(r, beta2), gram(block.transpose(), block));
    });
  }

  private updateRoots(): void {
    const { beta2, correctStatistics, epsilon, exponent } = this.o;
    const correction = correctStatistics && beta2 < 1 ? 1 - beta2 ** this.updates : 1;
    const root = (s: Matrix, before: Matrix) => {
      const corrected = Matrix.mul(s, 1 / correction);
      const top = largestEigenvalue(corrected);
      return top > 0 ? matrixFunction(corrected, (x) => (x + epsilon * top) ** (-1 / exponent)) : before;
    };
    for (const [i, row] of this.left.entries()) {
      for (const j of row.keys()) {
        (this.leftRoot[i] as Matrix[])[j] = root(
          (this.left[i] as Matrix[])[j] as Matrix,
          (this.leftRoot[i] as Matrix[])[j] as Matrix,
        );
        (this.rightRoot[i] as Matrix[])[j] = root(
          (this.right[i] as Matrix[])[j] as Matrix,
          (this.rightRoot[i] as Matrix[])[j] as Matrix,
        );
      }
    }
  }

  private graft(g: Matrix, numerator: Matrix): Matrix {
    const { graft, graftBeta2: beta, graftEpsilon: epsilon } = this.o;
    if (graft === "none" || graft === "sgd") return numerator;
    if (graft === "sgd-normalized") return Matrix.mul(numerator, 1 / numerator.norm("frobenius"));
    if (graft === "sqrt-n") return numerator.clone().sign();
    const normalized = (x: Matrix) => (graft.endsWith("normalized") ? Matrix.mul(x, 1 / x.norm("frobenius")) : x);
    const sums = graft.startsWith("adagrad");
    this.moment = Matrix.add(
      Matrix.mul(this.moment, sums ? 1 : beta),
      Matrix.mul(Matrix.pow(normalized(g), 2), sums ? 1 : 1 - beta),
    );
    const correction = graft === "adam" ? 1 - beta ** this.steps : 1;
    const root = Matrix.sqrt(Matrix.mul(this.moment, 1 / correction));
    return Matrix.div(normalized(numerator), Matrix.add(root, epsilon));
  }

  private precondition(g: Matrix): Matrix {
    const result = Matrix.zeros(g.rows, g.columns);
    this.eachBlock(g, (block, i, j, r, c) => {
      let out = block;
      if (this.o.sides !== "last") out = ((this.leftRoot[i] as Matrix[])[j] as Matrix).mmul(out);
      if (this.o.sides !== "leading") out = out.mmul((this.rightRoot[i] as Matrix[])[j] as Matrix);
      result.setSubMatrix(out, r[0], c[0]);
    });
    return result;
  }

  private withLength(direction: Matrix, graft: Matrix): Matrix {
    if (this.o.graft === "none") return direction;
    const matched = (a: Matrix, b: Matrix) => {
      const length = a.norm("frobenius");
      return length === 0 ? a : Matrix.mul(a, b.norm("frobenius") / length);
    };
    if (!this.o.graftPerBlock) return matched(direction, graft);
    const result = Matrix.zeros(direction.rows, direction.columns);
    this.eachBlock(direction, (block, _i, _j, r, c) => {
      const other = graft.subMatrix(r[0], r[1] - 1, c[0], c[1] - 1);
      result.setSubMatrix(matched(block, other), r[0], c[0]);
    });
    return result;
  }

  private eachBlock(
    matrix: Matrix,
    visit: (block: Matrix, i: number, j: number, rows: [number, number], columns: [number, number]) => void,
  ): void {
    for (const [i, r] of this.o.rows.entries()) {
      for (const [j, c] of this.o.columns.entries()) {
        visit(matrix.subMatrix(r[0], r[1] - 1, c[0], c[1] - 1), i, j, r, c);
      }
    }
  }
}
