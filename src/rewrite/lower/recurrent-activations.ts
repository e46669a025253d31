/** The activation functions of recurrent operators (ONNX's LSTM, section "Activation functions"), with clipping. */
import { float, floatOf, floatsOf, hasAttribute, stringsOf } from "../../onnx/attributes.js";
import type { NodeProto } from "../../onnx/proto.js";
import type { Rows } from "./rows.js";

/** x [batch, width] → [batch, width]. */
export type Activation = (rows: Rows, x: string, width: number) => string;

interface Definition {
  /** Defaults of the parameters that the function has, from its own ONNX operator where there is one. */
  readonly alpha?: number;
  readonly beta?: number;
  emit(rows: Rows, x: string, width: number, alpha: number, beta: number): string;
}

const plain = (opType: string): Definition => ({ emit: (rows, x, width) => rows.op(opType, [x], width) });

const withAlpha = (opType: string, alpha: number): Definition => ({
  alpha,
  emit: (rows, x, width, a) => rows.op(opType, [x], width, { alpha: float(a) }),
});

const DEFINITIONS: Readonly<Record<string, Definition>> = {
  relu: plain("Relu"),
  tanh: plain("Tanh"),
  sigmoid: plain("Sigmoid"),
  softsign: plain("Softsign"),
  softplus: plain("Softplus"),
  leakyrelu: withAlpha("LeakyRelu", 0.01),
  thresholdedrelu: withAlpha("ThresholdedRelu", 1),
  elu: withAlpha("Elu", 1),
  hardsigmoid: {
    alpha: 0.2,
    beta: 0.5,
    emit: (rows, x, width, alpha, beta) =>
      rows.op("HardSigmoid", [x], width, { alpha: float(alpha), beta: float(beta) }),
  },
  affine: {
    alpha: 1,
    beta: 0,
    emit: (rows, x, width, alpha, beta) => {
      const scaled = rows.op("Mul", [x, rows.scalar(alpha)], width);
      return rows.op("Add", [scaled, rows.scalar(beta)], width);
    },
  },
  scaledtanh: {
    alpha: 1,
    beta: 1,
    emit: (rows, x, width, alpha, beta) => {
      const tanh = rows.op("Tanh", [rows.op("Mul", [x, rows.scalar(beta)], width)], width);
      return rows.op("Mul", [tanh, rows.scalar(alpha)], width);
    },
  },
};

/** One of the activations that an operator has per direction. */
export interface ActivationSlot {
  readonly default: string;
  /** Whether `clip` bounds its input. ONNX says "the input of activations"; ONNX Runtime leaves LSTM's h(c') out. */
  readonly clipped: boolean;
}

/**
 * The activations of each direction, in the operator's order. `activation_alpha` and `activation_beta` are consumed in
 * turn by the functions that have such a parameter, as ONNX Runtime reads them.
 * @returns the name of an activation that does not exist instead.
 */
export function activationsOf(
  node: NodeProto,
  slots: readonly ActivationSlot[],
  directions: number,
): Activation[][] | { readonly unknown: string } {
  const given = stringsOf(node, "activations");
  const alphas = floatsOf(node, "activation_alpha") ?? [];
  const betas = floatsOf(node, "activation_beta") ?? [];
  const clip = hasAttribute(node, "clip") ? floatOf(node, "clip", 0) : 0;
  const perDirection: Activation[][] = [];
  for (let d = 0; d < directions; d++) {
    const activations: Activation[] = [];
    for (const [i, slot] of slots.entries()) {
      const name = given?.[d * slots.length + i] ?? slot.default;
      const definition = DEFINITIONS[name.toLowerCase()];
      if (!definition) return { unknown: name };
      const alpha = definition.alpha === undefined ? 0 : (alphas.shift() ?? definition.alpha);
      const beta = definition.beta === undefined ? 0 : (betas.shift() ?? definition.beta);
      activations.push((rows, x, width) => {
        const clipped =
          clip > 0 && slot.clipped ? rows.op("Clip", [x, rows.scalar(-clip), rows.scalar(clip)], width) : x;
        return definition.emit(rows, clipped, width, alpha, beta);
      });
    }
    perDirection.push(activations);
  }
  return perDirection;
}
