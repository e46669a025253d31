/** Standard normal numbers, and the normal quantile function, in a graph. */
import type { GraphBuilder } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import type { RandomSource } from "./family.js";
import { emitLog } from "./log.js";
import { flatten, unflatten } from "./shapes.js";
import { normalQuantile } from "./special.js";

/**
 * x²/(u − ½)² as a ratio of polynomials in w = −log(4u(1 − u)): one branch for both tails. Fitted for this project;
 * Kolmogorov distance 2e-6, relative error 1.5e-5 down to u = 2e-10.
 */
const NUMERATOR = [6.2833759, 4.15336331, 1.30846543, 0.24076477, 0.03744878];
const DENOMINATOR = [1, 0.13790425, 0.03989807, 0.00468877];

/** Horner's scheme; coefficients from the constant up. */
export function emitPolynomial(b: GraphBuilder, coefficients: readonly number[], x: string): string {
  let value = b.f32(coefficients[coefficients.length - 1] as number);
  for (let i = coefficients.length - 2; i >= 0; i--) value = b.add(b.mul(value, x), b.f32(coefficients[i] as number));
  return value;
}

/** The standard normal quantile of `u` in (0, 1), elementwise. */
export function normalQuantileOf(b: GraphBuilder, u: string): string {
  const product = b.mul(b.mul(u, b.f32(4)), b.sub(b.f32(1), u));
  // The product may round to slightly more than 1 at u = ½.
  const w = b.max(b.neg(emitLog(b, product)), b.f32(0));
  const ratio = b.div(emitPolynomial(b, NUMERATOR, w), emitPolynomial(b, DENOMINATOR, w));
  return b.mul(b.sub(u, b.f32(0.5)), b.sqrt(ratio));
}

/** Kolmogorov distance 1/8192; a table that stays in the first-level cache. */
const BITS = 12;

/**
 * Means of the standard normal over cells of equal probability, (φ(z_j) − φ(z_{j+1}))·2^bits, scaled to variance 1.
 */
const cells = lazy(() => {
  const count = 2 ** BITS;
  const density = (j: number) => {
    if (j === 0 || j === count) return 0;
    const z = normalQuantile(j / count);
    return Math.exp(-(z * z) / 2) / Math.sqrt(2 * Math.PI);
  };
  const means = Float64Array.from({ length: count }, (_, j) => (density(j) - density(j + 1)) * count);
  const deviation = Math.sqrt(means.reduce((sum, z) => sum + z * z, 0) / count);
  return Float32Array.from(means, (z) => z / deviation);
});

/** Standard normal float32 numbers of the shape that the int64 vector `shape` holds. */
export function normal(b: GraphBuilder, random: RandomSource, shape: string): string {
  return b.scope("normal", () => normalQuantileOf(b, random.uniform(b, shape)));
}

/** The same by one look-up each, within 1/8192 in probability. @param integers draws uint32 of so many bits, of `shape`. */
export function lookedUpNormal(b: GraphBuilder, integers: (bits: number) => string, shape: string): string {
  const values = cells();
  const table = b.initializer("cells", DataType.FLOAT, [values.length], values);
  const index = b.cast(flatten(b, integers(BITS)), DataType.INT32);
  return unflatten(b, b.op("GatherElements", [table, index], { axis: 0 }), shape);
}

function lazy<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
