/**
 * GRU, gates in the order z, r, h:
 * z = f(x_z + h·R_zᵀ), r = f(x_r + h·R_rᵀ), n = g(x_h + (r⊙h)·R_hᵀ), or with linear_before_reset
 * n = g(x_h + r⊙(h·R_hᵀ + b_h)); h' = (1 − z)⊙n + z⊙h.
 */
import { intOf } from "../../onnx/attributes.js";
import type { NodeProto } from "../../onnx/proto.js";
import type { Lowering } from "./lowering.js";
import { type Cell, type CellOptions, type Step, unrollRecurrence } from "./recurrent.js";
import type { Activation } from "./recurrent-activations.js";

const isLinearBeforeReset = (node: NodeProto) => intOf(node, "linear_before_reset", 0) !== 0;

const gruCell: Cell = {
  gates: 3,
  activations: [
    { default: "Sigmoid", clipped: true },
    { default: "Tanh", clipped: true },
  ],
  keepsRecurrentBias: isLinearBeforeReset,
  step: (options) => (isLinearBeforeReset(options.node) ? linearBeforeReset(options) : resetBeforeLinear(options)),
};

export const gru: Lowering = {
  opType: "GRU",
  lower: (node, context) => unrollRecurrence(node, context, gruCell),
};

/** One Gemm for all gates: PyTorch's form. */
function linearBeforeReset(options: CellOptions): Step {
  const { rows, hidden: H, recurrentWeights, recurrentBias } = options;
  const [gate, candidate] = options.activations as [Activation, Activation];
  const bias = recurrentBias ? [recurrentBias] : [];
  const { b } = rows;
  const biasParts = recurrentBias && b.node("Split", [recurrentBias, b.i64([2 * H, H])], { outputs: 2 });
  return (x, { h }) => {
    const [xGates, xNew] = rows.split(x, [2 * H, H]) as [string, string];
    // With a state of zeros the product is its bias alone.
    const recurrent = h
      ? rows.split(rows.op("Gemm", [h, recurrentWeights, ...bias], 3 * H, { transB: 1 }), [2 * H, H])
      : biasParts;
    const sum = recurrent ? rows.op("Add", [xGates, recurrent[0] as string], 2 * H) : xGates;
    const [z, r] = rows.split(gate(rows, sum, 2 * H), [H, H]) as [string, string];
    const reset = recurrent && rows.op("Mul", [r, recurrent[1] as string], H);
    const n = candidate(rows, reset ? rows.op("Add", [xNew, reset], H) : xNew, H);
    return { h: mix(options, z, n, h) };
  };
}

function resetBeforeLinear(options: CellOptions): Step {
  const { rows, hidden: H, recurrentWeights } = options;
  const [gate, candidate] = options.activations as [Activation, Activation];
  const { b } = rows;
  const [gateWeights, newWeights] = b.node("Split", [recurrentWeights, b.i64([2 * H, H])], {
    outputs: 2,
    attributes: { axis: 0 },
  }) as [string, string];
  return (x, { h }) => {
    const [xGates, xNew] = rows.split(x, [2 * H, H]) as [string, string];
    const sum = h ? rows.op("Gemm", [h, gateWeights, xGates], 2 * H, { transB: 1 }) : xGates;
    const [z, r] = rows.split(gate(rows, sum, 2 * H), [H, H]) as [string, string];
    const pre = h ? rows.op("Gemm", [rows.op("Mul", [r, h], H), newWeights, xNew], H, { transB: 1 }) : xNew;
    return { h: mix(options, z, candidate(rows, pre, H), h) };
  };
}

/** (1 − z)⊙n + z⊙h, as n + z⊙(h − n). */
function mix({ rows, hidden: H }: CellOptions, z: string, n: string, h: string | undefined): string {
  if (!h) return rows.op("Sub", [n, rows.op("Mul", [z, n], H)], H);
  return rows.op("Add", [n, rows.op("Mul", [z, rows.op("Sub", [h, n], H)], H)], H);
}
