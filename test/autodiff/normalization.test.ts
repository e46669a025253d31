import { describe, it } from "vitest";
import { float } from "../../src/onnx/attributes.js";
import { expectGradients } from "../support/gradient-check.js";

describe("BatchNormalization with fixed statistics", () => {
  it.each([[[4, 3]], [[2, 3, 5]], [[2, 3, 4, 2]], [[1, 2, 2, 3, 2]]])("of %j", (dims) => {
    const channels = [dims[1] as number];
    return expectGradients({
      inputs: [
        { dims },
        { dims: channels, known: true },
        { dims: channels, known: true },
        { dims: channels, known: true },
        { dims: channels, range: [0.5, 2], known: true },
      ],
      build: (b, x) => b.op("BatchNormalization", x, { epsilon: float(0.01) }),
      tolerance: 1e-6,
    });
  });
});

describe("LayerNormalization", () => {
  it.each([
    [[3, 5], -1],
    [[2, 3, 4], -1],
    [[2, 3, 4], 1],
    [[2, 3, 4], -2],
    [[2, 1, 4, 3], 2],
  ])("of %j over the axes from %i", (dims, axis) => {
    const scale = dims.slice(axis < 0 ? axis + dims.length : axis);
    return expectGradients({
      inputs: [{ dims }, { dims: scale, known: true }, { dims: scale, known: true }],
      build: (b, x) => b.op("LayerNormalization", x, { axis, epsilon: float(1e-3) }),
      tolerance: 1e-6,
    });
  });

  it("without a bias, and with a scale that broadcasts", async () => {
    const build = (b: Parameters<Parameters<typeof expectGradients>[0]["build"]>[0], x: readonly string[]) =>
      b.op("LayerNormalization", x, { axis: 1 });
    await expectGradients({ inputs: [{ dims: [3, 4] }, { dims: [4], known: true }], build, tolerance: 1e-6 });
    await expectGradients({ inputs: [{ dims: [2, 3, 4] }, { dims: [1, 4], known: true }], build, tolerance: 1e-6 });
  });
});
