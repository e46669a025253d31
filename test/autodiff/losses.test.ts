import { describe, it } from "vitest";
import { expectGradients } from "../support/gradient-check.js";

const layouts = [
  { name: "rows", scores: [4, 3], labels: [4], values: [0, 2, 1, 2] },
  { name: "images", scores: [2, 3, 2, 2], labels: [2, 2, 2], values: [0, 1, 2, 1, 2, 2, 0, 1] },
  { name: "sequences", scores: [2, 3, 4], labels: [2, 4], values: [0, 1, 2, 1, 2, 2, 0, 1] },
];
const reductions = ["mean", "sum", "none"];

describe.each(["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"])("%s", (op) => {
  for (const { name, scores, labels, values } of layouts) {
    for (const reduction of reductions) {
      const variants: [string, boolean, number | undefined][] = [
        ["plain", false, undefined],
        ["weighted", true, undefined],
        ["ignoring class 2", false, 2],
        ["ignoring −100, weighted", true, -100],
      ];
      it.each(variants)(`${name}, ${reduction}, %s`, (_, weighted, ignored) =>
        expectGradients({
          inputs: [
            { dims: scores, range: [-2, 2] },
            { dims: labels, type: "int64", values: values.map((v, i) => (ignored === -100 && i % 3 === 1 ? -100 : v)) },
          ],
          build: (b, [x, y]) =>
            b.op(op, [x as string, y as string, ...(weighted ? [b.f64([0.5, 1.5, 2])] : [])], {
              reduction,
              ignore_index: ignored,
            }),
          allow: ["Size"],
        }),
      );
    }
  }
});

describe("SoftmaxCrossEntropyLoss", () => {
  it("through its log-probabilities too", () =>
    expectGradients({
      inputs: [{ dims: [4, 3] }, { dims: [4], type: "int32", values: [0, 2, 1, 2] }],
      build: (b, [x, y]) => b.node("SoftmaxCrossEntropyLoss", [x as string, y as string], { outputs: 2 }),
      shapes: ["batch"],
    }));
  it("through its log-probabilities alone", () =>
    expectGradients({
      inputs: [{ dims: [4, 3] }, { dims: [4], type: "int64", values: [0, 2, 1, 2] }],
      build: (b, [x, y]) => b.node("SoftmaxCrossEntropyLoss", [x as string, y as string], { outputs: 2 })[1] as string,
      shapes: ["batch"],
    }));
});
