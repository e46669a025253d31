/** LSTM, GRU and RNN unrolled, against ONNX Runtime's own operators over their attributes and inputs. */
import fc from "fast-check";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { type Attributes, float } from "../../../src/onnx/attributes.js";
import { valueInfo } from "../../../src/onnx/builder.js";
import { problemsOf } from "../../../src/onnx/check.js";
import { cloneModel } from "../../../src/onnx/codec.js";
import { DataType, type ModelProto, type NodeProto } from "../../../src/onnx/proto.js";
import { tensorFromNumbers } from "../../../src/onnx/tensor.js";
import { tensorType } from "../../../src/onnx/types.js";
import { withTimeMajorRecurrences } from "../../../src/rewrite/lower/time-major.js";
import { rewrite } from "../../../src/rewrite/rewrite.js";
import { expectSameOutputs } from "../../support/convert.js";
import { type Feeds, runModel } from "../../support/run.js";
import { expectLowered, lower, modelWith, Source } from "./support.js";

type Operator = "LSTM" | "GRU" | "RNN";

interface Case {
  readonly operator: Operator;
  readonly direction: "forward" | "reverse" | "bidirectional";
  readonly steps: number;
  readonly batch: number;
  readonly inputSize: number;
  readonly hidden: number;
  readonly bias: boolean;
  readonly initial: boolean;
  readonly peepholes: boolean;
  /** Lengths of the examples: left out, a constant, or an input. */
  readonly lengths: "none" | "constant" | "input";
  readonly clip: number | undefined;
  /** Per direction. */
  readonly activations: readonly string[] | undefined;
  readonly alphas: readonly number[] | undefined;
  readonly betas: readonly number[] | undefined;
  /** linear_before_reset or input_forget. */
  readonly variant: boolean;
  /** Which outputs exist. */
  readonly outputs: readonly boolean[];
  readonly seed: number;
}

const GATES = { LSTM: 4, GRU: 3, RNN: 1 };
const FUNCTIONS = { LSTM: 3, GRU: 2, RNN: 1 };

function build(c: Case): { model: ModelProto; feeds: Feeds } {
  const source = new Source(c.seed);
  const D = c.direction === "bidirectional" ? 2 : 1;
  const rows = GATES[c.operator] * c.hidden;
  const feeds: Feeds = { X: source.tensor([c.steps, c.batch, c.inputSize]) };
  const lengths = Int32Array.from({ length: c.batch }, (_, i) => (c.seed + 3 * i) % (c.steps + 1));
  const model = modelWith((b) => {
    const inputs = [
      b.input("X", { elemType: DataType.FLOAT, shape: [c.steps, "batch", c.inputSize] }),
      source.weight(b, "W", [D, rows, c.inputSize], 0.6),
      source.weight(b, "R", [D, rows, c.hidden], 0.6),
      c.bias ? source.weight(b, "B", [D, 2 * rows]) : "",
      "",
      "",
      "",
      "",
    ];
    if (c.lengths === "constant") inputs[4] = b.initializer("lengths", DataType.INT32, [c.batch], lengths);
    if (c.lengths === "input") {
      inputs[4] = b.input("lengths", { elemType: DataType.INT32, shape: ["batch"] });
      feeds.lengths = new ort.Tensor("int32", lengths, [c.batch]);
    }
    const states = c.operator === "LSTM" ? ["h", "c"] : ["h"];
    if (c.initial) {
      for (const [i, name] of states.entries()) {
        inputs[5 + i] = b.input(name, { elemType: DataType.FLOAT, shape: [D, "batch", c.hidden] });
        feeds[name] = source.tensor([D, c.batch, c.hidden]);
      }
    }
    if (c.peepholes && c.operator === "LSTM") inputs[7] = source.weight(b, "P", [D, 3 * c.hidden]);
    while (inputs.at(-1) === "") inputs.pop();
    const names = ["Y", "Y_h", ...(c.operator === "LSTM" ? ["Y_c"] : [])].map((name, i) => (c.outputs[i] ? name : ""));
    const outputs = names.some(Boolean) ? names : ["Y"];
    const repeat = <T>(list: readonly T[]) => Array.from({ length: D }, () => list).flat();
    const attributes: Attributes = {
      hidden_size: c.hidden,
      direction: c.direction,
      activations: c.activations && repeat(c.activations),
      activation_alpha: c.alphas && float(repeat(c.alphas)),
      activation_beta: c.betas && float(repeat(c.betas)),
      clip: c.clip === undefined ? undefined : float(c.clip),
      linear_before_reset: c.operator === "GRU" && c.variant ? 1 : undefined,
      input_forget: c.operator === "LSTM" && c.variant ? 1 : undefined,
    };
    b.node(c.operator, inputs, { outputs, attributes });
    return outputs.filter(Boolean);
  });
  return { model, feeds };
}

