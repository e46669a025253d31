/**
 * How fresh weights are drawn.
 *
 * - glorot: variance 2/(fan in + fan out) (Glorot and Bengio 2010).
 * - he: 2/fan in, for rectifiers (He et al. 2015).
 * - lecun: 1/fan in (LeCun et al. 1998).
 * - orthogonal: a random matrix with orthonormal rows or columns, times a gain (Saxe et al. 2014).
 */

import type { Random } from "../../data/random.js";
import { UsageError } from "../../errors.js";
import { elementCount } from "../../onnx/tensor.js";
import type { Weight } from "./roles.js";

/** How a weight is drawn. */
export type Scheme =
  | { readonly kind: "glorot" | "he" | "lecun"; readonly form: "uniform" | "normal" }
  | { readonly kind: "orthogonal"; readonly gain: number }
  | { readonly kind: "normal"; readonly deviation: number }
  | { readonly kind: "uniform"; readonly bound: number }
  | { readonly kind: "constant"; readonly value: number };

/** What `parseScheme` takes, for help texts. */
export const SCHEME_SYNTAX =
  "glorot, he or lecun (each also -uniform or -normal), orthogonal[:GAIN], normal:STD, uniform:BOUND, zeros, ones, constant:VALUE";

const DEFAULT_FORM = { glorot: "uniform", he: "normal", lecun: "normal" } as const;
const SYNONYMS: Readonly<Record<string, keyof typeof DEFAULT_FORM>> = {
  ...{ glorot: "glorot", xavier: "glorot", he: "he", kaiming: "he", lecun: "lecun" },
};

/** @throws UsageError for what is no scheme. */
export function parseScheme(text: string): Scheme {
  const [, head = "", argument] = /^([a-z-]+)(?::(.+))?$/.exec(text) ?? [];
  const value = argument === undefined || argument.trim() === "" ? undefined : Number(argument);
  const wrong = (why: string) => new UsageError(`The scheme '${text}' ${why}. Schemes: ${SCHEME_SYNTAX}.`);
  if (argument !== undefined && !Number.isFinite(value ?? Number.NaN)) throw wrong("has no number after its colon");
  const [, family = "", form] = /^(\w+)(?:-(uniform|normal))?$/.exec(head) ?? [];
  const kind = SYNONYMS[family];
  if (kind) {
    if (value !== undefined) throw wrong("takes no number");
    return { kind, form: (form as "uniform" | "normal" | undefined) ?? DEFAULT_FORM[kind] };
  }
  switch (head) {
    case "orthogonal":
      return { kind: "orthogonal", gain: value ?? 1 };
    case "zeros":
    case "ones":
      if (value !== undefined) throw wrong("takes no number");
      return { kind: "constant", value: head === "ones" ? 1 : 0 };
    case "constant":
      if (value === undefined) throw wrong("needs its value, such as constant:0.5");
      return { kind: "constant", value };
    case "normal":
      if (value === undefined || value < 0) throw wrong("needs its deviation, such as normal:0.02");
      return { kind: "normal", deviation: value };
    case "uniform":
      if (value === undefined || value < 0) throw wrong("needs its bound, such as uniform:0.1");
      return { kind: "uniform", bound: value };
    default:
      throw wrong("is not known");
  }
}

/** Such as `he-normal`, `normal:0.02`. */
export function schemeLabel(scheme: Scheme): string {
  switch (scheme.kind) {
    case "orthogonal":
      return scheme.gain === 1 ? "orthogonal" : `orthogonal:${scheme.gain}`;
    case "normal":
      return `normal:${scheme.deviation}`;
    case "uniform":
      return `uniform:${scheme.bound}`;
    case "constant":
      return scheme.value === 0 ? "zeros" : scheme.value === 1 ? "ones" : `constant:${scheme.value}`;
    default:
      return `${scheme.kind}-${scheme.form}`;
  }
}

/** Whether a scheme asks for the shape of a matrix. */
export function needsFans({ kind }: Scheme): boolean {
  return kind === "glorot" || kind === "he" || kind === "lecun" || kind === "orthogonal";
}

