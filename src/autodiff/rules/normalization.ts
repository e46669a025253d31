/** Normalisations over axes of one example. */
import { float, floatOf, intOf, intsOf } from "../../onnx/attributes.js";
import { DataType } from "../../onnx/proto.js";
import { reduceToShape } from "../broadcast.js";
import { type GradientRule, once } from "../rule.js";
import { elementsPer, reshapeLike, shapeOf } from "../shapes.js";
import { sign, unary } from "./elementary.js";
import {
  type Normalised,
  normalised,
  rootMeanSquareNormalised,
  throughNormalisation,
  throughRootMeanSquare,
} from "./normalised.js";

export const layerNormalization: GradientRule = {
  opType: "LayerNormalization",
  notes: "the outputs Mean and InvStdDev are not differentiated",
  gradient: (c) => {
    if (c.cotangents[1] || c.cotangents[2]) throw c.error("has a loss that depends on its mean or deviation output");
    const { b } = c;
    const [x, scale] = [c.input(0), c.input(1)];
    const first = c.axis(intOf(c.node, "axis", -1), x);
    const axes = [...Array(c.rank(x)).keys()].slice(first);
    // The operator itself, with a scale of one, gives x̂ and 1/σ in one pass.
    const xHat = once((): Normalised => {
      const ones = b.expand(c.scalar(1, scale), shapeOf(c, scale));
      const attributes = { axis: first, epsilon: float(floatOf(c.node, "epsilon", 1e-5)) };
      const [value, , inverse] = b.node("LayerNormalization", [x, ones], { outputs: 3, attributes });
      const type = c.elemType(x);
      return {
        value: value as string,
        inverse: type === DataType.FLOAT ? (inverse as string) : b.cast(inverse as string, type),
      };
    });
    return {
      0: () => throughNormalisation(c, b.mul(c.cotangent(), scale), xHat(), axes),
      1: () => reduceToShape(c, b.mul(c.cotangent(), xHat().value), scale, x),
      2: () => reduceToShape(c, c.cotangent(), c.input(2), x),
    };
  },
};

/** y = scale · x/√(mean(x²) + ε) (opset 23, and ONNX Runtime's SimplifiedLayerNormalization). */
function rootMeanSquare(opType: string): GradientRule {
  return {
    opType,
    gradient: (c) => {
      const { b } = c;
      const [x, scale] = [c.input(0), c.input(1)];
      if (c.cotangents[1]) throw c.error("has a loss that depends on its deviation output");
      const axes = [...Array(c.rank(x)).keys()].slice(c.axis(intOf(c.node, "axis", -1), x));
      const xHat = once(() => rootMeanSquareNormalised(c, x, axes, floatOf(c.node, "epsilon", 1e-5)));
      return {
        0: () => throughRootMeanSquare(c, b.mul(c.cotangent(), scale), xHat(), axes),
        1: () => reduceToShape(c, b.mul(c.cotangent(), xHat().value), scale, x),
      };
    },
  };
}

export const rmsNormalization = rootMeanSquare("RMSNormalization");
export const simplifiedLayerNormalization = rootMeanSquare("SimplifiedLayerNormalization");

/**
 * With the two sums of an instance, Σdy and Σ(dy ⊙ x̂), that the gradients of scale and bias need as well. By primitives:
 * ONNX Runtime's LayerNormalization takes the variance as E[x²] − E[x]², which an image far from zero does not survive.
 */
export const instanceNormalization: GradientRule = {
  opType: "InstanceNormalization",
  gradient: (c) => {
    const { b } = c;
    const x = c.input(0);
    const rows = (value: string) => b.reshape(value, [0, 0, -1]);
    const xHat = once(() => normalised(c, rows(x), [2], floatOf(c.node, "epsilon", 1e-5)));
    const dy = once(() => rows(c.cotangent()));
    const sum = once(() => b.reduceSum(dy(), [2], true));
    const along = once(() => b.reduceSum(b.mul(dy(), xHat().value), [2], true));
    return {
      0: () => {
        const spatial = [...Array(c.rank(x)).keys()].slice(2);
        const count = elementsPer(c, x, sum(), spatial);
        const centred = b.sub(dy(), b.div(sum(), count));
        const projected = b.sub(centred, b.mul(xHat().value, b.div(along(), count)));
        return reshapeLike(c, b.mul(projected, b.mul(xHat().inverse, b.unsqueeze(c.input(1), [1]))), x);
      },
      1: () => b.reduceSum(along(), [0, 2], false),
      2: () => b.reduceSum(sum(), [0, 2], false),
    };
  },
};

