/**
 * SoftmaxCrossEntropyLoss and NegativeLogLikelihoodLoss inside the model: classes on axis 1, optional class weights,
 * ignored labels, and all three reductions.
 */
import { intOf, stringOf } from "../../onnx/attributes.js";
import { DataType } from "../../onnx/proto.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { dimension } from "../shapes.js";

export const softmaxCrossEntropyLoss: GradientRule = {
  opType: "SoftmaxCrossEntropyLoss",
  gradient: (c) => ({
    0: () => {
      const { b } = c;
      const logProbabilities = c.node.output[1];
      const p = logProbabilities ? b.exp(logProbabilities) : b.op("Softmax", [c.input(0)], { axis: 1 });
      const parts: string[] = [];
      if (c.cotangents[0]) {
        const rows = rowFactors(c);
        const hit = b.where(isLabel(c, rows.labels), b.sub(p, c.scalar(1, c.input(0))), p);
        parts.push(b.mul(hit, rows.factor));
      }
      const dLog = c.cotangents[1];
      if (dLog) parts.push(b.sub(dLog, b.mul(p, b.reduceSum(dLog, [1], true))));
      return parts.reduce((sum, part) => b.add(sum, part));
    },
  }),
};

export const negativeLogLikelihoodLoss: GradientRule = {
  opType: "NegativeLogLikelihoodLoss",
  gradient: (c) => ({
    0: () => {
      const rows = rowFactors(c);
      return c.b.where(isLabel(c, rows.labels), c.b.neg(rows.factor), c.scalar(0, c.input(0)));
    },
  }),
};

/** Whether the class along axis 1 is the label: a bool of the input's shape. int32, since WebGPU compares no int64. */
function isLabel(c: GradientContext, labels: string): string {
  const { b } = c;
  const ones = Array(c.rank(c.input(0)) - 2).fill(1);
  const known = c.shape(c.input(0))[1];
  const classes =
    typeof known === "number"
      ? b.i32([...Array(known).keys()], [1, known, ...ones])
      : b.reshape(range(c), [1, -1, ...ones]);
  return b.equal(b.unsqueeze(labels, [1]), classes);
}

/** 0, 1, … up to a number of classes that is known only at run time, as int32. */
function range(c: GradientContext): string {
  const { b } = c;
  const count = b.squeeze(b.cast(dimension(c, c.input(0), 1), DataType.INT32), [0]);
  return b.op("Range", [b.i32(0), count, b.i32(1)]);
}

/**
 * What every position's −log p is multiplied with on its way to the differentiated total, with axis 1 put in, and
 * the labels as int32. Ignored positions have factor zero.
 */
function rowFactors(c: GradientContext): { labels: string; factor: string } {
  const { b } = c;
  const type = c.elemType(c.input(0));
  const reduction = stringOf(c.node, "reduction", "mean");
  const ignored = intOf(c.node, "ignore_index");
  const labels = b.cast(c.input(1), DataType.INT32);
  const dy = c.cotangent(0);

  let weights: string | undefined;
  const isIgnored = ignored === undefined ? undefined : b.equal(labels, b.i32(ignored));
  if (c.hasInput(2)) {
    // An ignored label may lie outside the classes: look up class 0 in its place.
    weights = b.gather(c.input(2), isIgnored ? b.where(isIgnored, b.i32(0), labels) : labels);
  }
  if (isIgnored) {
    const zero = b.constant(type, 0);
    weights = b.where(isIgnored, zero, weights ?? b.constant(type, 1));
  }
  let factor: string;
  if (reduction === "none") factor = weights ? b.mul(dy, weights) : dy;
  else if (reduction === "sum") factor = weights ? b.mul(dy, weights) : dy;
  else if (weights) factor = b.mul(weights, b.div(dy, b.reduceSum(weights, undefined, false)));
  else factor = b.div(dy, positionCount(c));
  const perPosition = reduction === "none" || weights !== undefined;
  return { labels, factor: perPosition ? b.unsqueeze(factor, [1]) : factor };
}

/** The number of labels, as a scalar of the input's type. */
function positionCount(c: GradientContext): string {
  const shape = c.shape(c.input(1));
  if (shape.every((dim) => typeof dim === "number")) {
    return c.scalar(
      shape.reduce<number>((product, dim) => product * (dim as number), 1),
      c.input(0),
    );
  }
  return c.b.cast(c.b.op("Size", [c.input(1)]), c.elemType(c.input(0)));
}
