/** Gradients of unrolled recurrences against finite differences in float64, in the forms that PyTorch has not. */
import { describe, it } from "vitest";
import { type Attributes, attributesFrom, float } from "../../../src/onnx/attributes.js";
import type { GraphBuilder, ValueType } from "../../../src/onnx/builder.js";
import { DataType } from "../../../src/onnx/proto.js";
import { gru } from "../../../src/rewrite/lower/gru.js";
import type { Lowering, LoweringContext } from "../../../src/rewrite/lower/lowering.js";
import { lstm } from "../../../src/rewrite/lower/lstm.js";
import { rnn } from "../../../src/rewrite/lower/rnn.js";
import { type CheckedInput, expectGradients } from "../../support/gradient-check.js";

const [T, B, I, H] = [3, 2, 2, 2];
const GATES: Record<string, number> = { LSTM: 4, GRU: 3, RNN: 1 };

interface Variant {
  readonly lowering: Lowering;
  readonly attributes?: Attributes;
  readonly directions?: 1 | 2;
  readonly initial?: boolean;
  readonly peepholes?: boolean;
  readonly lengths?: readonly number[];
}

/** The inputs by position; those that ONNX leaves out are absent. */
function inputsOf({ lowering, directions: D = 1, initial, peepholes, lengths }: Variant): Map<number, CheckedInput> {
  const rows = (GATES[lowering.opType] as number) * H;
  const inputs = new Map<number, CheckedInput>([
    [0, { dims: [T, B, I] }],
    [1, { dims: [D, rows, I] }],
    [2, { dims: [D, rows, H] }],
    [3, { dims: [D, 2 * rows] }],
  ]);
  if (lengths) inputs.set(4, { dims: [B], type: "int32", values: lengths });
  if (initial) inputs.set(5, { dims: [D, B, H] });
  if (initial && lowering.opType === "LSTM") inputs.set(6, { dims: [D, B, H] });
  if (peepholes) inputs.set(7, { dims: [D, 3 * H] });
  return inputs;
}

function lowerInto(b: GraphBuilder, variant: Variant, values: ReadonlyMap<number, string>): string[] {
  const { lowering, directions = 1, attributes = {} } = variant;
  const types = new Map<string, ValueType>();
  for (const [position, { dims }] of inputsOf(variant)) {
    types.set(values.get(position) as string, { elemType: DataType.DOUBLE, shape: dims });
  }
  const output = ["Y", "Y_h", ...(lowering.opType === "LSTM" ? ["Y_c"] : [])].map((name) => b.unique(name));
  const context: LoweringContext = {
    b,
    types,
    constantOf: () => undefined,
    producer: () => undefined,
    isUsed: () => true,
    isOnGradientPath: () => true,
    straightThrough: false,
    random: () => {
      throw new Error("nothing is random");
    },
    runningStatistic: () => {},
    declareShape: () => {},
    refuse: (reason) => {
      throw new Error(reason);
    },
  };
  const all = { hidden_size: H, ...(directions === 2 && { direction: "bidirectional" }), ...attributes };
  const input = Array.from({ length: 8 }, (_, i) => values.get(i) ?? "");
  lowering.lower({ opType: lowering.opType, input, output, attribute: attributesFrom(all) }, context);
  return output;
}

const VARIANTS: Record<string, Variant> = {
  "LSTM, both directions, initial states": { lowering: lstm, directions: 2, initial: true },
  "LSTM, backwards": { lowering: lstm, attributes: { direction: "reverse" } },
  "LSTM, peepholes": { lowering: lstm, peepholes: true, initial: true },
  "LSTM, input_forget": { lowering: lstm, attributes: { input_forget: 1 }, initial: true },
  "LSTM, peepholes, input_forget": { lowering: lstm, peepholes: true, attributes: { input_forget: 1 } },
  "LSTM, lengths": { lowering: lstm, directions: 2, initial: true, lengths: [1, 3] },
  "LSTM, an empty example": { lowering: lstm, initial: true, lengths: [0, 2] },
  "LSTM, activations": {
    lowering: lstm,
    attributes: {
      activations: ["HardSigmoid", "ScaledTanh", "Softsign"],
      activation_alpha: float([0.1, 0.8]),
      activation_beta: float([0.5, 0.7]),
    },
  },
  "GRU, both directions, initial state": { lowering: gru, directions: 2, initial: true },
  "GRU, linear_before_reset": { lowering: gru, attributes: { linear_before_reset: 1 }, initial: true },
  "GRU, lengths": { lowering: gru, attributes: { linear_before_reset: 1 }, directions: 2, lengths: [3, 1] },
  "GRU, activations": {
    lowering: gru,
    attributes: { activations: ["Affine", "Softplus"], activation_alpha: float([0.3]), activation_beta: float([0.4]) },
  },
  "RNN, both directions, initial state": { lowering: rnn, directions: 2, initial: true },
  "RNN, lengths": { lowering: rnn, attributes: { activations: ["Sigmoid"] }, initial: true, lengths: [2, 0] },
};

describe("gradients of unrolled recurrences", () => {
  it.each(Object.entries(VARIANTS))("%s", async (_, variant) => {
    const inputs = inputsOf(variant);
    const positions = [...inputs.keys()];
    await expectGradients({
      inputs: [...inputs.values()],
      shapes: ["static"],
      build: (b, x) => lowerInto(b, variant, new Map(positions.map((position, i) => [position, x[i] as string]))),
      // Squashing functions have no kinks; those of HardSigmoid lie outside what these inputs reach.
      tolerance: 1e-7,
    });
  });
});
