/** Softmax and LogSoftmax along one axis (opset 13 and up: no flattening to 2-D). */
import { intOf } from "../../onnx/attributes.js";
import type { GradientContext } from "../rule.js";
import { unary } from "./elementary.js";

/** y ⊙ dy − y·Σ(y ⊙ dy) */
export const softmax = unary("Softmax", (c, dy) => {
  const weighted = c.b.mul(dy, c.output());
  return c.b.sub(weighted, c.b.mul(c.output(), sumAlong(c, weighted)));
});

/** dy − exp(y)·Σ dy */
export const logSoftmax = unary("LogSoftmax", (c, dy) => c.b.sub(dy, c.b.mul(c.b.exp(c.output()), sumAlong(c, dy))));

function sumAlong(c: GradientContext, x: string): string {
  return c.b.reduceSum(x, [intOf(c.node, "axis", -1)], true);
}
