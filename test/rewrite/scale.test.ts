/** Models of hundreds of millions of parameters are rewritten as graphs: their weights are never looked at. */
import { expect, it } from "vitest";
import { problemsOf } from "../../src/onnx/check.js";
import { opsetOf } from "../../src/onnx/versions.js";
import { inspectModel } from "../../src/rewrite/inspect.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { gpt } from "../../tools/bench/gpt.js";

const loss = { loss: "softmax-cross-entropy" } as const;

it("inspects a transformer of 124 million parameters whose weights are not there", async () => {
  const description = await inspectModel(gpt(12).model, loss);
  expect(description.parameters.reduce((total, { elements }) => total + elements, 0)).toBe(124_439_808);
  expect(description.withoutGradient).toEqual([]);
  // Four dense layers and two normalisations in each block, the last normalisation, and the output.
  expect(description.layers).toHaveLength(12 * 6 + 2);
});

it("rewrites one of 96 layers, by as many nodes a layer as a small one", async () => {
  const sizes = new Map<number, number>();
  for (const layers of [1, 2, 96]) {
    const { model, manifest } = await rewrite(gpt(layers).model, loss);
    expect(problemsOf(model)).toEqual([]);
    expect(opsetOf(model)).toBe(18);
    expect(manifest.boundaries).toHaveLength(layers * 6 + 2);
    // Six weights and six biases in each block; two embeddings and the last normalisation.
    expect(manifest.parameters).toHaveLength(layers * 12 + 4);
    sizes.set(layers, model.graph.node.length);
  }
  const [one, two, many] = [1, 2, 96].map((layers) => sizes.get(layers) as number) as [number, number, number];
  expect(many - one).toBe(95 * (two - one));
});
