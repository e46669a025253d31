import { describe, it } from "vitest";
import type { Attributes } from "../../src/onnx/attributes.js";
import { expectGradients, type Knowledge } from "../support/gradient-check.js";

interface Case {
  readonly x: number[];
  readonly w: number[];
  readonly attributes?: Attributes;
  readonly shapes?: readonly Knowledge[];
}

// Bilinear: a step of 1/2 has no truncation error, so float32 (no float64 kernel) resolves about 1e-6.
const linear = { precision: "float32", step: 0.5, tolerance: 2e-5 } as const;

const cases: Record<string, Case> = {
  "1-D": { x: [2, 3, 7], w: [4, 3, 3] },
  "1-D, padded on one side": { x: [2, 3, 7], w: [4, 3, 3], attributes: { pads: [2, 0] } },
  "1-D, causal with dilation": { x: [2, 2, 9], w: [3, 2, 2], attributes: { pads: [4, 0], dilations: [4] } },
  "1-D, long kernel": { x: [2, 2, 70], w: [2, 2, 60], attributes: { pads: [3, 4] }, shapes: ["batch"] },
  "2-D": { x: [2, 3, 5, 6], w: [4, 3, 3, 2] },
  "2-D, padded": { x: [2, 3, 5, 5], w: [2, 3, 3, 3], attributes: { pads: [1, 1, 1, 1] } },
  "2-D, asymmetric pads": { x: [1, 2, 5, 4], w: [2, 2, 3, 3], attributes: { pads: [0, 1, 2, 0] } },
  "2-D, strides": { x: [2, 2, 6, 7], w: [3, 2, 3, 3], attributes: { strides: [2, 2] } },
  "2-D, strides that leave rows over": {
    x: [1, 2, 8, 9],
    w: [2, 2, 3, 2],
    attributes: { strides: [3, 4], pads: [1, 0, 0, 1] },
  },
  "2-D, dilations": { x: [2, 2, 7, 6], w: [2, 2, 3, 2], attributes: { dilations: [2, 3], pads: [1, 1, 1, 1] } },
  "2-D, groups": { x: [2, 4, 5, 5], w: [6, 2, 3, 3], attributes: { group: 2, pads: [1, 1, 1, 1] } },
  "2-D, groups and strides": { x: [2, 4, 6, 5], w: [4, 2, 2, 3], attributes: { group: 2, strides: [2, 1] } },
  "2-D, depthwise": { x: [2, 3, 5, 5], w: [3, 1, 3, 3], attributes: { group: 3, pads: [1, 1, 1, 1] } },
  "2-D, depthwise with multiplier": { x: [2, 3, 5, 5], w: [6, 1, 3, 3], attributes: { group: 3, strides: [2, 2] } },
  "2-D, 1×1": { x: [2, 3, 4, 4], w: [5, 3, 1, 1] },
  "2-D, 1×1 with strides": { x: [2, 3, 5, 5], w: [2, 3, 1, 1], attributes: { strides: [2, 2] } },
  "2-D, 1×1 padded": { x: [2, 3, 3, 3], w: [2, 3, 1, 1], attributes: { pads: [1, 1, 1, 1] } },
  "2-D, 1×1 with groups": { x: [2, 4, 3, 3], w: [4, 2, 1, 1], attributes: { group: 2 } },
  "2-D, patches": { x: [2, 3, 6, 4], w: [4, 3, 3, 2], attributes: { strides: [3, 2] } },
  "2-D, patches that leave a row over": { x: [2, 3, 7, 5], w: [4, 3, 3, 2], attributes: { strides: [3, 2] } },
  "2-D, patches with groups": { x: [2, 4, 4, 4], w: [4, 2, 2, 2], attributes: { strides: [2, 2], group: 2 } },
  "2-D, large kernel": { x: [1, 2, 9, 9], w: [2, 2, 8, 8], attributes: { pads: [1, 2, 1, 0] }, shapes: ["batch"] },
  "2-D, large kernel, groups, strides": {
    x: [2, 4, 10, 11],
    w: [4, 2, 8, 8],
    attributes: { strides: [2, 2], pads: [1, 1, 1, 1], group: 2 },
    shapes: ["batch"],
  },
  "3-D": { x: [1, 2, 4, 3, 4], w: [2, 2, 2, 2, 2], attributes: { pads: [1, 0, 0, 0, 1, 0] } },
  "3-D, strides and groups": { x: [1, 2, 4, 5, 4], w: [2, 1, 2, 2, 2], attributes: { strides: [2, 1, 2], group: 2 } },
  SAME_UPPER: { x: [1, 2, 5, 6], w: [2, 2, 3, 2], attributes: { auto_pad: "SAME_UPPER" } },
  SAME_LOWER: { x: [1, 2, 5, 6], w: [2, 2, 2, 4], attributes: { auto_pad: "SAME_LOWER" } },
  "SAME_UPPER with strides": {
    x: [1, 2, 5, 6],
    w: [2, 2, 3, 3],
    attributes: { auto_pad: "SAME_UPPER", strides: [2, 3] },
    shapes: ["static", "batch"],
  },
  "SAME_LOWER with strides": {
    x: [1, 2, 5, 6],
    w: [2, 2, 3, 4],
    attributes: { auto_pad: "SAME_LOWER", strides: [2, 3] },
    shapes: ["static", "batch"],
  },
  VALID: { x: [1, 2, 5, 6], w: [2, 2, 3, 2], attributes: { auto_pad: "VALID" } },
};

