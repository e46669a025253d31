/** How the gradient that feeds the statistics compares with the true one. */
import type { GraphBuilder } from "../../onnx/builder.js";
import type { ParameterSpec, StepValues } from "../optimizer.js";

/** Metrics over all given parameters: `gradient/norm`, `gradient/sampled_norm` and `gradient/cosine` (0 if one is zero). */
export function emitGradientMetrics(
  b: GraphBuilder,
  parameters: readonly ParameterSpec[],
  values: StepValues,
): Map<string, string> {
  const sum = (terms: string[]) => (terms.length === 1 ? (terms[0] as string) : b.op("Sum", terms));
  const product = (x: (name: string) => string, y: (name: string) => string) =>
    sum(parameters.map(({ name }) => b.reduceSum(b.mul(x(name), y(name)), undefined, false)));
  const gradient = (name: string) => values.gradient(name);
  const sampled = (name: string) => values.statisticsGradient(name);
  const norm = b.sqrt(product(gradient, gradient));
  const sampledNorm = b.sqrt(product(sampled, sampled));
  const cosine = b.div(product(gradient, sampled), b.max(b.mul(norm, sampledNorm), b.f32(1e-30)));
  return new Map([
    ["gradient/norm", norm],
    ["gradient/sampled_norm", sampledNorm],
    ["gradient/cosine", cosine],
  ]);
}
