/**
 * BatchNormalization in training mode, which fails on CUDA and WebGPU: the batch's statistics as primitives, then the
 * operator's inference form. The gradient rule knows the pattern. Running statistics follow ONNX's definition, with
 * the population variance: next = running · momentum + batch · (1 − momentum).
 */

import { FishyError } from "../../errors.js";
import { float, floatOf, intOf } from "../../onnx/attributes.js";
import type { Lowering } from "./lowering.js";

export const batchNormalization: Lowering = {
  opType: "BatchNormalization",
  lower(node, { b, types, isUsed, runningStatistic }) {
    if (intOf(node, "training_mode", 0) !== 1) return false;
    const [x, scale, bias, runningMean, runningVariance] = node.input as [string, string, string, string, string];
    const [y, nextMean, nextVariance] = node.output as [string, string?, string?];
    const type = types.get(x);
    const rank = type?.shape?.length;
    if (!type || rank === undefined || rank < 2) {
      throw new FishyError(
        `Node '${node.name || y}' (BatchNormalization) normalises '${x}', whose rank is ${rank ?? "unknown"}; it has to be [batch, channels, …].`,
      );
    }
    const { elemType } = type;
    const axes = Array.from({ length: rank }, (_, axis) => axis).filter((axis) => axis !== 1);
    const mean = b.reduce("ReduceMean", x, axes, true);
    const centred = b.sub(x, mean);
    const variance = b.reduce("ReduceMean", b.mul(centred, centred), axes, true);
    const perChannel = { mean: b.reshape(mean, [-1]), variance: b.reshape(variance, [-1]) };
    b.node("BatchNormalization", [x, scale, bias, perChannel.mean, perChannel.variance], {
      outputs: [y],
      attributes: { epsilon: float(floatOf(node, "epsilon", 1e-5)) },
    });

    const momentum = floatOf(node, "momentum", 0.9);
    const statistics = [
      { running: runningMean, batch: perChannel.mean, output: nextMean },
      { running: runningVariance, batch: perChannel.variance, output: nextVariance },
    ];
    for (const { running, batch, output } of statistics) {
      const kept = b.mul(running, b.constant(elemType, momentum));
      const next = b.add(kept, b.mul(batch, b.constant(elemType, 1 - momentum)));
      if (output && isUsed(output)) b.node("Identity", [next], { outputs: [output] });
      runningStatistic(running, next);
    }
    return true;
  },
};
