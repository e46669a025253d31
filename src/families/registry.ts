/** Which family belongs to which activation: one explicit list of names, one of ONNX operators. */
import { FishyError } from "../errors.js";
import { floatOf, intOf } from "../onnx/attributes.js";
import type { NodeProto, TensorProto } from "../onnx/proto.js";
import { dataOf, isExternal } from "../onnx/tensor.js";
import { asinh } from "./asinh.js";
import { atan } from "./atan.js";
import { bernoulli, tanhTwoPoint } from "./bernoulli.js";
import { celu } from "./celu.js";
import { clip } from "./clip.js";
import { elu } from "./elu.js";
import { erf } from "./erf.js";
import type { Family } from "./family.js";
import { gaussian } from "./gaussian.js";
import { hardSigmoid } from "./hard-sigmoid.js";
import { leakyRelu } from "./leaky-relu.js";
import { prelu } from "./prelu.js";
import { relu } from "./relu.js";
import { SELU_ALPHA, SELU_GAMMA, selu } from "./selu.js";
import { shrink } from "./shrink.js";
import { sigmoidContinuous } from "./sigmoid-continuous.js";
import { sign } from "./sign.js";
import { softmax } from "./softmax.js";
import { softplus } from "./softplus.js";
import { softsign } from "./softsign.js";
import { tanh } from "./tanh.js";
import { thresholdedRelu } from "./thresholded-relu.js";

type Parameters = Readonly<Record<string, number>>;

/** Every family by name; a parameter that is left out takes ONNX's default. */
const FAMILIES: Readonly<Record<string, { parameters: readonly string[]; make(parameters: Parameters): Family }>> = {
  gaussian: { parameters: ["slope", "offset"], make: ({ slope, offset }) => gaussian(slope, offset) },
  bernoulli: { parameters: [], make: bernoulli },
  softmax: {
    parameters: ["axis"],
    make: ({ axis }) => softmax(axis === undefined ? {} : { axis }),
  },
  tanh: { parameters: [], make: tanh },
  tanh_two_point: { parameters: [], make: tanhTwoPoint },
  sigmoid_continuous: { parameters: [], make: sigmoidContinuous },
  relu: { parameters: [], make: relu },
  leaky_relu: { parameters: ["alpha"], make: ({ alpha }) => leakyRelu(alpha) },
  prelu: { parameters: ["slope"], make: ({ slope }) => prelu(slope ?? 0.25) },
  softplus: { parameters: [], make: softplus },
  elu: { parameters: ["alpha"], make: ({ alpha }) => elu(alpha) },
  celu: { parameters: ["alpha"], make: ({ alpha }) => celu(alpha) },
  selu: { parameters: ["alpha", "gamma"], make: ({ alpha, gamma }) => selu(alpha, gamma) },
  hard_sigmoid: { parameters: ["alpha", "beta"], make: ({ alpha, beta }) => hardSigmoid(alpha, beta) },
  clip: { parameters: ["min", "max"], make: ({ min, max }) => clip(min, max) },
  softsign: { parameters: [], make: softsign },
  erf: { parameters: [], make: erf },
  atan: { parameters: [], make: atan },
  sign: { parameters: [], make: sign },
  thresholded_relu: { parameters: ["alpha"], make: ({ alpha }) => thresholdedRelu(alpha) },
  shrink: { parameters: ["lambd", "bias"], make: ({ lambd, bias }) => shrink(lambd, bias) },
  asinh: { parameters: [], make: asinh },
};

export const familyNames: readonly string[] = Object.keys(FAMILIES);

/** Parameters that must be above 0, and those that may be 0 besides: elsewhere the activation falls, or is constant. */
const POSITIVE = new Set(["gaussian slope", "leaky_relu alpha", "celu alpha", "selu gamma", "hard_sigmoid alpha"]);
const AT_LEAST_ZERO = new Set(["elu alpha", "selu alpha", "thresholded_relu alpha", "shrink lambd"]);

