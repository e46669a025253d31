/** Rules over random shapes, axes and attributes, sizes of 0 and 1 included, against finite differences. */
import fc from "fast-check";
import { describe, it } from "vitest";
import { float } from "../../src/onnx/attributes.js";
import type { GraphBuilder } from "../../src/onnx/builder.js";
import { expectGradients, type GradientCheck } from "../support/gradient-check.js";

const linear = { step: 0.5, tolerance: 1e-10 } as const;

const product = (dims: readonly number[]) => dims.reduce((total, dim) => total * dim, 1);
const dimsOf = (minLength: number, maxLength: number, min: number, max = 3) =>
  fc.array(fc.integer({ min, max }), { minLength, maxLength });

/** `count` values in random order, further apart than any step of the stencil, and as far from zero. */
const distinct = (count: number) =>
  fc.shuffledSubarray(
    Array.from({ length: count }, (_, i) => (i % 2 ? 1 : -1) * (0.2 + (i + 1) / (count + 1))),
    { minLength: count, maxLength: count },
  );

/** Some axes of `rank`, each counted from the front or from the back. */
const axesOf = (rank: number) =>
  fc
    .tuple(fc.subarray([...Array(rank).keys()]), fc.array(fc.boolean(), { minLength: rank, maxLength: rank }))
    .map(([axes, fromBack]) => axes.map((axis) => (fromBack[axis] ? axis - rank : axis)));

const axisOf = (rank: number) => fc.integer({ min: -rank, max: rank - 1 });

const check = <T>(cases: fc.Arbitrary<T>, of: (example: T) => GradientCheck, numRuns = 20) =>
  fc.assert(
    fc.asyncProperty(cases, (example) => expectGradients({ shapes: ["static", "symbolic"], ...of(example) })),
    { numRuns, seed: 11 },
  );

describe("reductions", () => {
  const reduction = (op: string, least: number, sign: (value: number) => number = (value) => value) => {
    const cases = dimsOf(0, 4, least).chain((dims) =>
      fc.record({
        dims: fc.constant(dims),
        axes: fc.option(axesOf(dims.length), { nil: undefined }),
        keepdims: fc.nat(1),
        noop_with_empty_axes: fc.nat(1),
        values: distinct(product(dims)),
      }),
    );
    return check(cases, ({ dims, axes, values, keepdims, noop_with_empty_axes }) => {
      // Of nothing, ONNX Runtime 1.30 keeps the reduced axes whatever it is told.
      const attributes = { keepdims: dims.includes(0) ? 1 : keepdims, noop_with_empty_axes };
      return {
        inputs: [{ dims, values: values.map(sign) }],
        build: (b, [x]) => b.op(op, [x as string, ...(axes ? [b.i64(axes)] : [])], attributes),
        tolerance: 1e-6,
        allow: ["ReduceProd"],
      };
    });
  };
  it.each(["ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"])("%s", (op) => reduction(op, 0));
  it.each(["ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp"])("%s", (op) => reduction(op, 1));
  it("ReduceLogSum", () => reduction("ReduceLogSum", 1, Math.abs));
});

describe("operators of several inputs", () => {
  // Each input keeps, flattens to 1 or (in front) drops dimensions of one full shape.
  const inputs = fc
    .tuple(
      dimsOf(0, 3, 0),
      fc.array(fc.tuple(fc.nat(3), fc.array(fc.nat(3), { minLength: 3, maxLength: 3 })), {
        minLength: 1,
        maxLength: 4,
      }),
    )
    .map(([full, parts]) =>
      parts.map(([dropped, kept]) =>
        full.map((dim, i) => (kept[i] === 0 ? 1 : dim)).slice(Math.min(dropped, full.length)),
      ),
    )
    .chain((shapes) =>
      distinct(shapes.reduce((total, dims) => total + product(dims), 0)).map((values) => ({ shapes, values })),
    );
  it.each(["Max", "Min", "Sum", "Mean"])("%s", (op) =>
    check(inputs, ({ shapes, values }) => {
      const ends = shapes.map((_, i) => shapes.slice(0, i + 1).reduce((total, dims) => total + product(dims), 0));
      return {
        inputs: shapes.map((dims, i) => ({ dims, values: values.slice(ends[i - 1] ?? 0, ends[i]) })),
        build: (b, x) => b.op(op, x),
        // Mean has no float64 kernel.
        ...(op === "Mean" ? { precision: "float32", ...linear, tolerance: 1e-5 } : { tolerance: 1e-6 }),
      };
    }),
  );
});