/** Shapes that the gradients' fast ways depend on; Conv alone. */
const ways: Record<string, Case> = {
  "2-D, many channels, small output": { x: [2, 32, 4, 3], w: [2, 32, 3, 2], attributes: { pads: [1, 0, 1, 1] } },
  "2-D, many channels, large output": { x: [1, 32, 9, 9], w: [1, 32, 2, 2], attributes: { strides: [1, 1] } },
  "1-D, many channels": { x: [2, 32, 7], w: [1, 32, 3], attributes: { pads: [2, 1] } },
  "2-D, many channels, unpadded": { x: [1, 32, 6, 5], w: [1, 32, 2, 3] },
  "2-D, many channels, rows with strides, columns with dilation": {
    x: [1, 32, 7, 6],
    w: [1, 32, 2, 2],
    attributes: { strides: [2, 1], dilations: [1, 2], pads: [1, 2, 0, 1] },
  },
  "3-D, many channels": { x: [1, 32, 2, 3, 4], w: [1, 32, 2, 1, 2], attributes: { pads: [1, 0, 0, 0, 1, 1] } },
  "2-D, many channels, strides and dilations": {
    x: [2, 32, 6, 7],
    w: [2, 32, 2, 2],
    attributes: { strides: [2, 3], dilations: [2, 1], pads: [1, 0, 0, 0] },
  },
  "2-D, a map smaller than the kernel": { x: [3, 2, 2, 2], w: [3, 2, 3, 3], attributes: { pads: [1, 1, 1, 1] } },
  "2-D, a map of 4×4": { x: [2, 2, 4, 4], w: [3, 2, 3, 3], attributes: { pads: [1, 1, 1, 1] } },
  "2-D, a map of 4×4, strides and dilations": {
    x: [2, 3, 4, 4],
    w: [2, 3, 2, 3],
    attributes: { pads: [0, 1, 1, 0], strides: [3, 2], dilations: [2, 1] },
  },
  "2-D, a small map that leaves rows over": { x: [2, 2, 4, 4], w: [3, 2, 1, 1], attributes: { strides: [3, 2] } },
  "2-D, a small map with a large output": { x: [2, 2, 3, 3], w: [2, 2, 2, 2], attributes: { pads: [2, 1, 2, 2] } },
  "1-D, a small map": { x: [2, 3, 6], w: [2, 3, 3], attributes: { pads: [1, 2], strides: [2] } },
  "3-D, a small map": { x: [2, 2, 2, 3, 2], w: [2, 2, 2, 3, 1], attributes: { pads: [1, 1, 0, 0, 1, 0] } },
  "2-D, padded beyond the kernel": { x: [1, 2, 3, 3], w: [2, 2, 2, 2], attributes: { pads: [2, 1, 1, 3] } },
  "2-D, few channels from many": { x: [1, 1, 5, 5], w: [9, 1, 3, 3], attributes: { pads: [1, 1, 1, 1] } },
};

