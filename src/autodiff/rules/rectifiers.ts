/** Activations made of pieces: Relu and its kin. At a kink the derivative is the one PyTorch takes. */
import { floatOf } from "../../onnx/attributes.js";
import { reduceToShape } from "../broadcast.js";
import type { GradientContext, GradientRule } from "../rule.js";
import { unary } from "./elementary.js";

/** `dy` where `x > 0`, and `otherwise` elsewhere. */
const wherePositive = (c: GradientContext, x: string, dy: string, otherwise: string) =>
  c.b.where(c.b.greater(x, c.scalar(0, c.output())), dy, otherwise);

const scaled = (c: GradientContext, dy: string, factor: number) =>
  factor === 1 ? dy : c.b.mul(dy, c.scalar(factor, c.output()));

export const relu = unary("Relu", (c, dy) => wherePositive(c, c.output(), dy, c.scalar(0, c.output())));

export const leakyRelu = unary("LeakyRelu", (c, dy) => {
  const alpha = floatOf(c.node, "alpha", 0.01);
  // The output has the input's sign when alpha is not negative, and the next layer keeps it in memory anyway.
  return wherePositive(c, alpha >= 0 ? c.output() : c.input(0), dy, scaled(c, dy, alpha));
});

export const pRelu: GradientRule = {
  opType: "PRelu",
  gradient: (c) => {
    const [x, slope] = [c.input(0), c.input(1)];
    return {
      0: () => wherePositive(c, x, c.cotangent(), c.b.mul(c.cotangent(), slope)),
      1: () => reduceToShape(c, wherePositive(c, x, c.scalar(0, x), c.b.mul(c.cotangent(), x)), slope, c.output()),
    };
  },
};

export const elu = unary("Elu", (c, dy) => {
  const alpha = floatOf(c.node, "alpha", 1);
  // Left of zero y = α(eˣ − 1), so y′ = y + α.
  const left = c.b.mul(dy, c.b.add(c.output(), c.scalar(alpha, c.output())));
  return wherePositive(c, alpha >= 0 ? c.output() : c.input(0), dy, left);
});

export const selu = unary("Selu", (c, dy) => {
  const alpha = floatOf(c.node, "alpha", 1.6732632423543772);
  const gamma = floatOf(c.node, "gamma", 1.0507009873554805);
  const left = c.b.mul(dy, c.b.add(c.output(), c.scalar(alpha * gamma, c.output())));
  return wherePositive(c, alpha >= 0 && gamma > 0 ? c.output() : c.input(0), scaled(c, dy, gamma), left);
});

export const celu = unary("Celu", (c, dy) => {
  const alpha = floatOf(c.node, "alpha", 1);
  // Left of zero y = α(exp(x/α) − 1), so y′ = y/α + 1.
  const left = c.b.mul(dy, c.b.add(scaled(c, c.output(), 1 / alpha), c.scalar(1, c.output())));
  return wherePositive(c, c.output(), dy, left);
});

export const thresholdedRelu = unary("ThresholdedRelu", (c, dy) => {
  const x = c.input(0);
  const alpha = c.scalar(floatOf(c.node, "alpha", 1), x);
  return c.b.where(c.b.greater(x, alpha), dy, c.scalar(0, x));
});

/** Zero where the value was set to zero; the shift by `bias` does not change the slope. */
export const shrink = unary("Shrink", (c, dy) => {
  const x = c.input(0);
  const inside = c.b.greater(c.b.abs(x), c.scalar(floatOf(c.node, "lambd", 0.5), x));
  return c.b.where(inside, dy, c.scalar(0, x));
});

/** α strictly between the two kinks. `y(1 − y)` is positive there only: one comparison, no And (WebGPU has none). */
export const hardSigmoid = unary("HardSigmoid", (c, dy) => {
  const y = c.output();
  const inside = c.b.mul(y, c.b.sub(c.scalar(1, y), y));
  return wherePositive(c, inside, scaled(c, dy, floatOf(c.node, "alpha", 0.2)), c.scalar(0, y));
});

/** y = x · clip(x/6 + 1/2, 0, 1): 0 left of −3, 1 right of 3, x/3 + 1/2 between. */
export const hardSwish = unary("HardSwish", (c, dy) => {
  const { b } = c;
  const x = c.input(0);
  const slope = b.add(b.mul(x, c.scalar(1 / 3, x)), c.scalar(0.5, x));
  const right = b.where(b.greater(x, c.scalar(3, x)), c.scalar(1, x), slope);
  return b.mul(dy, b.where(b.less(x, c.scalar(-3, x)), c.scalar(0, x), right));
});
