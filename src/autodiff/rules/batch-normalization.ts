/** BatchNormalization with given statistics: frozen, or lowered from training mode (`rewrite/lower/batch-normalization.ts`). */
import { floatOf, intOf } from "../../onnx/attributes.js";
import type { NodeProto } from "../../onnx/proto.js";
import { type GradientContext, type GradientRule, once } from "../rule.js";
import { elementsPer } from "../shapes.js";

export const batchNormalization: GradientRule = {
  opType: "BatchNormalization",
  notes: "training mode is lowered first",
  gradient: (c) => {
    if (intOf(c.node, "training_mode", 0) === 1) {
      throw c.error("is in training mode; lower the graph before differentiating it, as fishy's rewriter does");
    }
    const { b } = c;
    const [x, scale, mean, variance] = [c.input(0), c.input(1), c.input(3), c.input(4)];
    const dy = c.cotangent();
    const rank = c.rank(x);
    const others = [...Array(rank).keys()].filter((axis) => axis !== 1);
    const channels = (value: string) => b.reshape(value, [-1, ...Array(rank - 2).fill(1)]);
    const batch = batchCentred(c);

    const inverse = once(() => {
      const epsilon = c.scalar(floatOf(c.node, "epsilon", 1e-5), variance);
      return b.op("Reciprocal", [b.sqrt(b.add(variance, epsilon))]);
    });
    const slope = once(() => b.mul(scale, inverse()));
    const centred = once(() => batch ?? b.sub(x, channels(mean)));
    const sum = once(() => b.reduceSum(dy, others, false));
    const weightedSum = once(() => b.reduceSum(b.mul(dy, centred()), others, false));
    // Per channel: slope · weightedSum / (variance + ε).
    const curvature = once(() => b.mul(b.mul(slope(), weightedSum()), b.mul(inverse(), inverse())));

    return {
      0: () => {
        const direct = b.mul(dy, channels(slope()));
        if (!batch) return direct;
        // The statistics are of this batch: what flows through them is added here, in closed form.
        const count = elementsPer(c, x, scale, others);
        const throughVariance = b.mul(centred(), channels(b.div(curvature(), count)));
        const throughMean = channels(b.div(b.mul(slope(), sum()), count));
        return b.sub(b.sub(direct, throughVariance), throughMean);
      },
      1: () => b.mul(weightedSum(), inverse()),
      2: () => sum(),
      ...(!batch && {
        3: () => b.neg(b.mul(slope(), sum())),
        4: () => b.mul(curvature(), c.scalar(-0.5, x)),
      }),
    };
  },
};

/** x − mean when mean and variance are those of the input itself, as lowering writes them; undefined otherwise. */
function batchCentred(c: GradientContext): string | undefined {
  const x = c.input(0);
  const maker = (name: string | undefined, opType: string): NodeProto | undefined => {
    const node = name ? c.producer(name) : undefined;
    return node?.opType === opType && !node.domain ? node : undefined;
  };
  const average = (statistic: string) => {
    const node = maker(maker(statistic, "Reshape")?.input[0], "ReduceMean");
    const axes = node?.input[1] ? c.constantOf(node.input[1]) : undefined;
    const allButChannels = axes?.length === c.rank(x) - 1 && !axes.some((axis) => c.axis(axis, x) === 1);
    return allButChannels ? node : undefined;
  };
  const mean = average(c.input(3));
  const variance = average(c.input(4));
  if (!mean || !variance || mean.input[0] !== x) return undefined;
  const square = maker(variance.input[0], "Mul");
  const difference = maker(square?.input[0], "Sub");
  const isSquare = square?.input[0] === square?.input[1];
  const isCentred = difference?.input[0] === x && difference.input[1] === mean.output[0];
  return isSquare && isCentred ? difference?.output[0] : undefined;
}
