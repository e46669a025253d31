/** Every loss that can be appended to a model. A new loss is one import and one entry here. */
import { UsageError } from "../errors.js";
import { type AppendedLossName, LOSS_NAMES, type Loss } from "./loss.js";
import { meanSquaredError } from "./mean-squared-error.js";
import { sigmoidCrossEntropy } from "./sigmoid-cross-entropy.js";
import { softmaxCrossEntropy } from "./softmax-cross-entropy.js";

export const LOSSES: readonly Loss[] = [softmaxCrossEntropy, sigmoidCrossEntropy, meanSquaredError];

/** @throws UsageError for a name that is not in the list. */
export function lossByName(name: AppendedLossName): Loss {
  const loss = LOSSES.find((candidate) => candidate.name === name);
  if (!loss) throw new UsageError(`No loss is named '${name}': take one of ${LOSS_NAMES.join(", ")}.`);
  return loss;
}
