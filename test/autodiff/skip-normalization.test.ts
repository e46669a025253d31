import { describe, it } from "vitest";
import { float } from "../../src/onnx/attributes.js";
import { type CheckedInput, expectGradients } from "../support/gradient-check.js";

const whole: CheckedInput = { dims: [2, 3, 4] };
const row: CheckedInput = { dims: [4], known: true };
const attributes = { epsilon: float(1e-2) };

describe.each([
  ["SkipLayerNormalization", [whole, whole, row, row, row]],
  ["SkipSimplifiedLayerNormalization", [whole, whole, row, row]],
])("%s", (op, inputs: CheckedInput[]) => {
  const check = (checked: readonly CheckedInput[], used: readonly number[]) =>
    expectGradients({
      inputs: checked,
      build: (b, x) => {
        const outputs = b.node(op, x, { domain: "com.microsoft", attributes, outputs: ["y", "", "", "sum"] });
        return used.map((i) => outputs[i] as string);
      },
      precision: "float32",
      tolerance: 1e-3,
    });
  it("with every input", () => check(inputs, [0]));
  it("without a bias", () => check(inputs.slice(0, -1), [0]));
  it("with the sum, which goes on", () => check(inputs, [0, 3]));
  it("of which only the sum is used", () => check(inputs, [3]));
  it("of a matrix", () =>
    check(
      inputs.map(({ dims, known }) => ({ dims: dims.slice(-2), ...(known && { known }) })),
      [0, 3],
    ));
});