/** Draws a weight's elements, in the order of the tensor. */
export function drawWeight(scheme: Scheme, weight: Weight, random: Random): Float32Array {
  const count = elementCount(weight.shape);
  switch (scheme.kind) {
    case "orthogonal":
      return orthogonal(weight, scheme.gain, random);
    case "glorot":
      return drawWithVariance(2 / (weight.fanIn + weight.fanOut), scheme.form, count, random);
    case "he":
      return drawWithVariance(2 / weight.fanIn, scheme.form, count, random);
    case "lecun":
      return drawWithVariance(1 / weight.fanIn, scheme.form, count, random);
    default:
      return drawElements(scheme, count, random);
  }
}

function drawWithVariance(variance: number, form: "uniform" | "normal", count: number, random: Random): Float32Array {
  return form === "normal"
    ? drawElements({ kind: "normal", deviation: Math.sqrt(variance) }, count, random)
    : drawElements({ kind: "uniform", bound: Math.sqrt(3 * variance) }, count, random);
}

/** Independent elements. */
export function drawElements(
  scheme: Extract<Scheme, { kind: "normal" | "uniform" | "constant" }>,
  count: number,
  random: Random,
): Float32Array {
  const values = new Float32Array(count);
  if (scheme.kind === "constant") return values.fill(scheme.value);
  if (scheme.kind === "uniform") {
    for (let i = 0; i < count; i++) values[i] = scheme.bound * (2 * unit(random) - 1);
    return values;
  }
  for (let i = 0; i < count; i++) values[i] = scheme.deviation * normal(random);
  return values;
}

/** In (0, 1). */
function unit(random: Random): number {
  return (random.uint32() + 0.5) / 2 ** 32;
}

/** Box and Muller's transform; the second of the pair is not used, so that each element has its own two uniforms. */
function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(unit(random))) * Math.cos(2 * Math.PI * unit(random));
}

function orthogonal({ shape, out, in: inner }: Weight, gain: number, random: Random): Float32Array {
  const strides = shape.map((_, i) => elementCount(shape.slice(i + 1)));
  const batch = shape.map((_, i) => i).filter((i) => !out.includes(i) && !inner.includes(i));
  const values = new Float32Array(elementCount(shape));
  const [rows, columns] = [offsets(shape, strides, out), offsets(shape, strides, inner)];
  // The orthonormal vectors run along the longer side.
  const [vectors, along] = rows.length <= columns.length ? [rows, columns] : [columns, rows];
  for (const start of offsets(shape, strides, batch)) {
    const basis = orthonormal(vectors.length, along.length, random);
    for (const [i, vector] of basis.entries()) {
      for (const [j, entry] of vector.entries()) {
        values[start + (vectors[i] as number) + (along[j] as number)] = gain * entry;
      }
    }
  }
  return values;
}

/** Where the elements of some axes lie, counted from the first. */
function offsets(shape: readonly number[], strides: readonly number[], axes: readonly number[]): number[] {
  return axes.reduce<number[]>(
    (found, axis) =>
      found.flatMap((offset) =>
        Array.from({ length: shape[axis] as number }, (_, i) => offset + i * (strides[axis] as number)),
      ),
    [0],
  );
}

/**
 * `count` orthonormal vectors of `length` ≥ count, spread evenly over all such sets: normal vectors, made orthogonal by
 * Gram and Schmidt's process, each twice ("twice is enough", Giraud et al. 2005).
 */
function orthonormal(count: number, length: number, random: Random): Float64Array[] {
  const basis: Float64Array[] = [];
  for (let i = 0; i < count; i++) {
    const vector = Float64Array.from({ length }, () => normal(random));
    for (let pass = 0; pass < 2; pass++) {
      for (const other of basis) {
        let product = 0;
        for (let j = 0; j < length; j++) product += (vector[j] as number) * (other[j] as number);
        for (let j = 0; j < length; j++) vector[j] = (vector[j] as number) - product * (other[j] as number);
      }
    }
    const norm = Math.sqrt(vector.reduce((sum, entry) => sum + entry * entry, 0));
    for (let j = 0; j < length; j++) vector[j] = (vector[j] as number) / norm;
    basis.push(vector);
  }
  return basis;
}