describe("rearrangements", () => {
  const along = (
    least: number,
    build: (b: GraphBuilder, x: string, axis: number, choice: number) => string | string[],
  ) =>
    check(
      dimsOf(1, 4, least).chain((dims) =>
        fc.record({
          dims: fc.constant(dims),
          axis: axisOf(dims.length),
          choice: fc.nat(3),
          values: distinct(product(dims)),
        }),
      ),
      ({ dims, axis, choice, values }) => ({
        inputs: [{ dims, values }],
        build: (b, [x]) => build(b, x as string, axis, choice),
        step: 2 ** -8,
        tolerance: 1e-9,
      }),
    );
  it("CumSum", () =>
    along(0, (b, x, axis, choice) =>
      b.op("CumSum", [x, b.i64(axis)], { exclusive: choice & 1, reverse: choice >> 1 }),
    ));
  it("TopK", () =>
    along(1, (b, x, axis, choice) =>
      b.node("TopK", [x, b.i64([1])], { outputs: 2, attributes: { axis, largest: choice & 1 } }).slice(0, 1),
    ));
  it("Softmax and LogSoftmax", () =>
    along(1, (b, x, axis, choice) => b.op(choice & 1 ? "LogSoftmax" : "Softmax", [x], { axis })));
  it("Split and Concat", () =>
    along(1, (b, x, axis) => {
      const doubled = b.concat([x, b.mul(x, b.f64(2))], axis);
      const [first, second] = b.node("Split", [doubled], { outputs: 2, attributes: { axis, num_outputs: 2 } });
      return b.mul(first as string, second as string);
    }));

  it("Trilu", () =>
    check(
      fc.record({ dims: dimsOf(2, 4, 0), upper: fc.nat(1), k: fc.integer({ min: -4, max: 4 }) }),
      ({ dims, upper, k }) => ({
        inputs: [{ dims }],
        build: (b, [x]) => b.op("Trilu", [x as string, b.i64(k)], { upper }),
        ...linear,
      }),
    ));
  it("Tile", () =>
    check(
      dimsOf(0, 4, 0).chain((dims) => dimsOf(dims.length, dims.length, 0, 2).map((repeats) => ({ dims, repeats }))),
      ({ dims, repeats }) => ({
        inputs: [{ dims }],
        build: (b, [x]) => b.op("Tile", [x as string, b.i64(repeats)]),
        ...linear,
      }),
    ));
  it("DepthToSpace and SpaceToDepth, any mode and size", () =>
    check(
      fc.record({
        dims: dimsOf(4, 4, 1),
        blocksize: fc.integer({ min: 1, max: 3 }),
        mode: fc.constantFrom("DCR", "CRD"),
      }),
      ({ dims, blocksize, mode }) => {
        const [n, channels, height, width] = dims as [number, number, number, number];
        const depth = { dims: [n, channels * blocksize ** 2, height, width] };
        const space = { dims: [n, channels, height * blocksize, width * blocksize] };
        return {
          inputs: [depth, space],
          build: (b, [x, y]) => [
            b.op("DepthToSpace", [x as string], { blocksize, mode }),
            b.op("SpaceToDepth", [y as string], { blocksize }),
          ],
          shapes: ["static", "batch"],
          ...linear,
        };
      },
    ));
});

describe("indexing", () => {
  const random = fc.infiniteStream(fc.nat(1000));
  it("Gather", () =>
    check(
      dimsOf(1, 3, 1).chain((dims) =>
        fc.record({ dims: fc.constant(dims), of: dimsOf(0, 2, 0), axis: axisOf(dims.length), random }),
      ),
      ({ dims, of, axis, random }) => {
        const size = dims.at(axis < 0 ? axis : axis - dims.length) as number;
        const values = Array.from({ length: product(of) }, () => ((random.next().value as number) % (2 * size)) - size);
        return {
          inputs: [{ dims }, { dims: of, type: "int64", values }],
          build: (b, [x, i]) => b.gather(x as string, i as string, axis),
          ...linear,
        };
      },
      30,
    ));
  it("GatherElements, and ScatterElements adding", () =>
    check(
      dimsOf(1, 3, 1).chain((dims) =>
        fc.record({ dims: fc.constant(dims), extent: fc.nat(4), axis: axisOf(dims.length), random }),
      ),
      ({ dims, extent, axis, random }) => {
        const place = axis < 0 ? axis + dims.length : axis;
        const size = dims[place] as number;
        const of = dims.map((dim, i) => (i === place ? extent : Math.max(dim - 1, 1)));
        const values = Array.from({ length: product(of) }, () => ((random.next().value as number) % (2 * size)) - size);
        return {
          inputs: [{ dims }, { dims: of, type: "int64", values }, { dims: of }],
          build: (b, [x, i, u]) => [
            b.op("GatherElements", [x, i] as string[], { axis }),
            b.op("ScatterElements", [x, i, u] as string[], { axis, reduction: "add" }),
          ],
          ...linear,
        };
      },
    ));
  it("GatherND, and ScatterND setting", () =>
    check(
      dimsOf(1, 4, 1).chain((dims) =>
        fc.record({
          dims: fc.constant(dims),
          batchDims: fc.nat(dims.length - 1),
          depth: fc.integer({ min: 1, max: dims.length }),
          count: fc.nat(3),
          random,
        }),
      ),
      ({ dims, batchDims, depth, count, random }) => {
        const width = Math.min(depth, dims.length - batchDims);
        const of = [...dims.slice(0, batchDims), count, width];
        const values = Array.from({ length: product(of) }, (_, i) => {
          const size = dims[batchDims + (i % width)] as number;
          return ((random.next().value as number) % (2 * size)) - size;
        });
        // Indices of a scatter that sets must differ: one of them.
        const one = dims.slice(0, width).map((size) => (random.next().value as number) % size);
        return {
          inputs: [
            { dims },
            { dims: of, type: "int64", values, known: true },
            { dims: [1, width], type: "int64", values: one, known: true },
            { dims: [1, ...dims.slice(width)] },
          ],
          build: (b, [x, i, at, u]) => [
            b.op("GatherND", [x, i] as string[], { batch_dims: batchDims }),
            b.op("ScatterND", [x, at, u] as string[]),
          ],
          shapes: ["static", "batch"],
          ...linear,
        };
      },
      30,
    ));
});