const PLAIN: Case = {
  operator: "LSTM",
  direction: "forward",
  steps: 4,
  batch: 3,
  inputSize: 2,
  hidden: 3,
  bias: true,
  initial: false,
  peepholes: false,
  lengths: "none",
  clip: undefined,
  activations: undefined,
  alphas: undefined,
  betas: undefined,
  variant: false,
  outputs: [true, true, true],
  seed: 1,
};

const OPERATORS: readonly Operator[] = ["LSTM", "GRU", "RNN"];

/** Activations with the parameters that they take. */
const ACTIVATIONS: Record<string, { alpha?: number; beta?: number }> = {
  Relu: {},
  Tanh: {},
  Sigmoid: {},
  Affine: { alpha: 0.6, beta: 0.1 },
  LeakyRelu: { alpha: 0.2 },
  ThresholdedRelu: { alpha: 0.3 },
  ScaledTanh: { alpha: 0.8, beta: 0.7 },
  HardSigmoid: { alpha: 0.3, beta: 0.4 },
  Elu: { alpha: 0.7 },
  Softsign: {},
  Softplus: {},
};

const arbitraryCase: fc.Arbitrary<Case> = fc
  .record({
    operator: fc.constantFrom(...OPERATORS),
    direction: fc.constantFrom("forward", "reverse", "bidirectional"),
    steps: fc.integer({ min: 1, max: 5 }),
    batch: fc.integer({ min: 1, max: 4 }),
    inputSize: fc.integer({ min: 1, max: 3 }),
    hidden: fc.integer({ min: 1, max: 4 }),
    bias: fc.boolean(),
    initial: fc.boolean(),
    peepholes: fc.boolean(),
    lengths: fc.constantFrom("none", "constant", "input"),
    clip: fc.constantFrom(undefined, 0.3),
    variant: fc.boolean(),
    outputs: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()),
    functions: fc.option(fc.tuple(...Array.from({ length: 3 }, () => fc.constantFrom(...Object.keys(ACTIVATIONS))))),
    seed: fc.integer({ min: 1, max: 1e6 }),
  })
  .map(({ functions, ...rest }): Case => {
    const activations = functions?.slice(0, FUNCTIONS[rest.operator]);
    const parameters = (key: "alpha" | "beta") => activations?.flatMap((name) => ACTIVATIONS[name]?.[key] ?? []);
    return {
      ...(rest as Omit<Case, "activations" | "alphas" | "betas">),
      activations,
      alphas: parameters("alpha"),
      betas: parameters("beta"),
    };
  });

