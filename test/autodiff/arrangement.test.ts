import { describe, expect, it } from "vitest";
import { type Attributes, float } from "../../src/onnx/attributes.js";
import { expectGradients } from "../support/gradient-check.js";

const linear = { step: 0.25, tolerance: 1e-10 } as const;

describe("CumSum", () => {
  for (const [exclusive, reverse] of [
    [0, 0],
    [1, 0],
    [0, 1],
    [1, 1],
  ]) {
    it.each([0, 1, -1])(`along %d, exclusive ${exclusive}, reverse ${reverse}`, (axis) =>
      expectGradients({
        inputs: [{ dims: [3, 4] }],
        build: (b, [x]) => b.op("CumSum", [x as string, b.i64(axis)], { exclusive, reverse }),
        ...linear,
      }),
    );
  }
});

describe("Trilu", () => {
  it.each([
    [1, undefined],
    [0, undefined],
    [1, 1],
    [0, -1],
    [1, -2],
  ])("upper %d, k %s", (upper, k) =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4] }],
      build: (b, [x]) =>
        b.op("Trilu", [x as string, ...(k === undefined ? [] : [b.i64(k as number)])], { upper: upper as number }),
      ...linear,
    }),
  );
});

describe("Tile", () => {
  it.each([
    [
      [2, 3],
      [1, 1],
    ],
    [
      [2, 3],
      [2, 1],
    ],
    [
      [2, 3],
      [3, 2],
    ],
    [[4], [3]],
    [
      [2, 1, 3],
      [1, 4, 2],
    ],
  ])("%j by %j", (dims, repeats) =>
    expectGradients({ inputs: [{ dims }], build: (b, [x]) => b.op("Tile", [x as string, b.i64(repeats)]), ...linear }),
  );
  it("by repeats that are an input", () =>
    expectGradients({
      inputs: [{ dims: [2, 3] }, { dims: [2], type: "int64", values: [2, 3] }],
      build: (b, [x, repeats]) => b.op("Tile", [x as string, repeats as string]),
      ...linear,
    }));
});

describe("depth and space", () => {
  it("SpaceToDepth", () =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4, 2] }],
      build: (b, [x]) => b.op("SpaceToDepth", [x as string], { blocksize: 2 }),
      ...linear,
    }));
  it.each(["DCR", "CRD"])("DepthToSpace %s", (mode) =>
    expectGradients({
      inputs: [{ dims: [2, 8, 2, 3] }],
      build: (b, [x]) => b.op("DepthToSpace", [x as string], { blocksize: 2, mode }),
      shapes: ["static", "batch"],
      ...linear,
    }),
  );
});

describe("ReverseSequence", () => {
  it.each([
    [1, 0],
    [0, 1],
  ])("batch axis %d, time axis %d", (batch_axis, time_axis) =>
    expectGradients({
      inputs: [{ dims: [3, 3, 2] }, { dims: [3], type: "int64", values: [1, 3, 2] }],
      build: (b, [x, lengths]) => b.op("ReverseSequence", [x as string, lengths as string], { batch_axis, time_axis }),
      allow: ["ReverseSequence"],
      ...linear,
    }),
  );
});

describe("Pad", () => {
  const modes = ["constant", "reflect", "edge"];
  for (const mode of modes) {
    it.each([
      [
        [3, 4],
        [1, 2, 0, 1],
      ],
      [
        [3, 4],
        [0, 0, 0, 3],
      ],
      [
        [2, 3, 4],
        [0, 1, 2, 0, 2, 3],
      ],
    ])(`${mode}: %j by %j`, (dims, pads) =>
      expectGradients({
        inputs: [{ dims }],
        build: (b, [x]) => b.op("Pad", [x as string, b.i64(pads)], { mode }),
        shapes: mode === "constant" ? ["static", "batch", "symbolic"] : ["static"],
        ...linear,
      }),
    );
  }
  it("that crops", () =>
    expectGradients({
      inputs: [{ dims: [4, 5] }],
      build: (b, [x]) => b.op("Pad", [x as string, b.i64([-1, 2, 1, -2])]),
      ...linear,
    }));
  it("along given axes, with a trainable constant", () =>
    expectGradients({
      inputs: [{ dims: [2, 3, 4] }, { dims: [] }],
      build: (b, [x, value]) => b.op("Pad", [x as string, b.i64([1, 2]), value as string, b.i64([-1])]),
      ...linear,
    }));
});

