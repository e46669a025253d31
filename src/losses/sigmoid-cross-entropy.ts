/** Sigmoid cross-entropy of logits with targets in [0, 1]: summed over everything but the batch, averaged over the batch. */
import { familyByName } from "../families/registry.js";
import type { Loss } from "./loss.js";

/** loss = 1/n Σ (softplus(x) − x·t); d loss / d x = (σ(x) − t) / n. */
export const sigmoidCrossEntropy: Loss = {
  name: "sigmoid-cross-entropy",
  targetName: "target",
  family: () => familyByName("bernoulli"),
  targetType: (type) => type,
  emit: (b, { output, target, batchSize }) => {
    const perElement = b.sub(b.op("Softplus", [output]), b.mul(output, target));
    const loss = b.div(b.reduceSum(perElement, undefined, false), batchSize);
    const activation = b.op("Sigmoid", [output]);
    return { loss, cotangent: b.div(b.sub(activation, target), batchSize), activation };
  },
};
