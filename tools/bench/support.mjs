/** What the benchmarks of the optimizer's graphs share. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

/** Numbers in [0, 1) that are the same at every run (the constants of Numerical Recipes' generator). */
export function generator(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** The 10,000 images of Fashion-MNIST's test set, [10000, 784], in [0, 1]. */
export function images() {
  const file = new URL("../../graphs/data/fashion-mnist/t10k-images-idx3-ubyte.gz", import.meta.url);
  return Float32Array.from(gunzipSync(readFileSync(file)).subarray(16), (pixel) => pixel / 255);
}

/** A model of opset 18 around a graph. */
export function modelOf(graph) {
  return {
    irVersion: 8,
    graph,
    opsetImport: [
      { domain: "", version: 18 },
      { domain: "com.microsoft", version: 1 },
    ],
    metadataProps: [],
    trainingInfo: [],
    functions: [],
  };
}