// The weights' own shape is always known; the input's may not be.
describe("Conv", () => {
  it.each(Object.entries({ ...cases, ...ways }))("%s", (_, { x, w, attributes, shapes }) =>
    expectGradients({
      inputs: [{ dims: x }, { dims: w, known: true }, { dims: [w[0] as number], known: true }],
      build: (b, inputs) => b.op("Conv", inputs, { ...attributes, kernel_shape: w.slice(2) }),
      ...(shapes && { shapes }),
      ...linear,
    }),
  );
});

const transposed: Record<string, Case> = {
  "1-D": { x: [2, 3, 5], w: [3, 2, 3] },
  "2-D": { x: [2, 3, 3, 4], w: [3, 2, 3, 2] },
  "2-D, strides and pads": { x: [2, 3, 3, 4], w: [3, 2, 3, 3], attributes: { strides: [2, 2], pads: [1, 1, 1, 1] } },
  "2-D, output padding": {
    x: [2, 3, 3, 3],
    w: [3, 2, 3, 3],
    attributes: { strides: [2, 2], pads: [1, 1, 1, 1], output_padding: [1, 1] },
  },
  "2-D, asymmetric pads": { x: [2, 2, 4, 3], w: [2, 2, 3, 3], attributes: { strides: [2, 1], pads: [0, 1, 2, 0] } },
  "2-D, dilations": { x: [2, 2, 3, 3], w: [2, 2, 2, 3], attributes: { dilations: [3, 2], pads: [1, 1, 1, 1] } },
  "2-D, groups": { x: [2, 4, 3, 3], w: [4, 3, 2, 2], attributes: { group: 2, strides: [2, 2] } },
  "2-D, depthwise": { x: [2, 3, 3, 3], w: [3, 1, 3, 3], attributes: { group: 3, strides: [2, 2], pads: [1, 1, 1, 1] } },
  "2-D, patches": { x: [2, 3, 2, 3], w: [3, 2, 2, 2], attributes: { strides: [2, 2] } },
  "2-D, output shape": {
    x: [1, 2, 3, 3],
    w: [2, 2, 3, 3],
    attributes: { strides: [2, 2], output_shape: [6, 6] },
    shapes: ["static", "batch"],
  },
  "2-D, SAME_UPPER": {
    x: [1, 2, 3, 3],
    w: [2, 2, 3, 3],
    attributes: { strides: [2, 2], auto_pad: "SAME_UPPER" },
    shapes: ["static", "batch"],
  },
  "2-D, SAME_LOWER": {
    x: [1, 2, 3, 3],
    w: [2, 2, 3, 3],
    attributes: { strides: [2, 2], auto_pad: "SAME_LOWER" },
    shapes: ["static", "batch"],
  },
  "3-D": { x: [1, 2, 2, 2, 3], w: [2, 2, 2, 2, 2], attributes: { strides: [2, 1, 2], output_padding: [1, 0, 0] } },
};

describe("ConvTranspose", () => {
  it.each(Object.entries(transposed))("%s", (_, { x, w, attributes, shapes }) =>
    expectGradients({
      inputs: [
        { dims: x },
        { dims: w, known: true },
        { dims: [(w[1] as number) * ((attributes?.group as number) ?? 1)], known: true },
      ],
      build: (b, inputs) => b.op("ConvTranspose", inputs, { ...attributes, kernel_shape: w.slice(2) }),
      ...(shapes && { shapes }),
      ...linear,
    }),
  );
});
