/** Bodies of the activations' gradients. */
import { floatOf } from "../../onnx/attributes.js";
import { at, type BodyContext, scalarLike } from "./body.js";

export function softmaxGrad(context: BodyContext, axes: readonly number[]): string {
  const { b } = context;
  const [dy, y] = [at(context, 0), at(context, 1)];
  return b.mul(y, b.sub(dy, b.reduceSum(b.mul(dy, y), axes, true)));
}

/** dY·(Φ(x) + x φ(x)). */
export function geluGrad(context: BodyContext, x: string): string {
  const { b } = context;
  const c = (value: number) => scalarLike(context, 1, value);
  const cdf = b.mul(c(0.5), b.add(c(1), b.op("Erf", [b.mul(x, c(Math.SQRT1_2))])));
  const density = b.mul(b.exp(b.mul(b.mul(x, x), c(-0.5))), c(1 / Math.sqrt(2 * Math.PI)));
  return b.mul(at(context, 0), b.add(cdf, b.mul(x, density)));
}

/** Of x/2·(1 + tanh u), u = √(2/π)(x + 0.044715x³): dY/2·(1 + tanh u + x(1 − tanh² u)u′). */
export function tanhGeluGrad(context: BodyContext, x: string): string {
  const { b } = context;
  const c = (value: number) => scalarLike(context, 1, value);
  const slope = Math.sqrt(2 / Math.PI);
  const square = b.mul(x, x);
  const t = b.op("Tanh", [b.mul(b.mul(x, b.add(c(1), b.mul(square, c(0.044715)))), c(slope))]);
  const inner = b.mul(b.add(c(1), b.mul(square, c(3 * 0.044715))), c(slope));
  const rest = b.mul(b.mul(x, b.sub(c(1), b.mul(t, t))), inner);
  return b.mul(b.mul(at(context, 0), c(0.5)), b.add(b.add(c(1), t), rest));
}

/** Of x·σ(αx): dY·σ(1 + αx(1 − σ)). */
export function quickGeluGrad(context: BodyContext): readonly string[] {
  const { b, node } = context;
  const c = (value: number) => scalarLike(context, 1, value);
  const scaled = b.mul(at(context, 1), c(floatOf(node, "alpha", 1.702)));
  const gate = b.op("Sigmoid", [scaled]);
  return [b.mul(at(context, 0), b.mul(gate, b.add(c(1), b.mul(scaled, b.sub(c(1), gate)))))];
}
