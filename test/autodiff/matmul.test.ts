import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { float } from "../../src/onnx/attributes.js";
import { expectGradients } from "../support/gradient-check.js";

// Bilinear: a wide step has no truncation error.
const linear = { step: 0.25, tolerance: 1e-10 } as const;

describe("MatMul", () => {
  it.each([
    [[3], [3]],
    [[2, 3], [3]],
    [[3], [3, 4]],
    [
      [2, 3],
      [3, 4],
    ],
    [
      [5, 2, 3],
      [3, 4],
    ],
    [
      [2, 1, 2, 3],
      [3, 4],
    ],
    [
      [2, 3],
      [5, 3, 4],
    ],
    [
      [5, 2, 3],
      [5, 3, 4],
    ],
    [
      [5, 2, 3],
      [1, 3, 4],
    ],
    [
      [1, 2, 3],
      [5, 3, 4],
    ],
    [
      [2, 1, 2, 3],
      [3, 3, 4],
    ],
    [
      [2, 2, 3],
      [3, 1, 3, 2],
    ],
    [[4, 2, 3], [3]],
    [[3], [4, 3, 2]],
    [
      [1, 1],
      [1, 1],
    ],
    [
      [0, 3],
      [3, 2],
    ],
    [
      [2, 0, 3],
      [3, 2],
    ],
  ])("%j × %j", (a, b) =>
    expectGradients({
      inputs: [{ dims: a }, { dims: b }],
      build: (builder, [x, y]) => builder.matMul(x as string, y as string),
      ...linear,
    }),
  );

  it("of stacks that broadcast in any way", () => {
    const dim = fc.integer({ min: 1, max: 3 });
    return fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(dim, fc.integer({ min: 0, max: 2 })), { maxLength: 3 }),
        fc.tuple(dim, dim, dim),
        fc.nat(3),
        (stack, [m, k, n], dropped) => {
          const left = stack.map(([size, choice]) => (choice === 1 ? 1 : size));
          const right = stack.map(([size, choice]) => (choice === 2 ? 1 : size)).slice(dropped);
          return expectGradients({
            inputs: [{ dims: [...left, m, k] }, { dims: [...right, k, n] }],
            build: (b, [x, y]) => b.matMul(x as string, y as string),
            ...linear,
          });
        },
      ),
      { numRuns: 15, seed: 2 },
    );
  });

  it("makes one Gemm of a sequence's weight gradient", async () => {
    const operators: string[] = [];
    await expectGradients({
      inputs: [{ dims: [2, 5, 3], wrt: false }, { dims: [3, 4] }],
      build: (b, [x, w]) => {
        const push = b.graph.node.push.bind(b.graph.node);
        b.graph.node.push = (...nodes) => {
          operators.push(...nodes.map((node) => node.opType ?? ""));
          return push(...nodes);
        };
        return b.matMul(x as string, w as string);
      },
      shapes: ["batch"],
    });
    expect(operators).toEqual(["MatMul", "Flatten", "Flatten", "Gemm"]);
  });
});

describe("Gemm", () => {
  const cases = [false, true].flatMap((transA) => [false, true].map((transB) => [transA, transB] as const));
  it.each(cases)("transA %s, transB %s", (transA, transB) =>
    expectGradients({
      inputs: [{ dims: transA ? [3, 2] : [2, 3] }, { dims: transB ? [4, 3] : [3, 4] }, { dims: [4] }],
      build: (b, [x, w, c]) =>
        b.gemm(x as string, w as string, { c: c as string, transA, transB, alpha: 0.5, beta: 2 }),
      ...linear,
    }),
  );
  it.each([[[]], [[1]], [[4]], [[1, 4]], [[2, 1]], [[2, 4]], [[1, 1]]])("with a bias of shape %j", (bias) =>
    expectGradients({
      inputs: [{ dims: [2, 3] }, { dims: [3, 4] }, { dims: bias }],
      build: (b, [x, w, c]) => b.op("Gemm", [x, w, c] as string[], { alpha: float(1), beta: float(-1) }),
      ...linear,
    }),
  );
  it("without a bias", () =>
    expectGradients({
      inputs: [{ dims: [2, 3] }, { dims: [3, 4] }],
      build: (b, [x, w]) => b.gemm(x as string, w as string),
      ...linear,
    }));
});