describe("Einsum", () => {
  it.each([
    [
      "ij,jk->ik",
      [
        [2, 3],
        [3, 4],
      ],
    ],
    [
      "bij,bjk->bik",
      [
        [2, 2, 3],
        [2, 3, 4],
      ],
    ],
    [
      "bhid,bhjd->bhij",
      [
        [2, 2, 3, 2],
        [2, 2, 2, 2],
      ],
    ],
    ["ij->ji", [[2, 3]]],
    ["ij->i", [[2, 3]]],
    ["ij->", [[2, 3]]],
    [
      "ij,kl->ik",
      [
        [2, 3],
        [2, 2],
      ],
    ],
    ["i,j->ij", [[2], [3]]],
    [
      "ij,ij->",
      [
        [2, 3],
        [2, 3],
      ],
    ],
    [
      "ij,jk",
      [
        [2, 3],
        [3, 4],
      ],
    ],
    [
      "...ij,...jk->...ik",
      [
        [2, 2, 3],
        [2, 3, 2],
      ],
    ],
    [
      "...d,de->...e",
      [
        [2, 2, 3],
        [3, 2],
      ],
    ],
    [
      "...d,de",
      [
        [2, 2, 3],
        [3, 2],
      ],
    ],
    [
      "a b, b c -> a c",
      [
        [2, 3],
        [3, 4],
      ],
    ],
  ])("%s of %j", (equation, shapes) =>
    expectGradients({
      inputs: shapes.map((dims) => ({ dims })),
      build: (b, x) => b.op("Einsum", x, { equation }),
      ...linear,
    }),
  );
  it("of three operands", () =>
    expectGradients({
      inputs: [{ dims: [2, 3] }, { dims: [3, 2] }, { dims: [2, 2] }],
      build: (b, x) => b.op("Einsum", x, { equation: "ij,jk,kl->il" }),
      ...linear,
    }));
});

const transformations = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"];

describe("Resize", () => {
  const check = (dims: number[], attributes: Attributes, sizes: { sizes: number[] } | { scales: number[] }) =>
    expectGradients({
      inputs: [{ dims }],
      build: (b, [x]) =>
        b.op(
          "Resize",
          "sizes" in sizes ? [x as string, "", "", b.i64(sizes.sizes)] : [x as string, "", b.f32(sizes.scales)],
          attributes,
        ),
      precision: "float32",
      shapes: ["static"],
      step: 0.5,
      tolerance: 1e-5,
    });
  for (const coordinate_transformation_mode of transformations) {
    it.each([[[2, 2, 7, 9]], [[2, 2, 3, 2]], [[2, 2, 4, 5]], [[2, 2, 1, 8]]])(
      `linear, ${coordinate_transformation_mode}, to %j`,
      (sizes) => check([2, 2, 4, 5], { mode: "linear", coordinate_transformation_mode }, { sizes }),
    );
    it(`cubic, ${coordinate_transformation_mode}`, () =>
      check([1, 2, 4, 5], { mode: "cubic", coordinate_transformation_mode }, { sizes: [1, 2, 7, 3] }));
    for (const nearest_mode of ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]) {
      it(`nearest, ${coordinate_transformation_mode}, ${nearest_mode}`, () =>
        check(
          [1, 2, 4, 5],
          { mode: "nearest", coordinate_transformation_mode, nearest_mode },
          { sizes: [1, 2, 7, 3] },
        ));
    }
  }
  it("by scales", async () => {
    await check(
      [1, 2, 3, 4],
      { mode: "nearest", coordinate_transformation_mode: "asymmetric", nearest_mode: "floor" },
      { scales: [1, 1, 2, 2] },
    );
    await check([1, 2, 3, 4], { mode: "linear" }, { scales: [1, 1, 1.7, 0.6] });
  });
  it("cubic with its own coefficient, excluding what lies outside", () =>
    check([1, 1, 4, 5], { mode: "cubic", cubic_coeff_a: float(-0.5), exclude_outside: 1 }, { sizes: [1, 1, 6, 7] }));
  it("of one spatial axis, and of given axes", async () => {
    await check([2, 3, 4], { mode: "linear" }, { sizes: [2, 3, 7] });
    await check([2, 3, 4, 5], { mode: "nearest", axes: [2] }, { sizes: [7] });
  });
  it("with an unknown batch", () =>
    expectGradients({
      inputs: [{ dims: [2, 1, 3, 4] }],
      build: (b, [x]) => b.op("Resize", [x as string, "", b.f32([1, 1, 2, 2])], { mode: "linear" }),
      precision: "float32",
      shapes: ["batch"],
      step: 0.5,
      tolerance: 1e-5,
    }));
  it("with antialias", () => check([1, 2, 8, 7], { mode: "linear", antialias: 1 }, { sizes: [1, 2, 3, 4] }));
  it("refuses to crop", async () => {
    const build = () =>
      expectGradients({
        inputs: [{ dims: [1, 1, 4, 4] }],
        build: (b, [x]) =>
          b.op("Resize", [x as string, b.f32([0, 0, 0, 0, 1, 1, 0.5, 0.5]), "", b.i64([1, 1, 2, 2])], {
            mode: "linear",
            coordinate_transformation_mode: "tf_crop_and_resize",
          }),
        precision: "float32",
      });
    await expect(build()).rejects.toThrow(/coordinate_transformation_mode 'tf_crop_and_resize'/);
  });
});
