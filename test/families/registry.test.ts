/** Which family an activation node gets, or why none. */
import { describe, expect, test } from "vitest";
import { FishyError } from "../../src/errors.js";
import type { Family, ScalarFamily } from "../../src/families/family.js";
import { familyByName, familyNames, familyOfActivation } from "../../src/families/registry.js";
import { type Attributes, attributesFrom, float } from "../../src/onnx/attributes.js";
import { DataType, type NodeProto, type TensorProto } from "../../src/onnx/proto.js";
import { tensorFromNumbers } from "../../src/onnx/tensor.js";
import { Accumulator, constantRandom, residualRunner, rowsOf } from "./support.js";

function node(opType: string, attributes: Attributes = {}, inputs: string[] = ["x"], domain = ""): NodeProto {
  return { opType, input: inputs, output: ["y"], attribute: attributesFrom(attributes), name: "act", domain };
}

function constants(values: Record<string, number[] | number>): (name: string) => TensorProto | undefined {
  return (name) => {
    const value = values[name];
    if (value === undefined) return undefined;
    return typeof value === "number"
      ? tensorFromNumbers(name, DataType.FLOAT, [], [value])
      : tensorFromNumbers(name, DataType.FLOAT, [value.length], value);
  };
}

function familyOf(given: NodeProto, values: Record<string, number[] | number> = {}): Family {
  const found = familyOfActivation(given, constants(values));
  if (!found || "refused" in found) throw new Error(`no family: ${found?.refused}`);
  return found;
}

function refusalOf(given: NodeProto, values: Record<string, number[] | number> = {}): string {
  const found = familyOfActivation(given, constants(values));
  if (!found || !("refused" in found)) throw new Error("not refused");
  return found.refused;
}

describe("activations of ONNX", () => {
  test.each([
    ["Identity", {}, "gaussian", {}],
    ["Sigmoid", {}, "bernoulli", {}],
    ["Softmax", {}, "softmax", { axis: -1 }],
    ["Softmax", { axis: 1 }, "softmax", { axis: 1 }],
    ["LogSoftmax", { axis: 2 }, "softmax", { axis: 2 }],
    ["Tanh", {}, "tanh", {}],
    ["Relu", {}, "relu", {}],
    ["LeakyRelu", {}, "leaky_relu", { alpha: 0.01 }],
    ["LeakyRelu", { alpha: float(0.2) }, "leaky_relu", { alpha: 0.2 }],
    ["LeakyRelu", { alpha: float(0) }, "relu", {}],
    ["Softplus", {}, "softplus", {}],
    ["Elu", {}, "elu", { alpha: 1 }],
    ["Celu", { alpha: float(2) }, "celu", { alpha: 2 }],
    ["Selu", {}, "selu", {}],
    ["Softsign", {}, "softsign", {}],
    ["HardSigmoid", {}, "hard_sigmoid", { alpha: 0.2, beta: 0.5 }],
    ["Erf", {}, "erf", {}],
    ["Atan", {}, "atan", {}],
    ["Asinh", {}, "asinh", {}],
    ["Sign", {}, "sign", {}],
    ["ThresholdedRelu", {}, "thresholded_relu", { alpha: 1 }],
    ["Shrink", { bias: float(0.5) }, "shrink", { lambd: 0.5, bias: 0.5 }],
  ] as [string, Attributes, string, Record<string, number>][])("%s %j → %s", (opType, attributes, name, parameters) => {
    const family = familyOf(node(opType, attributes));
    expect(family.name).toBe(name);
    expect(Object.keys(family.parameters)).toEqual(Object.keys(parameters));
    for (const [key, value] of Object.entries(parameters)) expect(family.parameters[key]).toBeCloseTo(value, 7);
  });

  test("Clip takes its bounds from constants", () => {
    const clip = node("Clip", {}, ["x", "low", "high"]);
    expect(familyOf(clip, { low: 0, high: 6 }).parameters).toEqual({ min: 0, max: 6 });
    expect(familyOf(node("Clip", {}, ["x", "low"]), { low: -1 }).parameters).toEqual({ min: -1 });
    expect(familyOf(node("Clip", {}, ["x", "", "high"]), { high: 1 }).parameters).toEqual({ max: 1 });
    // Exporters write a missing bound as the largest float32.
    expect(familyOf(clip, { low: 0, high: 3.4028234663852886e38 }).parameters).toEqual({ min: 0 });
    expect(familyOf(node("Clip")).name).toBe("gaussian");
    expect(refusalOf(clip, { low: 0 })).toMatch(/'high'/);
    expect(refusalOf(clip, { low: 2, high: 2 })).toMatch(/constant/);
  });

  test("PRelu's slopes are a value of the graph", () => {
    const given = node("PRelu", {}, ["x", "slope"]);
    expect(familyOf(given, { slope: [0.25, 0.1] }).name).toBe("prelu");
    expect(familyOf(given).name).toBe("prelu");
    expect(refusalOf(given, { slope: [0.25, -0.1] })).toMatch(/negative slopes/);
  });

  test.each([
    ["Gelu", {}],
    ["Mish", {}],
    ["HardSwish", {}],
    ["Swish", {}],
  ])("%s has no family, and the reason says so", (opType, attributes) => {
    expect(refusalOf(node(opType, attributes))).toMatch(/not monotone/);
  });

  test("contributed Gelu operators are refused, other domains are not activations", () => {
    expect(refusalOf(node("FastGelu", {}, ["x"], "com.microsoft"))).toMatch(/not monotone/);
    expect(familyOfActivation(node("Tanh", {}, ["x"], "my.domain"), () => undefined)).toBeUndefined();
  });

  test.each([
    ["LeakyRelu", { alpha: float(-0.1) }, /negative slope alpha = -0\.1/],
    ["LeakyRelu", { alpha: float(1e-6) }, /alpha from 0\.0001 to 100/],
    ["Elu", { alpha: float(-1) }, /negative slope/],
    ["Celu", { alpha: float(-1) }, /alpha > 0/],
    ["Selu", { gamma: float(-1) }, /both positive/],
    ["HardSigmoid", { alpha: float(0) }, /alpha > 0/],
    ["ThresholdedRelu", { alpha: float(-1) }, /below 0/],
    ["Shrink", { lambd: float(0.5), bias: float(1) }, /0 ≤ lambd ≥ bias/],
  ] as [string, Attributes, RegExp][])("%s %j is refused", (opType, attributes, reason) => {
    const refusal = refusalOf(node(opType, attributes));
    expect(refusal).toMatch(reason);
    expect(refusal).toContain("'act'");
  });

  test.each(["Conv", "Gemm", "Add", "MaxPool", "Exp"])("%s is no activation", (opType) => {
    expect(familyOfActivation(node(opType), () => undefined)).toBeUndefined();
  });
});