describe("Resize", () => {
  const transformations = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"];
  it("to any size, in any mode", () =>
    check(
      fc.record({
        from: dimsOf(2, 2, 1, 6),
        to: dimsOf(2, 2, 1, 9),
        mode: fc.constantFrom("nearest", "linear", "cubic"),
        coordinate_transformation_mode: fc.constantFrom(...transformations),
        nearest_mode: fc.constantFrom("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
      }),
      ({ from, to, ...attributes }) => ({
        inputs: [{ dims: [1, 2, ...from] }],
        build: (b, [x]) => b.op("Resize", [x as string, "", "", b.i64([1, 2, ...to])], attributes),
        precision: "float32",
        shapes: ["static"],
        step: 0.5,
        tolerance: 1e-5,
      }),
      60,
    ));
  it("by any scales", () =>
    check(
      fc.record({
        from: dimsOf(2, 2, 1, 6),
        scales: fc.array(fc.integer({ min: 4, max: 50 }), { minLength: 2, maxLength: 2 }),
        mode: fc.constantFrom("nearest", "linear"),
        coordinate_transformation_mode: fc.constantFrom(...transformations),
        nearest_mode: fc.constantFrom("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
      }),
      ({ from, scales, ...attributes }) => {
        // To nothing makes no sense, and to its own size is refused.
        fc.pre(from.every((size, i) => ![0, size].includes(Math.floor((size * (scales[i] as number)) / 13))));
        return {
          inputs: [{ dims: [1, 2, ...from] }],
          build: (b, [x]) =>
            b.op("Resize", [x as string, "", b.f32([1, 1, ...scales.map((scale) => scale / 13)])], attributes),
          precision: "float32",
          shapes: ["static"],
          ...linear,
          tolerance: 1e-5,
        };
      },
      40,
    ));
  it("by whole scales, of one to three axes whose sizes are unknown", () =>
    check(
      fc.record({
        from: dimsOf(1, 3, 1),
        scales: dimsOf(3, 3, 1, 4),
        modes: fc.constantFrom(
          { coordinate_transformation_mode: "asymmetric", nearest_mode: "floor" },
          { coordinate_transformation_mode: "half_pixel", nearest_mode: "round_prefer_floor" },
          { coordinate_transformation_mode: "pytorch_half_pixel", nearest_mode: "round_prefer_ceil" },
        ),
      }),
      ({ from, scales, modes }) => ({
        inputs: [{ dims: [2, 2, ...from] }],
        build: (b, [x]) => b.op("Resize", [x as string, "", b.f32([1, 1, ...scales.slice(0, from.length)])], modes),
        precision: "float32",
        shapes: ["static", "symbolic"],
        ...linear,
        tolerance: 1e-5,
      }),
      40,
    ));
});

describe("normalisations", () => {
  const epsilon = float(1e-2);
  it("LayerNormalization", () =>
    check(
      dimsOf(1, 4, 1).chain((dims) => axisOf(dims.length).map((axis) => ({ dims, axis }))),
      ({ dims, axis }) => {
        const of = dims.slice(axis < 0 ? axis + dims.length : axis);
        return {
          inputs: [{ dims }, { dims: of, known: true }, { dims: of, known: true }],
          build: (b, x) => b.op("LayerNormalization", x, { axis, epsilon }),
          tolerance: 1e-5,
        };
      },
    ));
  it("InstanceNormalization", () =>
    check(dimsOf(3, 5, 1), (dims) => ({
      inputs: [{ dims }, { dims: [dims[1] as number], known: true }, { dims: [dims[1] as number], known: true }],
      build: (b, x) => b.op("InstanceNormalization", x, { epsilon }),
      precision: "float32",
      tolerance: 1e-3,
    })));
  it("GroupNormalization", () =>
    check(fc.record({ dims: dimsOf(3, 4, 1), groups: fc.integer({ min: 1, max: 3 }) }), ({ dims, groups }) => {
      const [n, perGroup, ...spatial] = dims as [number, number, ...number[]];
      const channels = perGroup * groups;
      return {
        inputs: [{ dims: [n, channels, ...spatial] }, { dims: [groups], known: true }, { dims: [groups], known: true }],
        build: (b, x) => b.op("GroupNormalization", x, { num_groups: groups, epsilon }),
        precision: "float32",
        shapes: ["static", "batch"],
        tolerance: 1e-3,
      };
    }));
});
