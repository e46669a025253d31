/** Whether a checkpoint's optimizer state belongs to its parameters, whatever its format. */
import { dataTypeName, dimsOf } from "../onnx/tensor.js";
import type { TrainingCheckpoint } from "./checkpoint.js";

/** What is wrong, or undefined. Every parameter of a group has the same moments, of its own shape and type. */
export function checkMoments(
  checkpoint: Pick<TrainingCheckpoint, "trainable" | "optimizerGroups" | "nominal">,
): string | undefined {
  const { trainable, optimizerGroups, nominal } = checkpoint;
  const names = new Set<string>();
  const covered = new Set<string>();
  for (const group of optimizerGroups) {
    if (names.has(group.name)) return `the optimizer group '${group.name}' is there twice`;
    names.add(group.name);
    let kinds: string | undefined;
    for (const [parameter, moments] of group.moments) {
      const owner = trainable.get(parameter);
      if (!owner) return `it holds optimizer state of '${parameter}', which is no trainable parameter of it`;
      if (covered.has(parameter)) return `two optimizer groups hold state of '${parameter}'`;
      covered.add(parameter);
      const own = [...moments.keys()].sort().join(", ");
      kinds ??= own;
      if (own !== kinds) return `'${parameter}' has the moments [${own}] and other parameters [${kinds}]`;
      if (nominal) continue;
      for (const [kind, moment] of moments) {
        if (dimsOf(moment).join() !== dimsOf(owner).join() || moment.dataType !== owner.dataType) {
          const [found, wanted] = [moment, owner].map(
            (tensor) => `${dataTypeName(tensor.dataType ?? 0)} [${dimsOf(tensor).join(", ")}]`,
          );
          return `${kind} of '${parameter}' is ${found}, and the parameter ${wanted}`;
        }
      }
    }
  }
  const missing = [...trainable.keys()].find((parameter) => !covered.has(parameter));
  if (covered.size > 0 && missing !== undefined) return `it lacks the optimizer state of '${missing}'`;
  return undefined;
}