/** Of fast ones. */
const DRAWS = 100_000;

describe("parameters at the ends of their ranges still have exact enough tables", () => {
  test.each([
    ["LeakyRelu", { alpha: float(1e-4) }],
    ["LeakyRelu", { alpha: float(100) }],
    ["Elu", { alpha: float(100) }],
    ["Celu", { alpha: float(0.01) }],
    ["Celu", { alpha: float(100) }],
    ["Selu", { alpha: float(10), gamma: float(0.01) }],
    ["ThresholdedRelu", { alpha: float(30) }],
    ["Shrink", { lambd: float(5), bias: float(0) }],
    ["Shrink", { lambd: float(0), bias: float(-5) }],
    ["HardSigmoid", { alpha: float(1e4) }],
  ] as [string, Attributes][])("%s %j", async (opType, attributes) => {
    const family = familyOf(node(opType, attributes));
    const scalar = family.scalar as ScalarFamily;
    const values = [-20, -1.3, 0.2, 2.6, 31];
    const one = await residualRunner(family, { random: () => constantRandom(0.37) }, ["n"]);
    const [exact] = await one.run(Float32Array.from(values), [values.length]);
    await one.release();
    for (const [i, a] of values.entries()) {
      const y = scalar.quantile(0.37, a);
      const error = Math.abs((exact?.[i] as number) - (y - scalar.activation(a)));
      expect(error * Math.exp(scalar.logDensity(y, a)), `a = ${a}`).toBeLessThan(1e-3);
    }
    const runner = await residualRunner(family, { draw: "fast" });
    const [residuals] = await runner.run(rowsOf(values, DRAWS), [values.length, DRAWS]);
    await runner.release();
    for (const [i, a] of values.entries()) {
      const [bias, variance] = [scalar.mean(a) - scalar.activation(a), scalar.variance(a)];
      const accumulator = new Accumulator(bias, Math.sqrt(variance));
      accumulator.add((residuals as Float32Array).subarray(i * DRAWS, (i + 1) * DRAWS));
      const sums = accumulator.sums();
      const off = 5e-3 * Math.sqrt(variance);
      expect(Math.abs(sums.mean - bias), `mean at ${a}`).toBeLessThan(5 * sums.meanError + off);
      expect(Math.abs(sums.variance - variance), `variance at ${a}`).toBeLessThan(
        5 * sums.varianceError + 5e-3 * variance,
      );
    }
  });
});

describe("families by name", () => {
  test("every name makes a family of that name with the defaults", () => {
    for (const name of familyNames) {
      if (name === "clip") continue;
      expect(familyByName(name).name).toBe(name);
    }
  });

  test.each([
    ["leaky_relu", { alpha: -1 }, /'leaky_relu' needs a number above 0 as its alpha; got -1/],
    ["elu", { alpha: -0.5 }, /at least 0 as its alpha; got -0.5/],
    ["gaussian", { slope: 0 }, /above 0 as its slope/],
    ["shrink", { bias: Number.NaN }, /that is finite as its bias; got NaN/],
  ] as const)("%s %j is refused: the activation would not rise", (name, parameters, message) => {
    expect(() => familyByName(name, parameters)).toThrow(message);
  });

  test("unknown names and parameters are errors that list the known ones", () => {
    expect(() => familyByName("gelu")).toThrow(FishyError);
    expect(() => familyByName("gelu")).toThrow(/gaussian, bernoulli, softmax/);
    expect(() => familyByName("elu", { beta: 1 })).toThrow(/no parameter 'beta'; its parameters are alpha/);
  });
});
