/** Recognising zeros, which exporters write out as the initial state of recurrent layers. */
import { attributeOf } from "../../onnx/attributes.js";
import { numbersOf } from "../../onnx/tensor.js";
import type { LoweringContext } from "./lowering.js";

/** Operators that only move the values of their first input. */
const MOVEMENT: ReadonlySet<string> = new Set(
  "Identity Cast Expand Tile Reshape Squeeze Unsqueeze Transpose Slice Gather Split Flatten".split(" "),
);

/** Whether a value is zero everywhere and in every run. Initializers may train, and so are not. */
export function isZero(name: string, context: Pick<LoweringContext, "producer" | "constantOf">): boolean {
  const node = context.producer(name);
  if (!node || node.domain) return false;
  if (node.opType === "ConstantOfShape") {
    const value = attributeOf(node, "value")?.t;
    return !value || numbersOf(value).every((number) => number === 0);
  }
  if (node.opType === "Constant") {
    const tensor = context.constantOf(name);
    return tensor !== undefined && numbersOf(tensor).every((number) => number === 0);
  }
  if (node.opType === "Concat") return node.input.every((input) => isZero(input, context));
  return MOVEMENT.has(node.opType ?? "") && isZero(node.input[0] ?? "", context);
}
