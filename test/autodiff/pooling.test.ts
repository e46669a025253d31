import { describe, expect, it } from "vitest";
import type { Attributes } from "../../src/onnx/attributes.js";
import { expectGradients, gradientsOf, mulberry32 } from "../support/gradient-check.js";

interface Case {
  readonly x: number[];
  readonly attributes: Attributes;
}

/** Distinct values a tenth apart in random order, so that no step of the stencil changes which is the largest. */
function distinct(dims: readonly number[]): number[] {
  const random = mulberry32(7);
  const count = dims.reduce((product, dim) => product * dim, 1);
  const keys = Array.from({ length: count }, random);
  return Array.from(
    { length: count },
    (_, i) => (keys.filter((key) => key < (keys[i] as number)).length - count / 2) / 10,
  );
}

/** One at the first maximum of every tile of the last axes, in row-major order, and zero elsewhere. */
function firstMaxima(values: readonly number[], dims: readonly number[], kernel: readonly number[]): number[] {
  const axes = dims.slice(-kernel.length);
  const size = axes.reduce((n, length) => n * length, 1);
  const best = new Map<string, number>();
  for (const [i, value] of values.entries()) {
    let rest = i % size;
    const at = axes.map((length, axis) => {
      const inner = axes.slice(axis + 1).reduce((n, next) => n * next, 1);
      const position = Math.floor(rest / inner) % length;
      rest %= inner;
      return position;
    });
    const tile = at.map((position, axis) => Math.floor(position / (kernel[axis] as number)));
    if (tile.some((index, axis) => (index + 1) * (kernel[axis] as number) > (axes[axis] as number))) continue;
    const key = [Math.floor(i / size), ...tile].join();
    const known = best.get(key);
    if (known === undefined || value > (values[known] as number)) best.set(key, i);
  }
  const chosen = new Set(best.values());
  return values.map((_, i) => (chosen.has(i) ? 1 : 0));
}

const windows: Record<string, Case> = {
  "1-D": { x: [2, 3, 7], attributes: { kernel_shape: [3] } },
  "2×2 tiles": { x: [2, 3, 4, 6], attributes: { kernel_shape: [2, 2], strides: [2, 2] } },
  "2×2 tiles that leave a row over": { x: [2, 2, 5, 7], attributes: { kernel_shape: [2, 2], strides: [2, 2] } },
  "2×2 tiles, ceil_mode": { x: [1, 2, 5, 7], attributes: { kernel_shape: [2, 2], strides: [2, 2], ceil_mode: 1 } },
  "3×2 tiles, padded": { x: [1, 2, 4, 3], attributes: { kernel_shape: [3, 2], strides: [3, 2], pads: [1, 1, 1, 0] } },
  overlapping: { x: [2, 2, 5, 5], attributes: { kernel_shape: [3, 3], strides: [2, 2] } },
  "overlapping, padded": { x: [2, 2, 6, 5], attributes: { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] } },
  "overlapping, ceil_mode": { x: [1, 2, 6, 6], attributes: { kernel_shape: [3, 3], strides: [2, 2], ceil_mode: 1 } },
  "stride 1": { x: [1, 2, 4, 4], attributes: { kernel_shape: [2, 2] } },
  "wide strides": { x: [1, 2, 7, 7], attributes: { kernel_shape: [2, 2], strides: [3, 3] } },
  "asymmetric pads": { x: [1, 1, 4, 5], attributes: { kernel_shape: [3, 2], strides: [2, 1], pads: [1, 0, 0, 1] } },
  SAME_UPPER: { x: [1, 2, 5, 5], attributes: { kernel_shape: [2, 2], strides: [2, 2], auto_pad: "SAME_UPPER" } },
  SAME_LOWER: { x: [1, 2, 5, 5], attributes: { kernel_shape: [2, 2], strides: [2, 2], auto_pad: "SAME_LOWER" } },
  "1-D tiles": { x: [2, 3, 6], attributes: { kernel_shape: [3], strides: [3] } },
  "tiles, a size for each axis": {
    x: [2, 2, 5, 6],
    attributes: { kernel_shape: [2, 3], strides: [2, 3], ceil_mode: 1 },
  },
  "3-D tiles": { x: [1, 2, 4, 2, 4], attributes: { kernel_shape: [2, 2, 2], strides: [2, 2, 2] } },
  "3-D": { x: [1, 2, 4, 4, 3], attributes: { kernel_shape: [2, 2, 2], strides: [2, 2, 1] } },
};
const dilated: Record<string, Case> = {
  dilations: { x: [1, 2, 6, 6], attributes: { kernel_shape: [2, 2], dilations: [2, 3] } },
  "dilations and strides": {
    x: [1, 2, 7, 7],
    attributes: { kernel_shape: [2, 2], dilations: [3, 2], strides: [2, 2], pads: [1, 1, 1, 1] },
  },
};

const knownSizes = ["static", "batch"] as const;

