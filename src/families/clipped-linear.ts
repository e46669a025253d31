/** The family of f(a) = clip(slope·a + offset, low, high): N(slope·a + offset, slope) truncated to [low, high]. */
import { FishyError } from "../errors.js";
import type { GraphBuilder } from "../onnx/builder.js";
import { type ContinuousDensity, scalarFamily } from "./density.js";
import { type EmitDivergence, truncatedDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { relu } from "./relu.js";
import { tableFamily } from "./table-family.js";
import type { TableLayout } from "./tables.js";

export interface ClippedLinear {
  readonly name: string;
  readonly parameters: Readonly<Record<string, number>>;
  /** > 0. */
  readonly slope: number;
  readonly offset: number;
  /** Below `high`; either may be infinite, not both. */
  readonly low: number;
  readonly high: number;
  activation(b: GraphBuilder, a: string): string;
}

/** Boxes of this many standard deviations look like one edge at a time: the other one is missed with a chance of 1e-9. */
const WIDE = 12;

export function clippedLinear(options: ClippedLinear): Family {
  const { name, low, high, slope } = options;
  if (!(low < high)) {
    throw new FishyError(`${name}: the bounds ${low} and ${high} leave a constant, which has no family.`);
  }
  if (high === Number.POSITIVE_INFINITY) return lowerEdge(options);
  if (low === Number.NEGATIVE_INFINITY) return upperEdge(options);
  if ((high - low) / Math.sqrt(slope) >= WIDE) return wideBox(options);
  return tableFamily({
    ...options,
    density: truncatedNormal(options),
    divergence: divergenceOf(options),
    layout: boxLayout(options),
  });
}

function divergenceOf({ slope, offset, low, high }: ClippedLinear): EmitDivergence {
  return truncatedDivergence(slope, offset, low, high);
}

function truncatedNormal({ slope, offset, low, high }: ClippedLinear): ContinuousDensity {
  const activation = (a: number) => Math.min(Math.max(slope * a + offset, low), high);
  return {
    support: [low, high],
    activation,
    // ((y − μ)² − (ŷ − μ)²)/(2·slope) as a product: nothing cancels.
    divergence: (y, a) => {
      const nearest = activation(a);
      return ((y - nearest) * (y + nearest - 2 * (slope * a + offset))) / (2 * slope);
    },
  };
}

/** The narrower the box, the slower its tilt changes with a. The base is free of f's kinks, which fall between nodes. */
function boxLayout({ slope, offset, low, high }: ClippedLinear): TableLayout {
  const deviation = Math.sqrt(slope);
  const width = (high - low) / deviation;
  const shift = ((low + high) / 2 - offset) / slope;
  return { scale: Math.max(2 / width, 1.75) / deviation, shift, spread: "both", base: "linear" };
}

/** One bound: Relu moved and scaled. */
function lowerEdge(options: ClippedLinear): Family {
  const { slope, offset, low } = options;
  const layout = {
    scale: 2 / Math.sqrt(slope),
    shift: (low - offset) / slope,
    spread: "below",
    base: "activation",
  } as const;
  return tableFamily({ ...options, density: truncatedNormal(options), divergence: divergenceOf(options), layout });
}

/** −y has the family of the lower edge at −a. */
function upperEdge(options: ClippedLinear): Family {
  const { name, parameters, slope, offset, high } = options;
  const mirrored = lowerEdge({
    ...options,
    offset: -offset,
    low: -high,
    high: Number.POSITIVE_INFINITY,
    activation: (b, a) => b.max(b.add(b.mul(a, b.f32(slope)), b.f32(-offset)), b.f32(-high)),
  });
  const mirror = (b: GraphBuilder, input: { a: string; activation?: string }) => ({
    a: b.neg(input.a),
    ...(input.activation !== undefined && { activation: b.neg(input.activation) }),
  });
  return {
    name,
    parameters,
    residual: (b, input) => b.neg(mirrored.residual(b, { ...input, ...mirror(b, input) })),
    moments: (b, input) => {
      const { mean, variance } = mirrored.moments(b, { ...input, ...mirror(b, input) });
      return { mean: b.neg(mean), variance };
    },
    logDensity: (b, { y, a, type }) => mirrored.logDensity(b, { y: b.neg(y), a: b.neg(a), type }),
    scalar: scalarFamily(truncatedNormal(options)),
  };
}

/** Relu's family at the distance from the nearer edge, turned inwards. */
function wideBox(options: ClippedLinear): Family {
  const { name, parameters, slope, offset, low, high } = options;
  const edge = relu();
  const deviation = Math.sqrt(slope);
  /** The distance from the nearer edge in standard deviations, negative outside, and ±deviation, the way inwards. */
  const place = (b: GraphBuilder, a: string) => {
    const fromCentre = b.mul(b.sub(a, b.f32(((low + high) / 2 - offset) / slope)), b.f32(deviation));
    const distance = b.sub(b.f32((high - low) / 2 / deviation), b.abs(fromCentre));
    const inwards = b.where(b.less(fromCentre, b.f32(0)), b.f32(deviation), b.f32(-deviation));
    return { distance, inwards };
  };
  return {
    name,
    parameters,
    residual: (b, { activation: _, ...input }) =>
      b.scope(name, () => {
        const { distance, inwards } = place(b, input.a);
        return b.mul(edge.residual(b, { ...input, a: distance }), inwards);
      }),
    moments: (b, { a, type, activation }) =>
      b.scope(name, () => {
        const { distance, inwards } = place(b, a);
        const { mean, variance } = edge.moments(b, { a: distance, type });
        const bias = b.mul(b.sub(mean, b.op("Relu", [distance])), inwards);
        return { mean: b.add(activation ?? options.activation(b, a), bias), variance: b.mul(variance, b.f32(slope)) };
      }),
    logDensity: (b, { y, a, type }) =>
      b.scope(name, () => {
        const { distance, inwards } = place(b, a);
        // Where y lies from the edge that is nearer to a, in standard deviations.
        const from = b.where(b.less(inwards, b.f32(0)), b.sub(b.f32(high), y), b.sub(y, b.f32(low)));
        // Outside of the box is outside of the edge's support.
        const isInside = b.equal(b.min(b.max(y, b.f32(low)), b.f32(high)), y);
        const inside = b.where(isInside, from, b.f32(-1));
        const log = edge.logDensity(b, { y: b.mul(inside, b.f32(1 / deviation)), a: distance, type });
        return b.sub(log, b.f32(Math.log(deviation)));
      }),
    scalar: scalarFamily(truncatedNormal(options)),
  };
}
