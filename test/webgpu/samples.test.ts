/** The same seed draws the same on the CPU and on WebGPU, bit for bit. */
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { coin, counterRandom } from "../../src/families/random.js";
import type { GraphBuilder } from "../../src/onnx/builder.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { toWebGpuModel } from "../../src/placement/webgpu-model.js";
import { BoundSession } from "../../src/runtime/bound-session.js";
import { modelOf, newBuilder } from "../support/run.js";
import { hasWebGpu, WITHOUT } from "./driver.js";

const SHAPE = [37, 83];

/** Uniforms, coins and two streams more, as programs draw them. */
function drawing(): ModelProto {
  const b = newBuilder();
  const seed = b.input("seed", { elemType: DataType.INT64, shape: [] });
  const draw = (name: string, emit: (inner: GraphBuilder, shape: string) => string) => {
    const type = { elemType: DataType.FLOAT, shape: SHAPE };
    b.output(b.alias(emit(b, b.i64(SHAPE)), name), type);
  };
  draw("uniform", (inner, shape) => counterRandom(seed, 0).uniform(inner, shape));
  draw("other boundary", (inner, shape) => counterRandom(seed, 12).uniform(inner, shape));
  draw("coin", (inner, shape) => coin(inner, counterRandom(seed, 3), shape));
  return modelOf(b.graph);
}

describe.skipIf(!hasWebGpu)(`samples on WebGPU${WITHOUT}`, () => {
  it.each([1n, -1n, 2n ** 40n + 17n, -(2n ** 62n)])("seed %s", async (seed) => {
    const feeds = { seed: new ort.Tensor("int64", BigInt64Array.of(seed), []) };
    const onCpu = await ort.InferenceSession.create(encodeModel(drawing()));
    const expected = await onCpu.run(feeds);
    const { model, host, misplaced } = await toWebGpuModel(drawing(), ["seed"]);
    expect(misplaced).toEqual([]);
    const halves = await ort.InferenceSession.create(encodeModel(host as ModelProto));
    const device = await BoundSession.create(model, { purpose: "drawing", strict: true, locationOf: () => "host" });
    const actual = await device.run((await halves.run(feeds)) as Record<string, ort.Tensor>);
    for (const name of onCpu.outputNames) {
      const bits = (tensors: Readonly<Record<string, ort.Tensor>>, name: string) =>
        new Uint32Array(((tensors[name] as ort.Tensor).data as Float32Array).slice().buffer);
      expect(bits(actual, name), name).toEqual(bits(expected as Record<string, ort.Tensor>, name));
      expect(new Set(expected[name]?.data as Float32Array).size).toBeGreaterThan(name === "coin" ? 1 : 3000);
    }
    await device.release();
  });
});
