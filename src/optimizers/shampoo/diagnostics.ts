/** How the gradient that feeds the statistics compares with the true one. */
import type { GraphBuilder } from "../../onnx/builder.js";
import type { ParameterSpec, StepResult, StepValues } from "../optimizer.js";

/** Block metric: the cosine of each parameter's two gradients (0 if one is zero). */
export const PARAMETER_COSINE = "gradient/parameter_cosine";

/**
 * Metrics over all given parameters: `gradient/norm`, `gradient/sampled_norm` and `gradient/cosine` (0 if one is zero);
 * the cosine of each parameter as a block metric.
 */
export function emitGradientMetrics(
  b: GraphBuilder,
  parameters: readonly ParameterSpec[],
  values: StepValues,
): Required<Pick<StepResult, "metrics" | "blockMetrics">> {
  const gradient = (name: string) => values.gradient(name);
  const sampled = (name: string) => values.statisticsGradient(name);
  /** x·y of each parameter, [parameters]. */
  const products = (x: (name: string) => string, y: (name: string) => string) =>
    b.concat(
      parameters.map(({ name }) => b.reshape(b.reduceSum(b.mul(x(name), y(name)), undefined, false), [1])),
      0,
    );
  const total = (each: string) => b.reduceSum(each, undefined, false);
  const squares = products(gradient, gradient);
  const sampledSquares = products(sampled, sampled);
  const mixed = products(gradient, sampled);
  const norm = b.sqrt(total(squares));
  const sampledNorm = b.sqrt(total(sampledSquares));
  const cosine = (product: string, norms: string) => b.div(product, b.max(norms, b.f32(1e-30)));
  return {
    metrics: new Map([
      ["gradient/norm", norm],
      ["gradient/sampled_norm", sampledNorm],
      ["gradient/cosine", cosine(total(mixed), b.mul(norm, sampledNorm))],
    ]),
    blockMetrics: new Map([[PARAMETER_COSINE, cosine(mixed, b.mul(b.sqrt(squares), b.sqrt(sampledSquares)))]]),
  };
}
