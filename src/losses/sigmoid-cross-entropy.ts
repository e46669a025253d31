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
    // softplus(x) = max(x, 0) − log σ(|x|). On 2 cores ONNX Runtime's Softplus takes 30 ns an element, this 2.5.
    const softplus = b.sub(b.op("Relu", [output]), b.log(b.op("Sigmoid", [b.abs(output)])));
    const perElement = b.sub(softplus, b.mul(output, target));
    const loss = b.div(b.reduceSum(perElement, undefined, false), batchSize);
    const activation = b.op("Sigmoid", [output]);
    return { loss, cotangent: b.div(b.sub(activation, target), batchSize), activation };
  },
};