describe("recurrent operators, unrolled", () => {
  it("compute what ONNX Runtime's do, whatever the attributes", async () => {
    await fc.assert(
      fc.asyncProperty(arbitraryCase, async (c) => {
        const { model, feeds } = build(c);
        await expectLowered(model, feeds, OPERATORS, 1e-5);
      }),
      { numRuns: 200, seed: 7 },
    );
  });

  it("need no more than a few nodes for a step", async () => {
    for (const [operator, perStep] of [
      ["LSTM", 10],
      ["GRU", 12],
      ["RNN", 2],
    ] as const) {
      const nodes = async (steps: number) => {
        const { model, feeds } = build({
          ...PLAIN,
          operator,
          steps,
          variant: operator === "GRU",
          outputs: [true, false, false],
        });
        return (await expectLowered(model, feeds, OPERATORS)).operators.length;
      };
      expect((await nodes(7)) - (await nodes(6)), operator).toBeLessThanOrEqual(perStep);
    }
  });

  it("tell every shape, whatever the name of the batch", async () => {
    const { model, feeds } = build({ ...PLAIN, direction: "bidirectional", lengths: "input" });
    const { types } = await expectLowered(model, feeds, OPERATORS);
    expect([...types].filter(([, { shape }]) => !shape || shape.includes(null))).toEqual([]);
    expect(types.get("Y")?.shape).toEqual([4, 2, "batch", 3]);
    expect(types.get("Y_h")?.shape).toEqual([2, "batch", 3]);
  });

  it("take the zeros that exporters write for no initial state", async () => {
    const { model, feeds } = build(PLAIN);
    const zeros = modelWith((b) => {
      Object.assign(b.graph, { ...model.graph, output: [] });
      const batch = b.op("Shape", ["X"], { start: 1, end: 2 });
      const shape = b.concat([b.i64([1]), batch, b.i64([3])], 0);
      const state = b.transpose(
        b.expand(b.op("Constant", [], { value: tensorFromNumbers("", 1, [], [0]) }), shape),
        [0, 1, 2],
      );
      const node = b.graph.node.find(({ opType }) => opType === "LSTM");
      node?.input.push("", state, state);
      return ["Y", "Y_h", "Y_c"];
    });
    const { operators } = await expectLowered(zeros, feeds, OPERATORS);
    expect(operators).not.toContain("Expand");
  });

  it("do not take a parameter that starts at zero for zeros", async () => {
    const { model, feeds } = build(PLAIN);
    const node = model.graph.node[0];
    node?.input.push("", "h0");
    model.graph.initializer.push(tensorFromNumbers("h0", DataType.FLOAT, [1, 3, 3], Array(9).fill(0)));
    const { model: lowered } = await expectLowered(model, feeds, OPERATORS);
    expect(lowered.graph.node.some(({ input }) => input.includes("h0"))).toBe(true);
  });

  it("stay where nothing trains", async () => {
    const { model } = build(PLAIN);
    const copy = cloneModel(model);
    copy.graph.input.push(...copy.graph.initializer.map((tensor) => valueInfo(tensor.name ?? "", tensorType(tensor))));
    copy.graph.initializer = [];
    expect((await lower(copy)).operators).toEqual(["LSTM"]);
  });

  it("have layouts of time and of batch first", async () => {
    // ONNX Runtime runs no layout 1, so the same network in layout 0 is the reference.
    const source = new Source(3);
    const [x, h] = [source.tensor([2, 5, 3]), source.tensor([2, 2, 4])];
    const [W, R] = [source.data([2, 16, 3]), source.data([2, 16, 4])];
    const layout = (first: "time" | "batch") =>
      modelWith((b) => {
        const X = b.input("X", { elemType: DataType.FLOAT, shape: ["batch", 5, 3] });
        const H = b.input("H", { elemType: DataType.FLOAT, shape: ["batch", 2, 4] });
        const weights = [
          b.initializer("W", DataType.FLOAT, [2, 16, 3], W),
          b.initializer("R", DataType.FLOAT, [2, 16, 4], R),
        ];
        const attributes = { hidden_size: 4, direction: "bidirectional" };
        const rest = [...weights, "", ""];
        if (first === "batch") {
          const node = { outputs: ["Y", "Y_h", "Y_c"], attributes: { ...attributes, layout: 1 } };
          return b.node("LSTM", [X, ...rest, H, H], node);
        }
        const state = b.transpose(H, [1, 0, 2]);
        const [y, yh, yc] = b.node("LSTM", [b.transpose(X, [1, 0, 2]), ...rest, state, state], {
          outputs: 3,
          attributes,
        }) as [string, string, string];
        b.alias(b.transpose(y, [2, 0, 1, 3]), "Y");
        b.alias(b.transpose(yh, [1, 0, 2]), "Y_h");
        b.alias(b.transpose(yc, [1, 0, 2]), "Y_c");
        return ["Y", "Y_h", "Y_c"];
      });
    const timeMajor = withTimeMajorRecurrences(layout("batch"));
    expect(problemsOf(timeMajor)).toEqual([]);
    const feeds = { X: x, H: h };
    expectSameOutputs(await runModel(timeMajor, feeds), await runModel(layout("time"), feeds), 1e-6);
    await expectLowered(timeMajor, feeds, OPERATORS);
    const untouched = layout("time");
    expect(withTimeMajorRecurrences(untouched)).toBe(untouched);
  });
});

describe("recurrent operators that cannot be unrolled", () => {
  const refusal = async (change: (model: ModelProto) => void, options: Partial<Case> = {}) => {
    const { model } = build({ ...PLAIN, ...options });
    change(model);
    const { refusals, operators } = await lower(model);
    expect(operators).toEqual(["LSTM"]);
    return [...refusals.values()].join();
  };
  const declareSteps = (model: ModelProto, steps: number | string) => {
    model.graph.input[0] = valueInfo("X", { elemType: DataType.FLOAT, shape: [steps, "batch", 2] });
  };

  it("are kept with the dimension and the remedy", async () => {
    const reason = await refusal((model) => declareSteps(model, "time"));
    expect(reason).toContain("dimension 0 of 'X', is 'time'");
    expect(reason).toContain("fixed sequence length");
  });

  it("are kept when they are too long", async () => {
    expect(await refusal((model) => declareSteps(model, 5000))).toContain("5000 steps");
  });

  it("are named by the error of the rewriter, with the reason", async () => {
    const { model } = build(PLAIN);
    declareSteps(model, "time");
    model.graph.node[0] = { ...(model.graph.node[0] as NodeProto), name: "encoder" };
    await expect(rewrite(model, { loss: "mean-squared-error" })).rejects.toThrow(
      /LSTM {2}'encoder': its sequence length.*'time'/,
    );
  });
});