describe("MaxPool", () => {
  it.each(Object.entries({ ...windows, ...dilated }))("%s", (_, { x, attributes }) =>
    expectGradients({
      inputs: [{ dims: x, values: distinct(x) }],
      build: (b, [input]) => b.op("MaxPool", [input as string], attributes),
      precision: "float32",
      shapes: knownSizes,
    }),
  );
  it("gives ties to the first, as PyTorch", async () => {
    const [tiles] = await gradientsOf({
      inputs: [{ dims: [1, 1, 2, 4], values: [1, 1, 0, 2, 1, 1, 2, 2] }],
      build: (b, [x]) => b.op("MaxPool", [x as string], { kernel_shape: [2, 2], strides: [2, 2] }),
      precision: "float32",
    });
    expect(tiles).toEqual([1, 0, 0, 1, 0, 0, 0, 0]);
    const [overlapping] = await gradientsOf({
      inputs: [{ dims: [1, 1, 4], values: [3, 3, 3, 3] }],
      build: (b, [x]) => b.op("MaxPool", [x as string], { kernel_shape: [2] }),
      precision: "float32",
    });
    expect(overlapping).toEqual([1, 1, 1, 0]);
  });
  // Wide ones are taken in parts of their rows.
  it.each([
    [
      [2, 2, 4, 6],
      [2, 2],
    ],
    [
      [1, 2, 4, 80],
      [2, 2],
    ],
    [
      [1, 1, 2, 134],
      [2, 2],
    ],
    [
      [2, 1, 6, 63],
      [3, 3],
    ],
    [
      [1, 2, 5, 100],
      [1, 4],
    ],
    [[1, 2, 200], [2]],
    [
      [1, 1, 4, 4, 4],
      [2, 2, 2],
    ],
  ])("gives ties in tiles of %j to the first: %j", async (dims, kernel) => {
    const random = mulberry32(5);
    const values = Array.from({ length: dims.reduce((n, size) => n * size, 1) }, () => Math.floor(random() * 3));
    const [computed] = await gradientsOf({
      inputs: [{ dims, values }],
      build: (b, [x]) => b.op("MaxPool", [x as string], { kernel_shape: kernel, strides: kernel }),
      precision: "float32",
    });
    expect(computed).toEqual(firstMaxima(values, dims, kernel));
  });
  it("keeps an infinite cotangent to its element, and takes infinite elements", async () => {
    const [computed] = await gradientsOf({
      inputs: [{ dims: [1, 1, 2, 6], values: [0, 0, 4, 1, -Infinity, 1, 0, 0, 1, 1, -Infinity, -Infinity] }],
      build: (b, [x]) => b.sqrt(b.op("MaxPool", [x as string], { kernel_shape: [2, 2], strides: [2, 2] })),
      precision: "float32",
    });
    expect(computed).toEqual([Infinity, 0, 0.25, 0, 0, 0.5, 0, 0, 0, 0, 0, 0]);
  });
  it("refuses sizes that only the run knows", async () => {
    await expect(
      expectGradients({
        inputs: [{ dims: [1, 2, 4, 4] }],
        build: (b, [x]) => b.op("MaxPool", [x as string], { kernel_shape: [2, 2] }),
        precision: "float32",
        shapes: ["symbolic"],
      }),
    ).rejects.toThrow(/'MaxPool' \(MaxPool\) pools over sizes that are known only at run time/);
  });
});

describe("AveragePool", () => {
  for (const count_include_pad of [0, 1]) {
    it.each(Object.entries(windows))(`%s, count_include_pad ${count_include_pad}`, (_, { x, attributes }) =>
      expectGradients({
        inputs: [{ dims: x }],
        build: (b, [input]) => b.op("AveragePool", [input as string], { ...attributes, count_include_pad }),
        precision: "float32",
        shapes: knownSizes,
        step: 0.5,
        tolerance: 1e-5,
      }),
    );
  }
});

describe("LpPool", () => {
  for (const p of [1, 2, 3]) {
    it.each(Object.entries({ ...windows, ...dilated }))(`%s, p = ${p}`, (_, { x, attributes }) =>
      expectGradients({
        inputs: [{ dims: x, range: [-2, 2], avoid: [0] }],
        build: (b, [input]) => b.op("LpPool", [input as string], { ...attributes, p }),
        precision: "float32",
        shapes: knownSizes,
        tolerance: 1e-3,
      }),
    );
  }
});

describe("global pools", () => {
  it.each([[[2, 3, 4]], [[2, 3, 4, 5]], [[1, 2, 2, 3, 2]]])("of %j", async (dims) => {
    await expectGradients({
      inputs: [{ dims }],
      build: (b, [x]) => b.op("GlobalAveragePool", [x as string]),
      precision: "float32",
      step: 0.5,
    });
    await expectGradients({
      inputs: [{ dims, values: distinct(dims) }],
      build: (b, [x]) => b.op("GlobalMaxPool", [x as string]),
      precision: "float32",
    });
  });
});
