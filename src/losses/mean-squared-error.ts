/** Squared error, averaged over all elements. */
import { familyByName } from "../families/registry.js";
import { DataType } from "../onnx/proto.js";
import type { Loss } from "./loss.js";

/** loss = mean((x − t)²); d loss / d x = 2 (x − t) / elements. */
export const meanSquaredError: Loss = {
  name: "mean-squared-error",
  targetName: "target",
  family: () => familyByName("gaussian"),
  targetType: (type) => type,
  emit: (b, { output, target }) => {
    const difference = b.sub(output, target);
    const loss = b.reduce("ReduceMean", b.mul(difference, difference), undefined, false);
    const elements = b.cast(b.op("Size", [output]), DataType.FLOAT);
    return { loss, cotangent: b.mul(difference, b.div(b.f32(2), elements)) };
  },
};
