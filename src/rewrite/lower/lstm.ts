/**
 * LSTM, gates in the order i, o, f, c:
 * i = f(x_i + h·Rᵢᵀ + P_i⊙c), f likewise (or 1 − i with input_forget), c' = f⊙c + i⊙g(x_c + h·R_cᵀ),
 * o = f(x_o + h·R_oᵀ + P_o⊙c'), h' = o⊙h(c').
 */
import { intOf } from "../../onnx/attributes.js";
import type { Lowering } from "./lowering.js";
import { type Cell, type CellOptions, type Step, unrollRecurrence } from "./recurrent.js";
import type { Activation } from "./recurrent-activations.js";

const lstmCell: Cell = {
  gates: 4,
  activations: [
    { default: "Sigmoid", clipped: true },
    { default: "Tanh", clipped: true },
    { default: "Tanh", clipped: false },
  ],
  keepsRecurrentBias: () => false,
  step: (options) => (options.peepholes ? peepholeStep(options, options.peepholes) : plainStep(options)),
};

export const lstm: Lowering = {
  opType: "LSTM",
  lower: (node, context) => unrollRecurrence(node, context, lstmCell),
};

/** Without peepholes one activation serves the three gates. */
function plainStep(options: CellOptions): Step {
  const { rows, hidden: H, node } = options;
  const [gate, candidate, output] = options.activations as [Activation, Activation, Activation];
  const couples = intOf(node, "input_forget", 0) !== 0;
  return (x, { h, c }) => {
    const [gates, cell] = rows.split(preActivation(options, x, h), [3 * H, H]) as [string, string];
    const [i, o, f] = rows.split(gate(rows, gates, 3 * H), [H, H, H]) as [string, string, string];
    const next = nextCell(options, i, couples ? complement(options, i) : f, candidate(rows, cell, H), c);
    return { h: rows.op("Mul", [o, output(rows, next, H)], H), c: next };
  };
}

function peepholeStep(options: CellOptions, peepholes: string): Step {
  const { rows, hidden: H, node } = options;
  const [gate, candidate, output] = options.activations as [Activation, Activation, Activation];
  const couples = intOf(node, "input_forget", 0) !== 0;
  const { b } = rows;
  const [pi, po, pf] = b.node("Split", [peepholes, b.i64([H, H, H])], { outputs: 3 }) as [string, string, string];
  const peep = (a: string, p: string, c: string | undefined) =>
    c ? rows.op("Add", [a, rows.op("Mul", [p, c], H)], H) : a;
  return (x, { h, c }) => {
    const parts = rows.split(preActivation(options, x, h), [H, H, H, H]) as [string, string, string, string];
    const i = gate(rows, peep(parts[0], pi, c), H);
    const f = couples ? complement(options, i) : gate(rows, peep(parts[2], pf, c), H);
    const next = nextCell(options, i, f, candidate(rows, parts[3], H), c);
    const o = gate(rows, peep(parts[1], po, next), H);
    return { h: rows.op("Mul", [o, output(rows, next, H)], H), c: next };
  };
}

function preActivation({ rows, hidden, recurrentWeights }: CellOptions, x: string, h: string | undefined): string {
  return h ? rows.op("Gemm", [h, recurrentWeights, x], 4 * hidden, { transB: 1 }) : x;
}

function complement({ rows, hidden }: CellOptions, i: string): string {
  return rows.op("Sub", [rows.scalar(1), i], hidden);
}

function nextCell({ rows, hidden: H }: CellOptions, i: string, f: string, g: string, c: string | undefined): string {
  const written = rows.op("Mul", [i, g], H);
  return c ? rows.op("Add", [rows.op("Mul", [f, c], H), written], H) : written;
}
