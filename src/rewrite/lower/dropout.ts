/**
 * Dropout in training mode: y = x · mask, the mask from the program's counter-based generator. ONNX Runtime's own
 * Dropout draws from a state that can be neither read nor restored.
 */
import { dropoutMask } from "../../families/random.js";
import { numbersOf } from "../../onnx/tensor.js";
import type { Lowering } from "./lowering.js";

/** ONNX's default when the ratio input is left out. */
const DEFAULT_RATIO = 0.5;

export const dropout: Lowering = {
  opType: "Dropout",
  lower(node, { b, constantOf, isUsed, random }) {
    const [x, ratioName, modeName] = node.input as [string, string?, string?];
    const [y, maskName] = node.output as [string, string?];
    const mode = modeName ? constantOf(modeName) : undefined;
    const training = mode ? numbersOf(mode)[0] === 1 : false;
    const ratioTensor = ratioName ? constantOf(ratioName) : undefined;
    const ratio = ratioTensor ? (numbersOf(ratioTensor)[0] as number) : DEFAULT_RATIO;
    // A mode or ratio that is computed, or a mask that something reads, stays with the runtime's operator.
    if ((modeName && !mode) || (ratioName && !ratioTensor) || (maskName && isUsed(maskName))) return false;
    if (!training || ratio === 0) {
      b.node("Identity", [x], { outputs: [y] });
      return true;
    }
    b.node("Mul", [x, dropoutMask(b, random(), x, ratio)], { outputs: [y] });
    return true;
  },
};
