/** Parameter groups, gradient clipping, averages of the parameters. */
import { describe, expect, it } from "vitest";
import { matches } from "../../src/optimizers/groups.js";
import { createOptimizer, type OptimizerOptions, optionsByParameter } from "../../src/optimizers/registry.js";
import { createArrayOptimizer } from "../../src/training/array-optimizer.js";
import { momentOfState } from "../../src/training/moments.js";
import { relativeError } from "../support/run.js";
import { normals } from "./matrices.js";

const PARAMETERS = [
  { name: "encoder.weight", dims: [5, 4], data: normals(20, 1) },
  { name: "encoder.bias", dims: [5], data: normals(5, 2) },
  { name: "decoder.weight", dims: [4, 5], data: normals(20, 3) },
];
const gradient = (i: number) => ({
  "encoder.weight": normals(20, 10 + i),
  "encoder.bias": normals(5, 20 + i),
  "decoder.weight": normals(20, 30 + i),
});

async function train(options: OptimizerOptions, names = PARAMETERS.map((parameter) => parameter.name), steps = 6) {
  const optimizer = await createArrayOptimizer(
    options,
    PARAMETERS.filter((parameter) => names.includes(parameter.name)),
  );
  const metrics: Record<string, number>[] = [];
  for (let i = 0; i < steps; i++) metrics.push((await optimizer.step(gradient(i), gradient(i + 100))).metrics);
  await optimizer.release();
  return { optimizer, metrics, at: (name: string) => optimizer.parameters.get(name) as Float32Array };
}

describe("parameter groups", () => {
  it("match names by patterns", () => {
    expect(matches("*.bias", "encoder.bias")).toBe(true);
    expect(matches("encoder.*", "encoder.bias")).toBe(true);
    expect(matches("encoder", "encoder.bias")).toBe(false);
    expect(matches("a.c", "abc")).toBe(false);
    expect(matches("*", "")).toBe(true);
  });

  it("take the moments of another program as their own optimizers have them", () => {
    const options: OptimizerOptions = {
      name: "soap",
      groups: [
        { parameters: "encoder.weight", options: { name: "adamw" } },
        { parameters: "encoder.bias", options: { name: "shampoo" } },
      ],
    };
    const own = optionsByParameter(options, PARAMETERS);
    const moment = (parameter: string, state: string) => momentOfState(`${parameter}/${state}`, own.get(parameter));
    expect(moment("encoder.weight", "exp_avg")).toBe("encoder.weight/first");
    expect(moment("encoder.bias", "graft")).toBe("encoder.bias/second");
    expect(moment("decoder.weight", "exp_avg_sq")).toBeUndefined();
  });

  it("are optimizers of their own, side by side", async () => {
    const shampoo: OptimizerOptions = {
      name: "shampoo",
      startStep: 2,
      rootInterval: 2,
      weightDecay: 0.1,
      learningRate: 0.1,
    };
    const together = await train({
      ...shampoo,
      groups: [
        { parameters: "*.bias", options: { name: "sgd", learningRate: 0.5 } },
        { parameters: ["decoder.*"], options: { weightDecay: 0, learningRate: 0.2 } },
      ],
    });
    const encoder = await train(shampoo, ["encoder.weight"]);
    const bias = await train({ name: "sgd", learningRate: 0.5 }, ["encoder.bias"]);
    const decoder = await train({ ...shampoo, weightDecay: 0, learningRate: 0.2 }, ["decoder.weight"]);
    expect(together.at("encoder.weight")).toEqual(encoder.at("encoder.weight"));
    expect(together.at("encoder.bias")).toEqual(bias.at("encoder.bias"));
    expect(together.at("decoder.weight")).toEqual(decoder.at("decoder.weight"));
    expect(together.metrics[1]).toHaveProperty("roots/residual");
    expect(together.metrics[1]).toHaveProperty("group2/roots/residual");
    expect([...together.optimizer.state.keys()]).toEqual(
      expect.arrayContaining([
        "encoder.weight/statistics0",
        "decoder.weight/statistics0",
        "roots/5^4/failures",
        "group2/roots/5^4/failures",
      ]),
    );
  });

  it("freeze", async () => {
    const options: OptimizerOptions = { name: "adam", groups: [{ parameters: "encoder.*", frozen: true }] };
    const { at, optimizer } = await train(options);
    expect(at("encoder.weight")).toEqual(Float32Array.from(PARAMETERS[0]?.data ?? []));
    expect(at("decoder.weight")).not.toEqual(Float32Array.from(PARAMETERS[2]?.data ?? []));
    expect([...optimizer.state.keys()]).toEqual(["decoder.weight/exp_avg", "decoder.weight/exp_avg_sq"]);
  });

  it.each([
    [{ name: "adam", groups: [{ parameters: "x*" }] }, /group 'x\*' matches no parameter.*encoder.weight/],
    [{ name: "adam", groups: [{ parameters: "*", options: { beta1: 2 } }] }, /group 0: Option 'beta1' of adam must be/],
    [{ name: "adam", groups: [{ parameters: "*", options: { groups: [] } }] }, /'groups' applies to all parameters/],
    [{ name: "fishy", groups: [{ parameters: "dec*", options: { name: "shampoo" } }] }, /cannot mix fishy and shampoo/],
    [{ name: "fishy", groups: [{ parameters: "dec*", options: { rootInterval: 3 } }] }, /differ at step 13/],
    [{ name: "adam", groups: [{ parameters: 3 }] }, /'groups.0.parameters' of adam must be a pattern/],
  ])("refuse %o", (options, message) => {
    expect(() => createOptimizer(options as OptimizerOptions, PARAMETERS)).toThrow(message);
  });
});