function checkParameter(family: string, key: string, value: number): void {
  const which = `${family} ${key}`;
  const isBound = family === "clip" && !Number.isNaN(value);
  const least = POSITIVE.has(which) ? "above 0" : AT_LEAST_ZERO.has(which) ? "of at least 0" : "that is finite";
  const isMet = POSITIVE.has(which) ? value > 0 : AT_LEAST_ZERO.has(which) ? value >= 0 : true;
  if (isBound || (Number.isFinite(value) && isMet)) return;
  throw new FishyError(`The family '${family}' needs a number ${least} as its ${key}; got ${value}.`);
}

/**
 * A family by name.
 *
 * @throws FishyError for an unknown name or parameter, or one outside of the family's range
 */
export function familyByName(name: string, parameters: Parameters = {}): Family {
  const entry = FAMILIES[name];
  if (!entry) throw new FishyError(`There is no family '${name}'. Known families: ${familyNames.join(", ")}.`);
  for (const key of Object.keys(parameters)) {
    if (!entry.parameters.includes(key)) {
      const known = entry.parameters.length > 0 ? `its parameters are ${entry.parameters.join(", ")}` : "it has none";
      throw new FishyError(`The family '${name}' has no parameter '${key}'; ${known}.`);
    }
    const value = parameters[key];
    if (value !== undefined) checkParameter(name, key, value);
  }
  return entry.make(parameters);
}

/** Why an activation has no family. */
export interface Refusal {
  readonly refused: string;
}

type ConstantOf = (name: string) => TensorProto | undefined;
type Lookup = (node: NodeProto, constantOf: ConstantOf) => Family | Refusal;

const notMonotone = (where: string): Lookup => {
  return (node) => ({
    refused: `${node.opType} is not monotone (it falls ${where}), so it has no Bregman family`,
  });
};

/** ONNX operators of opset 18 (and a few later or contributed ones) that act as activations. */
const ACTIVATIONS: Readonly<Record<string, Lookup>> = {
  Identity: () => gaussian(),
  Sigmoid: () => bernoulli(),
  Softmax: (node) => softmax({ axis: intOf(node, "axis", -1) }),
  LogSoftmax: (node) => softmax({ axis: intOf(node, "axis", -1), log: true }),
  Tanh: () => tanh(),
  Relu: () => relu(),
  LeakyRelu: (node) => {
    const alpha = floatOf(node, "alpha", 0.01);
    if (alpha < 0) return negativeSlope(node, "alpha", alpha);
    return alpha === 0 ? relu() : within(node, { alpha }, 1e-4, 100, () => leakyRelu(alpha));
  },
  PRelu: (node, constantOf) => {
    const slope = node.input[1] as string;
    const initial = constantOf(slope);
    if (initial && !isExternal(initial) && Array.from(dataOf(initial), Number).some((value) => value < 0)) {
      return { refused: `${label(node)} has negative slopes in '${slope}', where it is not monotone` };
    }
    return prelu(slope);
  },
  Softplus: () => softplus(),
  Elu: (node) => {
    const alpha = floatOf(node, "alpha", 1);
    if (alpha < 0) return negativeSlope(node, "alpha", alpha);
    return alpha === 0 ? relu() : within(node, { alpha }, 0, 100, () => elu(alpha));
  },
  Celu: (node) => {
    const alpha = floatOf(node, "alpha", 1);
    if (!(alpha > 0)) return { refused: `${label(node)} has alpha = ${alpha}; its family needs alpha > 0` };
    return within(node, { alpha }, 0, 100, () => celu(alpha));
  },
  Selu: (node) => {
    const alpha = floatOf(node, "alpha", SELU_ALPHA);
    const gamma = floatOf(node, "gamma", SELU_GAMMA);
    if (alpha > 0 && gamma > 0) return within(node, { alpha, gamma }, 0.01, 10, () => selu(alpha, gamma));
    return { refused: `${label(node)} has alpha = ${alpha} and gamma = ${gamma}; its family needs both positive` };
  },
  Softsign: () => softsign(),
  HardSigmoid: (node) => {
    const alpha = floatOf(node, "alpha", 0.2);
    if (alpha > 0) return within(node, { alpha }, 1e-4, 1e4, () => hardSigmoid(alpha, floatOf(node, "beta", 0.5)));
    return { refused: `${label(node)} has alpha = ${alpha}; its family needs alpha > 0` };
  },
  Clip: clipFamily,
  Erf: () => erf(),
  Atan: () => atan(),
  Asinh: () => asinh(),
  Sign: () => sign(),
  ThresholdedRelu: (node) => {
    const alpha = floatOf(node, "alpha", 1);
    if (alpha < 0) return { refused: `${label(node)} has alpha = ${alpha}, below 0, where it is not monotone` };
    return alpha === 0 ? relu() : within(node, { alpha }, 0, 30, () => thresholdedRelu(alpha));
  },
  Shrink: (node) => {
    const lambd = floatOf(node, "lambd", 0.5);
    const bias = floatOf(node, "bias", 0);
    if (lambd >= 0 && bias <= lambd) {
      return within(node, { lambd, "lambd − bias": lambd - bias }, 0, 5, () => shrink(lambd, bias));
    }
    return {
      refused: `${label(node)} has lambd = ${lambd} and bias = ${bias}; it is monotone only for 0 ≤ lambd ≥ bias`,
    };
  },
  Gelu: notMonotone("below −0.7518"),
  Swish: notMonotone("below −1.2785"),
  Mish: notMonotone("below −1.1924"),
  HardSwish: notMonotone("below −1.5"),
};

