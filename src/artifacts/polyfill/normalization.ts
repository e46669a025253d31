/** Bodies of the normalizations: layer, RMS and batch. */
import { type Attributes, float, floatOf, intOf } from "../../onnx/attributes.js";
import { at, type BodyContext, range, rankOf, scalarLike } from "./body.js";
import { gradientsOf, typeAt } from "./from-forward.js";

/** (dY, X, scale, mean, inverse deviation) → (dX, dscale, dbias). */
export function layerNormalizationGrad(context: BodyContext): Promise<readonly string[]> {
  const { b, node } = context;
  const [dy, x, scale] = [at(context, 0), at(context, 1), at(context, 2)];
  const scaleType = typeAt(context, 2);
  const bias = b.mul(scale, scalarLike(context, 2, 0));
  return gradientsOf(context, {
    inputs: new Map([
      [x, typeAt(context, 1)],
      [scale, scaleType],
      [bias, scaleType],
    ]),
    emit: () => b.op("LayerNormalization", [x, scale, bias], { axis: intOf(node, "axis", -1) }),
    cotangent: dy,
    wrt: [x, scale, bias].slice(0, node.output.length),
  });
}

/** (dY, X, scale, 1/rms) → (dX, dscale), with x̂ = X/rms. */
export function simplifiedLayerNormalizationGrad(context: BodyContext): readonly string[] {
  const { b, node } = context;
  const [dy, x, scale, inverse] = [at(context, 0), at(context, 1), at(context, 2), at(context, 3)];
  const rank = rankOf(context, 1);
  const axis = intOf(node, "axis", -1);
  const start = axis < 0 ? axis + rank : axis;
  const normalized = b.mul(x, inverse);
  const scaled = b.mul(dy, scale);
  const mean = b.reduce("ReduceMean", b.mul(scaled, normalized), range(start, rank), true);
  const dx = b.mul(inverse, b.sub(scaled, b.mul(normalized, mean)));
  const product = b.mul(dy, normalized);
  return [dx, start === 0 ? product : b.reduceSum(product, range(0, start), false)];
}

/** (X, scale, B, mean, variance) → (Y, running mean, running variance, saved mean, saved inverse deviation). */
export function batchNormInternal(context: BodyContext): readonly string[] {
  const { b, node } = context;
  const epsilon = floatOf(node, "epsilon", 1e-5);
  const [y, mean, variance] = b.node("BatchNormalization", context.inputs, {
    outputs: 3,
    attributes: {
      ...floatAttributes({ epsilon, momentum: floatOf(node, "momentum", 0.9) }),
      training_mode: 1,
    },
  });
  const axes = [0, ...range(2, rankOf(context, 0))];
  const [x, keep] = [at(context, 0), (value: string) => b.reduce("ReduceMean", value, axes, true)];
  const batchMean = keep(x);
  const centred = b.sub(x, batchMean);
  const deviation = b.sqrt(b.add(keep(b.mul(centred, centred)), scalarLike(context, 0, epsilon)));
  const flat = (value: string) => b.reshape(value, [-1]);
  return [y, mean, variance, flat(batchMean), flat(b.op("Reciprocal", [deviation]))] as string[];
}

function floatAttributes(values: Readonly<Record<string, number>>): Attributes {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, float(value)]));
}

/** (dY, X, scale, mean, inverse deviation) → (dX, dscale, dbias), with x̂ = (X − mean)·inverse. */
export function batchNormalizationGrad(context: BodyContext): readonly string[] {
  const { b } = context;
  const [dy, x] = [at(context, 0), at(context, 1)];
  const rank = rankOf(context, 1);
  const axes = [0, ...range(2, rank)];
  const channel = (value: string) => b.reshape(value, [1, -1, ...Array(rank - 2).fill(1)]);
  const [scale, mean, inverse] = [2, 3, 4].map((i) => channel(at(context, i))) as [string, string, string];
  const normalized = b.mul(b.sub(x, mean), inverse);
  const average = (value: string) => b.reduce("ReduceMean", value, axes, true);
  const centred = b.sub(b.sub(dy, average(dy)), b.mul(normalized, average(b.mul(dy, normalized))));
  return [
    b.mul(b.mul(scale, inverse), centred),
    b.reduceSum(b.mul(dy, normalized), axes, false),
    b.reduceSum(dy, axes, false),
  ];
}
