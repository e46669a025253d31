/** Every loss that can be appended to a model. A new loss is one import and one entry here. */
import type { AppendedLossName, Loss } from "./loss.js";
import { meanSquaredError } from "./mean-squared-error.js";
import { sigmoidCrossEntropy } from "./sigmoid-cross-entropy.js";
import { softmaxCrossEntropy } from "./softmax-cross-entropy.js";

export const LOSSES: readonly Loss[] = [softmaxCrossEntropy, sigmoidCrossEntropy, meanSquaredError];

export function lossByName(name: AppendedLossName): Loss {
  const loss = LOSSES.find((candidate) => candidate.name === name);
  if (!loss) throw new Error(`no loss is named '${name}'`);
  return loss;
}
