/** BatchNormalization with fixed statistics, and LayerNormalization. Training-mode batch normalisation is lowered before. */
import { floatOf, intOf } from "../../onnx/attributes.js";
import { reduceToShape } from "../broadcast.js";
import { type GradientRule, once } from "../rule.js";

/** y = (x − mean) / √(var + ε) · scale + bias, the parameters along axis 1. */
export const batchNormalization: GradientRule = {
  opType: "BatchNormalization",
  gradient: (c) => {
    if (intOf(c.node, "training_mode", 0) === 1) throw c.error("normalises by batch statistics and was not lowered");
    const { b } = c;
    const [x, scale, , mean, variance] = c.node.input as [string, string, string, string, string];
    const rank = c.rank(x);
    const others = Array.from({ length: rank }, (_, i) => i).filter((i) => i !== 1);
    const perChannel = (value: string) => (rank > 2 ? b.unsqueeze(value, others.slice(1).map((_, i) => i + 1)) : value);
    const sum = (value: string) => b.reduceSum(value, others, false);
    const inverse = once(() => {
      const epsilon = c.scalar(floatOf(c.node, "epsilon", 1e-5), variance);
      return b.op("Reciprocal", [b.sqrt(b.add(variance, epsilon))]);
    });
    const total = once(() => sum(c.cotangent()));
    // Σ dy·(x − mean): what the scale and the variance see.
    const projection = once(() => sum(b.mul(c.cotangent(), b.sub(x, perChannel(mean)))));
    return {
      0: () => b.mul(c.cotangent(), perChannel(b.mul(scale, inverse()))),
      1: () => b.mul(projection(), inverse()),
      2: () => total(),
      3: () => b.neg(b.mul(total(), b.mul(scale, inverse()))),
      4: () => {
        const cube = b.mul(b.mul(inverse(), inverse()), inverse());
        return b.mul(b.mul(projection(), b.mul(scale, cube)), c.scalar(-0.5, variance));
      },
    };
  },
};

/**
 * y = x̂ · scale + bias, x̂ = (x − mean)/σ over the axes from `axis` on.
 * dx = (g − mean(g) − x̂·mean(g·x̂)) / σ with g = dy·scale.
 */
export const layerNormalization: GradientRule = {
  opType: "LayerNormalization",
  gradient: (c) => {
    if (c.cotangents.slice(1).some(Boolean)) throw c.error("has a gradient through its Mean or InvStdDev output, which is not known");
    const { b } = c;
    const [x, scale, bias] = c.node.input as [string, string, string?];
    const first = c.axis(intOf(c.node, "axis", -1), x);
    const axes = Array.from({ length: c.rank(x) - first }, (_, i) => first + i);
    const mean = (value: string) => b.reduce("ReduceMean", value, axes, true);
    const centred = once(() => b.sub(x, mean(x)));
    const inverse = once(() => {
      const variance = mean(b.mul(centred(), centred()));
      return b.op("Reciprocal", [b.sqrt(b.add(variance, c.scalar(floatOf(c.node, "epsilon", 1e-5), x)))]);
    });
    const normalised = once(() => b.mul(centred(), inverse()));
    return {
      0: () => {
        const g = b.mul(c.cotangent(), scale);
        const along = b.mul(normalised(), mean(b.mul(g, normalised())));
        return b.mul(b.sub(b.sub(g, mean(g)), along), inverse());
      },
      1: () => reduceToShape(c, b.mul(c.cotangent(), normalised()), scale, c.output()),
      2: () => reduceToShape(c, c.cotangent(), bias as string, c.output()),
    };
  },
};
