/** The family of a linear output ŷ = slope·a + offset: N(ŷ, slope). */
import { DataType } from "../onnx/proto.js";
import { divided, type Family } from "./family.js";
import { normal } from "./normal.js";
import { coin } from "./random.js";
import { normalQuantile } from "./special.js";

/**
 * @param slope > 0; the variance of y
 * @param offset added to slope·a
 */
export function gaussian(slope = 1, offset = 0): Family {
  const isIdentity = slope === 1 && offset === 0;
  const deviation = Math.sqrt(slope);
  const activation = (a: number) => slope * a + offset;
  return {
    name: "gaussian",
    parameters: isIdentity ? {} : { slope, offset },
    residual(b, input) {
      const { a, random, draw, pool } = input;
      const scaled = (unit: string) => (slope === 1 ? unit : b.mul(unit, b.f32(deviation)));
      if (draw === "fast" && pool) return scaled(pool.normals(input.divisor));
      const shape = b.shape(a);
      const unit = draw === "two-point" ? coin(b, random, shape) : normal(b, random, shape);
      return divided(b, scaled(unit), input);
    },
    moments(b, { a, activation: known }) {
      const mean = known ?? (isIdentity ? a : b.add(b.mul(a, b.f32(slope)), b.f32(offset)));
      return { mean, variance: b.expand(b.constant(DataType.FLOAT, slope), b.shape(a)) };
    },
    logDensity: (b, { y, a }) => {
      const mean = isIdentity ? a : b.add(b.mul(a, b.f32(slope)), b.f32(offset));
      const distance = b.sub(y, mean);
      const exponent = b.mul(b.mul(distance, distance), b.f32(-1 / (2 * slope)));
      return b.sub(exponent, b.f32(Math.log(2 * Math.PI * slope) / 2));
    },
    scalar: {
      support: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
      activation,
      logDensity: (y, a) => -((y - activation(a)) ** 2) / (2 * slope) - Math.log(2 * Math.PI * slope) / 2,
      mean: activation,
      variance: () => slope,
      quantile: (u, a) => activation(a) + deviation * normalQuantile(u),
    },
  };
}
