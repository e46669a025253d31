/** Quantisation passed straight through: values of the pair, slope of the identity inside the range, none outside. */
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { planReverse } from "../../../src/autodiff/reverse.js";
import type { GraphBuilder } from "../../../src/onnx/builder.js";
import { DataType } from "../../../src/onnx/proto.js";
import { rewrite } from "../../../src/rewrite/rewrite.js";
import { f32, relativeError, runModel } from "../../support/run.js";
import { expectLowered, lower, modelWith, Source } from "./support.js";

interface Scheme {
  readonly scale: (b: GraphBuilder) => string;
  readonly zero: (b: GraphBuilder) => string;
  /** Scale and zero point of column j, and the limits of the type. */
  readonly of: (j: number) => readonly [number, number];
  readonly limits: readonly [number, number];
  readonly axis?: number;
}

const SCHEMES: Record<string, Scheme> = {
  "uint8 per tensor": {
    scale: (b) => b.f32(0.02),
    zero: (b) => b.constant(DataType.UINT8, 100),
    of: () => [0.02, 100],
    limits: [0, 255],
  },
  "int8 per column": {
    scale: (b) => b.f32([0.01, 0.005, 0.02]),
    zero: (b) => b.constant(DataType.INT8, [0, 3, -5]),
    of: (j) => [[0.01, 0.005, 0.02][j] as number, [0, 3, -5][j] as number],
    limits: [-128, 127],
    axis: 1,
  },
  "int8 per column, counted from the end": {
    scale: (b) => b.f32([0.01, 0.005, 0.02]),
    zero: (b) => b.constant(DataType.INT8, [0, 3, -5]),
    of: (j) => [[0.01, 0.005, 0.02][j] as number, [0, 3, -5][j] as number],
    limits: [-128, 127],
    axis: -1,
  },
};

/** y = quantised and dequantised (x ⊙ w), w one number per column. */
function model({ scale, zero, axis }: Scheme) {
  return modelWith((b) => {
    const x = b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 3] });
    const product = b.mul(x, b.initializer("w", DataType.FLOAT, [3], Float32Array.of(1, 0.7, -1.3)));
    const [s, z] = [scale(b), zero(b)];
    const attributes = { axis };
    const quantised = b.op("QuantizeLinear", [product, s, z], attributes);
    return [b.op("DequantizeLinear", [quantised, s, z], attributes)];
  });
}

describe.each(Object.entries(SCHEMES))("straight through, %s", (_, scheme) => {
  const x = new Source(8).tensor([16, 3], 3);

  it("keeps the values", async () => {
    const { graph } = (await expectLowered(model(scheme), { x }, [], 1e-6, { straightThrough: true })).model;
    const plan = planReverse({
      forward: graph,
      types: new Map(),
      wrt: ["w"],
      seeds: new Set(graph.output.map((o) => o.name ?? "")),
    });
    expect(plan.walk.map(({ opType }) => opType)).not.toContain("QuantizeLinear");
  });

  it("has the gradient of the identity inside the range", async () => {
    const program = await rewrite(model(scheme), {
      loss: "mean-squared-error",
      sections: { kind: "none" },
      straightThrough: true,
    });
    expect(program.manifest.parameters.map(({ name }) => name)).toEqual(["w"]);
    const target = new Source(9).tensor([16, 3]);
    const seed = new ort.Tensor("int64", BigInt64Array.of(1n), []);
    const results = await runModel(program.model, { x, target, seed });
    const expected = Array<number>(3).fill(0);
    let clipped = 0;
    for (let i = 0; i < 16; i++) {
      for (let j = 0; j < 3; j++) {
        const [s, z] = scheme.of(j);
        const input = (x.data as Float32Array)[3 * i + j] as number;
        const value = input * ([1, 0.7, -1.3][j] as number);
        const steps = Math.round(value / s) + z;
        const bounded = Math.min(Math.max(steps, scheme.limits[0]), scheme.limits[1]);
        if (bounded !== steps) clipped++;
        else {
          const error = (bounded - z) * s - ((target.data as Float32Array)[3 * i + j] as number);
          expected[j] = (expected[j] as number) + (2 / 48) * error * input;
        }
      }
    }
    expect(clipped, "some lie outside").toBeGreaterThan(3);
    const gradient = results.w_grad?.data as Float32Array;
    expect(relativeError(gradient, expected)).toBeLessThan(1e-5);
  });
});

describe("quantisation without the option", () => {
  it("stands in the way, both nodes named with the remedy", async () => {
    const rewriting = rewrite(model(SCHEMES["uint8 per tensor"] as Scheme), { loss: "mean-squared-error" });
    await expect(rewriting).rejects.toThrow(
      /QuantizeLinear .*--straight-through.*\n.*DequantizeLinear .*--straight-through/,
    );
  });

  it("stays where nothing before it trains", async () => {
    const frozen = modelWith((b) => {
      const x = b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 3] });
      const [s, z] = [b.f32(0.02), b.constant(DataType.UINT8, 100)];
      const y = b.op("DequantizeLinear", [b.op("QuantizeLinear", [x, s, z]), s, z]);
      return [b.mul(y, new Source(1).weight(b, "w", [3]))];
    });
    const { operators, refusals } = await lower(frozen);
    expect(operators).toEqual(["QuantizeLinear", "DequantizeLinear", "Mul"]);
    expect(refusals.size).toBe(0);
    const program = await rewrite(frozen, { loss: "mean-squared-error", sections: { kind: "none" } });
    const seed = new ort.Tensor("int64", BigInt64Array.of(1n), []);
    const results = await runModel(program.model, { x: f32([1, 2, 3], [1, 3]), target: f32([0, 0, 0], [1, 3]), seed });
    expect(results.w_grad?.dims).toEqual([3]);
  });

  it("refuses what is only dequantised from something that is no quantised value", async () => {
    const odd = modelWith((b) => {
      const x = b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 3] });
      const w = new Source(1).weight(b, "w", [3]);
      const [s, z] = [b.f32(0.02), b.constant(DataType.UINT8, 100)];
      const quantised = b.op("QuantizeLinear", [b.mul(x, w), s, z]);
      return [b.op("DequantizeLinear", [b.reshape(quantised, [-1]), s, z])];
    });
    const rewriting = rewrite(odd, { loss: "mean-squared-error", straightThrough: true });
    await expect(rewriting).rejects.toThrow(/DequantizeLinear .*comes from no QuantizeLinear/);
  });
});