/** Contributed operators that are refused like their namesakes of the standard. */
const CONTRIBUTED: Readonly<Record<string, string>> = {
  Gelu: "Gelu",
  FastGelu: "Gelu",
  BiasGelu: "Gelu",
  QuickGelu: "Gelu",
};

/**
 * The family of an activation node.
 *
 * @param constantOf the constant behind a value's name, if it is one
 * @returns the family; or why the activation has none; or undefined when the node is no activation
 */
export function familyOfActivation(node: NodeProto, constantOf: ConstantOf): Family | Refusal | undefined {
  const opType = node.opType ?? "";
  const name = node.domain ? (node.domain === "com.microsoft" ? CONTRIBUTED[opType] : undefined) : opType;
  return name === undefined ? undefined : ACTIVATIONS[name]?.(node, constantOf);
}

function label(node: NodeProto): string {
  return node.name ? `${node.opType} '${node.name}'` : `${node.opType}`;
}

/** Outside these ranges no table of a reasonable size is exact enough; inside them a test builds the extremes. */
function within(
  node: NodeProto,
  parameters: Readonly<Record<string, number>>,
  least: number,
  most: number,
  make: () => Family,
): Family | Refusal {
  for (const [name, value] of Object.entries(parameters)) {
    if (value >= least && value <= most) continue;
    return {
      refused: `${label(node)} has ${name} = ${value}; its family can be sampled for ${name} from ${least} to ${most}`,
    };
  }
  return make();
}

function negativeSlope(node: NodeProto, attribute: string, value: number): Refusal {
  return { refused: `${label(node)} has the negative slope ${attribute} = ${value}, with which it is not monotone` };
}

function clipFamily(node: NodeProto, constantOf: ConstantOf): Family | Refusal {
  const bounds: number[] = [];
  for (const [index, fallback] of [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY].entries()) {
    const name = node.input[index + 1];
    if (!name) {
      bounds.push(fallback);
      continue;
    }
    const tensor = constantOf(name);
    if (!tensor)
      return { refused: `${label(node)} takes its bound '${name}' from the graph; a family needs constant bounds` };
    bounds.push(boundFrom(Number(dataOf(tensor)[0]), fallback));
  }
  const [min, max] = bounds as [number, number];
  if (!(min < max)) return { refused: `${label(node)} has the bounds ${min} and ${max}, so its output is constant` };
  return clip(min, max);
}

/** Exporters write "no bound" as the largest float32. */
function boundFrom(value: number, fallback: number): number {
  return Math.abs(value) > 3e38 && Math.sign(value) === Math.sign(fallback) ? fallback : value;
}
