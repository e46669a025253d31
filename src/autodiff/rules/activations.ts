/** Smooth activations. Where the derivative is a function of the output, the output is what it is computed from. */
import { floatOf, stringOf } from "../../onnx/attributes.js";
import type { GradientContext } from "../rule.js";
import { unary } from "./elementary.js";

/** tanh′ = 1 − y² */
export const tanh = unary("Tanh", (c, dy) => c.b.mul(dy, oneMinus(c, c.b.mul(c.output(), c.output()))));

/** σ′ = y(1 − y) */
export const sigmoid = unary("Sigmoid", (c, dy) => c.b.mul(dy, c.b.mul(c.output(), oneMinus(c, c.output()))));

/** softplus′ = σ */
export const softplus = unary("Softplus", (c, dy) => c.b.mul(dy, c.b.op("Sigmoid", [c.input(0)])));

/** y = x/(1 + |x|), so 1 − |y| = 1/(1 + |x|), and y′ = (1 − |y|)². */
export const softsign = unary("Softsign", (c, dy) => {
  const rest = oneMinus(c, c.b.abs(c.output()));
  return c.b.mul(dy, c.b.mul(rest, rest));
});

/** x·Φ(x), or its tanh approximation. */
export const gelu = unary("Gelu", (c, dy) => {
  const x = c.input(0);
  return c.b.mul(dy, stringOf(c.node, "approximate", "none") === "tanh" ? geluTanhSlope(c, x) : geluSlope(c, x));
});

/** Φ(x) + x·φ(x) */
export function geluSlope(c: GradientContext, x: string): string {
  const { b } = c;
  const half = c.scalar(0.5, c.input(0));
  const cdf = b.add(b.mul(b.op("Erf", [b.mul(x, c.scalar(Math.SQRT1_2, c.input(0)))]), half), half);
  const pdf = b.mul(
    b.exp(b.mul(b.mul(x, x), c.scalar(-0.5, c.input(0)))),
    c.scalar(1 / Math.sqrt(2 * Math.PI), c.input(0)),
  );
  return b.add(cdf, b.mul(x, pdf));
}

/** y = x(1 + t)/2 with t = tanh(k(x + 0.044715x³)), k = √(2/π): y′ = (1 + t)/2 + x(1 − t²)·k(1 + 3·0.044715x²)/2. */
export function geluTanhSlope(c: GradientContext, x: string): string {
  const { b } = c;
  const k = Math.sqrt(2 / Math.PI);
  const cubic = 0.044715;
  const half = c.scalar(0.5, c.input(0));
  const square = b.mul(x, x);
  const inner = b.mul(x, b.add(b.mul(square, c.scalar(k * cubic, c.input(0))), c.scalar(k, c.input(0))));
  const t = b.op("Tanh", [inner]);
  const innerSlope = b.add(b.mul(square, c.scalar(1.5 * k * cubic, c.input(0))), c.scalar(0.5 * k, c.input(0)));
  const curve = b.mul(b.mul(x, oneMinus(c, b.mul(t, t))), innerSlope);
  return b.add(b.add(b.mul(t, half), half), curve);
}

/** y = x·σ(αx), so y′ = σ + α·y·(1 − σ). */
export const swish = unary("Swish", (c, dy) => {
  const x = c.input(0);
  return c.b.mul(dy, swishSlope(c, x, c.output(), floatOf(c.node, "alpha", 1)));
});

export function swishSlope(c: GradientContext, x: string, y: string, alpha: number): string {
  const { b } = c;
  const scaled = (value: string) => (alpha === 1 ? value : b.mul(value, c.scalar(alpha, c.input(0))));
  const s = b.op("Sigmoid", [scaled(x)]);
  return b.add(s, b.mul(scaled(y), oneMinus(c, s)));
}

/** y = x·t with t = tanh(softplus(x)): y′ = t + x(1 − t²)·σ(x). */
export const mish = unary("Mish", (c, dy) => {
  const { b } = c;
  const x = c.input(0);
  const t = b.op("Tanh", [b.op("Softplus", [x])]);
  return b.mul(dy, b.add(t, b.mul(b.mul(x, oneMinus(c, b.mul(t, t))), b.op("Sigmoid", [x]))));
});

function oneMinus(c: GradientContext, x: string): string {
  return c.b.sub(c.scalar(1, c.input(0)), x);
}
