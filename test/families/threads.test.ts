/** The same samples, bit for bit, whatever the number of threads: a run must not depend on the machine's cores. */
import * as ort from "onnxruntime-node";
import { expect, test } from "vitest";
import { counterRandom } from "../../src/families/random.js";
import { familyByName, familyNames } from "../../src/families/registry.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import { modelOf, newBuilder } from "../support/run.js";

/** Shapes in which a logarithm by the operator Log differs between one thread and two, three or four. */
const SHAPES = [
  [123, 457],
  [1000, 250],
];

test.each(familyNames)("%s draws the same bits on one to four threads", async (name) => {
  const family = familyByName(name);
  for (const dims of SHAPES) {
    const b = newBuilder();
    const a = b.input("a", { elemType: DataType.FLOAT, shape: dims });
    const seed = b.input("seed", { elemType: DataType.INT64, shape: [] });
    const type = { elemType: DataType.FLOAT, shape: dims };
    const residual = family.residual(b, { a, type, random: counterRandom(seed, 0), score: "paper", draw: "exact" });
    b.output(residual, { elemType: DataType.FLOAT, shape: undefined });
    const bytes = encodeModel(modelOf(b.graph));
    const count = (dims[0] as number) * (dims[1] as number);
    const feeds = {
      a: new ort.Tensor(
        "float32",
        Float32Array.from({ length: count }, (_, i) => (((i * 7919) % 10_007) - 5000) / 1000),
        dims,
      ),
      seed: new ort.Tensor("int64", [5n], []),
    };
    const results: Float32Array[] = [];
    for (const intraOpNumThreads of [1, 2, 3, 4]) {
      const session = await ort.InferenceSession.create(bytes, { intraOpNumThreads, logSeverityLevel: 3 });
      results.push((await session.run(feeds))[residual]?.data as Float32Array);
      await session.release();
    }
    const bits = (values: Float32Array | undefined) =>
      Buffer.from(values?.buffer as ArrayBuffer, values?.byteOffset, values?.byteLength);
    for (const other of results.slice(1)) expect(bits(other).equals(bits(results[0]))).toBe(true);
  }
});
