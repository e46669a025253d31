/** RNN: h' = f(x + h·Rᵀ). */
import type { Lowering } from "./lowering.js";
import { type Cell, unrollRecurrence } from "./recurrent.js";
import type { Activation } from "./recurrent-activations.js";

const rnnCell: Cell = {
  gates: 1,
  activations: [{ default: "Tanh", clipped: true }],
  keepsRecurrentBias: () => false,
  step: ({ rows, hidden, recurrentWeights, activations }) => {
    const [activation] = activations as [Activation];
    return (x, { h }) => {
      const sum = h ? rows.op("Gemm", [h, recurrentWeights, x], hidden, { transB: 1 }) : x;
      return { h: activation(rows, sum, hidden) };
    };
  },
};

export const rnn: Lowering = {
  opType: "RNN",
  lower: (node, context) => unrollRecurrence(node, context, rnnCell),
};
