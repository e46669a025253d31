/**
 * BatchNormalization in training mode as primitives: CUDA's kernel throws at load and WebGPU's fails at run. With the
 * mean and the (biased) variance over all axes but the channels':
 *
 *     y = (x − mean)/√(var + ε) · scale + bias        running' = momentum · running + (1 − momentum) · batch
 */
import { FishyError } from "../../errors.js";
import { floatOf, intOf } from "../../onnx/attributes.js";
import type { Lowering } from "./lowering.js";

export const batchNormalization: Lowering = {
  opType: "BatchNormalization",
  lower(node, context) {
    if (intOf(node, "training_mode", 0) !== 1) return false;
    const { b, types } = context;
    const [x, scale, bias, runningMean, runningVariance] = node.input as [string, string, string, string, string];
    const type = types.get(x);
    const rank = type?.shape?.length;
    if (!type || rank === undefined || rank < 2) {
      throw new FishyError(
        `Node '${node.name || node.output[0]}' (BatchNormalization) normalises '${x}', whose rank is ${rank ?? "unknown"}; it has to be [batch, channels, …].`,
      );
    }
    const others = Array.from({ length: rank }, (_, axis) => axis).filter((axis) => axis !== 1);
    const spread = others.slice(1).map((_, i) => i + 1);
    const perChannel = (value: string) => (spread.length > 0 ? b.unsqueeze(value, spread) : value);
    const flat = (value: string) => b.squeeze(value, others);

    const mean = b.reduce("ReduceMean", x, others, true);
    const centred = b.sub(x, mean);
    const variance = b.reduce("ReduceMean", b.mul(centred, centred), others, true);
    const epsilon = b.constant(type.elemType, floatOf(node, "epsilon", 1e-5));
    const deviation = b.sqrt(b.add(variance, epsilon));
    const normalised = b.div(centred, deviation);
    b.node("Add", [b.mul(normalised, perChannel(scale)), perChannel(bias)], { outputs: [node.output[0] as string] });

    const momentum = floatOf(node, "momentum", 0.9);
    for (const [i, running, batch] of [
      [1, runningMean, mean],
      [2, runningVariance, variance],
    ] as const) {
      const kept = b.mul(running, b.constant(type.elemType, momentum));
      const next = b.add(kept, b.mul(flat(batch), b.constant(type.elemType, 1 - momentum)));
      const output = node.output[i];
      if (output && context.isUsed(output)) b.node("Identity", [next], { outputs: [output] });
      context.runningStatistic(running, next);
    }
    return true;
  },
};
