/** Clipping of the true gradient by its norm over all parameters, before anything else sees it. */
import type { GraphBuilder } from "../onnx/builder.js";
import type { Optimizer, StepValues } from "./optimizer.js";
import { withChanges } from "./values.js";

/**
 * Multiplies every gradient by min(1, maxNorm/(‖g‖ + 10⁻⁶)), ‖g‖ the norm of all of them together, as PyTorch's
 * `clip_grad_norm_` does. Statistics see the clipped gradient if they are of the true one; sampled ones are left alone.
 * Metric: `gradient_norm`, before clipping.
 */
export function withClipping(optimizer: Optimizer, maxNorm: number): Optimizer {
  const { emitStatistics } = optimizer;
  return {
    ...optimizer,
    emitUpdate(b, values) {
      const clipped = clip(b, optimizer, values, maxNorm);
      const result = optimizer.emitUpdate(b, clipped.values);
      return { ...result, metrics: new Map([...(result.metrics ?? []), ["gradient_norm", clipped.norm]]) };
    },
    ...(emitStatistics && {
      emitStatistics: (b, values) =>
        emitStatistics(
          b,
          optimizer.statisticsSource === "sampled" ? values : clip(b, optimizer, values, maxNorm).values,
        ),
    }),
  };
}

function clip(
  b: GraphBuilder,
  optimizer: Optimizer,
  values: StepValues,
  maxNorm: number,
): { values: StepValues; norm: string } {
  const squares = optimizer.parameters.map(({ name }) =>
    b.reduce("ReduceSumSquare", values.gradient(name), undefined, false),
  );
  const norm = b.sqrt(squares.length === 1 ? (squares[0] as string) : b.op("Sum", squares));
  const factor = b.min(b.div(b.f32(maxNorm), b.add(norm, b.f32(1e-6))), b.f32(1));
  const clipped = new Map<string, string>();
  const gradient = (name: string) => {
    const known = clipped.get(name) ?? b.mul(values.gradient(name), factor);
    clipped.set(name, known);
    return known;
  };
  const sampled = optimizer.statisticsSource === "sampled";
  return { norm, values: withChanges(values, { gradient, ...(!sampled && { statisticsGradient: gradient }) }) };
}