describe("gradient clipping", () => {
  const norm = (i: number) => Math.hypot(...Object.values(gradient(i)).flat());
  it("scales all gradients to the norm, as if they had come so", async () => {
    const clipped = await train({ name: "sgd", learningRate: 1, maxGradientNorm: 2 }, undefined, 1);
    const factor = 2 / (norm(0) + 1e-6);
    const moved = Array.from(clipped.at("encoder.weight"), (x, i) => x - (PARAMETERS[0]?.data[i] as number));
    expect(
      relativeError(
        moved,
        gradient(0)["encoder.weight"].map((x) => -x * factor),
      ),
    ).toBeLessThan(1e-5);
    expect(clipped.metrics[0]?.gradient_norm).toBeCloseTo(norm(0), 4);
  });
  it("leaves small gradients alone", async () => {
    const free = await train({ name: "adam" });
    const clipped = await train({ name: "adam", maxGradientNorm: 1e6 });
    expect(clipped.at("decoder.weight")).toEqual(free.at("decoder.weight"));
  });
  it("is seen by Shampoo's statistics and not by Fishy's", async () => {
    const options = { startStep: 1, maxGradientNorm: 0.1, groups: [{ parameters: "*.bias", frozen: true }] };
    const trace = async (o: OptimizerOptions) => {
      const state = (await train(o, undefined, 1)).optimizer.state.get("encoder.weight/statistics0") as Float32Array;
      return state.filter((_, i) => i % 6 === 0).reduce((a, b) => a + b, 0) / 0.05;
    };
    const square = (i: number) => gradient(i)["encoder.weight"].reduce((a, x) => a + x * x, 0);
    const all = Math.hypot(...gradient(0)["encoder.weight"], ...gradient(0)["decoder.weight"]);
    expect((await trace({ name: "shampoo", ...options })) / (square(0) * (0.1 / all) ** 2)).toBeCloseTo(1, 4);
    expect((await trace({ name: "fishy", ...options })) / square(100)).toBeCloseTo(1, 4);
  });
});

describe("averages of the parameters", () => {
  it("are a mean at first and an exponential average later", async () => {
    const optimizer = await createArrayOptimizer({ name: "sgd", learningRate: 0.1, averageDecay: 0.75 }, PARAMETERS);
    let expected = new Array<number>(20).fill(0);
    for (let i = 0; i < 8; i++) {
      await optimizer.step(gradient(i));
      const decay = i < 3 ? i / (i + 1) : 0.75;
      const now = optimizer.parameters.get("encoder.weight") as Float32Array;
      expected = expected.map((x, k) => decay * x + (1 - decay) * (now[k] as number));
      const average = optimizer.state.get(optimizer.optimizer.averages?.get("encoder.weight") ?? "") as Float32Array;
      expect(relativeError(average, expected)).toBeLessThan(1e-6);
    }
    await optimizer.release();
  });
});
