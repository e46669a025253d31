/** ONNX Runtime's fusions of a residual connection with the normalisation after it. */
import { floatOf } from "../../onnx/attributes.js";
import { reduceToShape } from "../broadcast.js";
import { type GradientRule, once } from "../rule.js";
import { normalised, rootMeanSquareNormalised, throughNormalisation, throughRootMeanSquare } from "./normalised.js";

interface Kind {
  readonly opType: string;
  /** Where scale, shift and bias stand among the inputs; both of the latter may be left out. */
  readonly scale: number;
  readonly shift?: number;
  readonly bias: number;
  readonly normalise: typeof normalised;
  readonly through: typeof throughNormalisation;
}

/** y = normalise(s)·scale + shift with s = input + skip + bias, which is output 3 where it is asked for. */
function skipNormalization({ opType, scale, shift, bias, normalise, through }: Kind): GradientRule {
  return {
    opType,
    domain: "com.microsoft",
    notes: "the outputs mean and inv_std_var are not differentiated",
    gradient: (c) => {
      if (c.cotangents[1] || c.cotangents[2]) throw c.error("has a loss that depends on its mean or deviation output");
      const { b } = c;
      const [dy, throughSum] = [c.cotangents[0], c.cotangents[3]];
      const axes = [c.rank(c.input(0)) - 1];
      const xHat = once(() => {
        const residual = () => b.add(c.input(0), c.input(1));
        const sum = c.node.output[3] || (c.hasInput(bias) ? b.add(residual(), c.input(bias)) : residual());
        return normalise(c, sum, axes, floatOf(c.node, "epsilon", 1e-12));
      });
      const dSum = once(() => {
        if (!dy) return c.cotangent(3);
        const normalisedPart = through(c, b.mul(dy, c.input(scale)), xHat(), axes);
        return throughSum ? b.add(normalisedPart, throughSum) : normalisedPart;
      });
      const to = (i: number, cotangent: string) => reduceToShape(c, cotangent, c.input(i), c.output());
      return {
        0: () => to(0, dSum()),
        1: () => to(1, dSum()),
        [bias]: () => to(bias, dSum()),
        ...(dy && { [scale]: () => to(scale, b.mul(dy, xHat().value)) }),
        ...(dy && shift !== undefined && { [shift]: () => to(shift, dy) }),
      };
    },
  };
}

export const skipLayerNormalization = skipNormalization({
  opType: "SkipLayerNormalization",
  scale: 2,
  shift: 3,
  bias: 4,
  normalise: normalised,
  through: throughNormalisation,
});

export const skipSimplifiedLayerNormalization = skipNormalization({
  opType: "SkipSimplifiedLayerNormalization",
  scale: 2,
  bias: 3,
  normalise: rootMeanSquareNormalised,
  through: throughRootMeanSquare,
});