/** Scale and bias are one for each group (opset 18) or for each channel (21). */
export const groupNormalization: GradientRule = {
  opType: "GroupNormalization",
  gradient: (c) => {
    const { b } = c;
    const x = c.input(0);
    const groups = intOf(c.node, "num_groups") as number;
    const [channels, scales] = [c.shape(x)[1], c.shape(c.input(1))[0]];
    if (typeof channels !== "number" || typeof scales !== "number") throw c.error("has an unknown number of channels");
    const grouped = (value: string) => b.op("Reshape", [value, b.i64([0, groups, channels / groups, -1])]);
    const xHat = once(() => normalised(c, grouped(x), [2, 3], floatOf(c.node, "epsilon", 1e-5)));
    const dy = once(() => grouped(c.cotangent()));
    const perGroup = scales !== channels;
    const others = perGroup ? [0, 2, 3] : [0, 3];
    const flat = (value: string) => b.reshape(value, [scales]);
    return {
      0: () => {
        const scale = b.reshape(c.input(1), perGroup ? [groups, 1, 1] : [groups, channels / groups, 1]);
        return reshapeLike(c, throughNormalisation(c, b.mul(dy(), scale), xHat(), [2, 3]), x);
      },
      1: () => flat(b.reduceSum(b.mul(dy(), xHat().value), others, false)),
      2: () => flat(b.reduceSum(dy(), others, false)),
    };
  },
};

/** ε = 10⁻⁹ stands outside the root in the operator's definition, which no float32 deviation can tell from inside. */
export const meanVarianceNormalization = unary("MeanVarianceNormalization", (c, dy) => {
  const axes = intsOf(c.node, "axes") ?? [0, 2, 3];
  return throughNormalisation(c, dy, normalised(c, c.input(0), axes, 1e-18), axes);
});

/** y = x·D^(−β), D = bias + α/size · (sum of x² over `size` channels around). */
export const lrn = unary("LRN", (c, dy) => {
  const { b } = c;
  const [x, y] = [c.input(0), c.output()];
  const channels = c.shape(x)[1];
  if (typeof channels !== "number") throw c.error("has a number of channels known only at run time");
  const size = intOf(c.node, "size") as number;
  const alpha = floatOf(c.node, "alpha", 1e-4);
  const beta = floatOf(c.node, "beta", 0.75);
  const [before, after] = [Math.floor((size - 1) / 2), Math.ceil((size - 1) / 2)];
  /** The mean over `size` channels (padding counts), from `front` channels before on. */
  const mean = (value: string, front: number, back: number) => {
    const rows = b.op("Reshape", [value, b.i64([0, 1, channels, -1])]);
    const attributes = { kernel_shape: [size, 1], pads: [front, 0, back, 0], count_include_pad: 1 };
    return reshapeLike(c, b.op("AveragePool", [rows], attributes), x);
  };
  const squares = mean(b.mul(x, x), before, after);
  const denominator = b.add(b.mul(squares, c.scalar(alpha, x)), c.scalar(floatOf(c.node, "bias", 1), x));
  // A channel feels the windows that it lies in: the same window, mirrored.
  const felt = mean(b.div(b.mul(dy, y), denominator), after, before);
  const direct = b.mul(dy, b.pow(denominator, c.scalar(-beta, x)));
  return b.sub(direct, b.mul(b.mul(x, felt), c.scalar(2 * alpha * beta, x)));
});

/** y = x/‖x‖ₚ along one axis, p = 1 or 2: dx = (dy − s·Σ(dy ⊙ y))/‖x‖ₚ, with s the norm's own gradient. */
export const lpNormalization = unary("LpNormalization", (c, dy) => {
  const { b } = c;
  const [x, y] = [c.input(0), c.output()];
  const axes = [intOf(c.node, "axis", -1)];
  const isL1 = intOf(c.node, "p", 2) === 1;
  const norm = b.reduce(isL1 ? "ReduceL1" : "ReduceL2", x, axes, true);
  const slope = isL1 ? sign(c, x) : y;
  const projected = b.sub(dy, b.mul(slope, b.reduceSum(b.mul(dy, y), axes, true)));
  // A vector of zeros stays zero: it has no direction and gets no gradient.
  const zero = c.scalar(0, x);
  const isZero = b.equal(norm, zero);
  return b.mul(projected, b.where(isZero, zero, b.op("Reciprocal", [b.where(isZero, c.scalar(1, x), norm)])));
});
