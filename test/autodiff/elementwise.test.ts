import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Attributes, float } from "../../src/onnx/attributes.js";
import { DataType } from "../../src/onnx/proto.js";
import { type CheckedInput, expectGradients, gradientsOf } from "../support/gradient-check.js";

const shape = [2, 3, 4];

describe("arithmetic", () => {
  const broadcasts: [number[], number[]][] = [
    [
      [2, 3],
      [2, 3],
    ],
    [[2, 3], [3]],
    [[3], [2, 3]],
    [[2, 3], []],
    [[], [2, 3]],
    [
      [2, 1, 3],
      [4, 1],
    ],
    [
      [1, 1],
      [2, 3],
    ],
    [
      [2, 1],
      [1, 3],
    ],
    [
      [1, 3, 1],
      [2, 1, 4],
    ],
    [[], []],
    [[1], [1, 1, 1]],
  ];
  for (const opType of ["Add", "Sub", "Mul", "Div"]) {
    it.each(broadcasts)(`${opType} of %j and %j`, (a, b) =>
      expectGradients({
        inputs: [{ dims: a }, { dims: b, range: [0.5, 2] }],
        build: (builder, [x, y]) => builder.op(opType, [x as string, y as string]),
      }),
    );
  }

  it("broadcasts any two shapes that fit", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 4 }),
        fc.infiniteStream(fc.nat(3)),
        (full, choices) => {
          // Each operand keeps, flattens to 1 or (in front) drops dimensions of one full shape.
          const part = () => {
            const dims = full.map((dim) => (choices.next().value === 0 ? 1 : dim));
            return dims.slice(Math.min(choices.next().value as number, dims.length));
          };
          return expectGradients({
            inputs: [{ dims: part() }, { dims: part(), range: [0.5, 2] }],
            build: (b, [x, y]) => b.div(b.mul(x as string, y as string), b.add(y as string, b.f64(0.5))),
            shapes: ["static", "symbolic"],
          });
        },
      ),
      { numRuns: 30, seed: 1 },
    ));

  it("uses one value as both operands", () =>
    expectGradients({ inputs: [{ dims: [3] }], build: (b, [x]) => b.mul(x as string, x as string) }));
});

interface Unary {
  readonly op: string;
  readonly attributes?: Attributes;
  readonly input?: Omit<CheckedInput, "dims">;
  readonly float32?: boolean;
  readonly opset?: number;
}

const kinkAtZero = { range: [-2, 2], avoid: [0] } as const;

const unary: Unary[] = [
  { op: "Neg" },
  { op: "Identity" },
  { op: "Abs", input: kinkAtZero },
  { op: "Exp" },
  { op: "Log", input: { range: [0.5, 3] } },
  { op: "Sqrt", input: { range: [0.5, 3] } },
  { op: "Reciprocal", input: { range: [0.5, 2] } },
  { op: "Erf", float32: true },
  { op: "Sin", input: { range: [-3, 3] } },
  { op: "Cos", input: { range: [-3, 3] } },
  { op: "Tan", float32: true },
  { op: "Asin", input: { range: [-0.7, 0.7] }, float32: true },
  { op: "Acos", input: { range: [-0.7, 0.7] }, float32: true },
  { op: "Atan", input: { range: [-3, 3] }, float32: true },
  { op: "Sinh", input: { range: [-2, 2] }, float32: true },
  { op: "Cosh", input: { range: [-2, 2] }, float32: true },
  { op: "Asinh", input: { range: [-3, 3] }, float32: true },
  { op: "Acosh", input: { range: [1.5, 4] }, float32: true },
  { op: "Atanh", input: { range: [-0.6, 0.6] }, float32: true },
  { op: "Floor", input: { range: [0.1, 0.9] } },
  { op: "Ceil", input: { range: [0.1, 0.9] } },
  { op: "Round", input: { range: [0.1, 0.4] } },
  { op: "Sign", input: kinkAtZero },
  { op: "Tanh" },
  { op: "Sigmoid" },
  { op: "Softplus", input: { range: [-3, 3] }, float32: true },
  { op: "Softsign", input: { range: [-2, 2], avoid: [0] }, float32: true },
  { op: "Relu", input: kinkAtZero },
  { op: "LeakyRelu", input: kinkAtZero },
  { op: "LeakyRelu", attributes: { alpha: float(0.3) }, input: kinkAtZero },
  { op: "LeakyRelu", attributes: { alpha: float(-0.3) }, input: kinkAtZero },
  { op: "LeakyRelu", attributes: { alpha: float(0) }, input: kinkAtZero },
  { op: "Elu", input: kinkAtZero, float32: true },
  { op: "Elu", attributes: { alpha: float(1.7) }, input: kinkAtZero, float32: true },
  { op: "Elu", attributes: { alpha: float(-0.5) }, input: kinkAtZero, float32: true },
  { op: "Selu", input: kinkAtZero, float32: true },
  { op: "Selu", attributes: { alpha: float(1.2), gamma: float(0.7) }, input: kinkAtZero, float32: true },
  { op: "Celu", input: kinkAtZero, float32: true },
  { op: "Celu", attributes: { alpha: float(2.5) }, input: kinkAtZero, float32: true },
  { op: "ThresholdedRelu", attributes: { alpha: float(0.5) }, input: { range: [-2, 2], avoid: [0.5] }, float32: true },
  {
    op: "Shrink",
    attributes: { lambd: float(0.5), bias: float(0.2) },
    input: { range: [-2, 2], avoid: [-0.5, 0.5] },
    float32: true,
  },
  { op: "HardSigmoid", input: { range: [-4, 4], avoid: [-2.5, 2.5] }, float32: true },
  {
    op: "HardSigmoid",
    attributes: { alpha: float(0.5), beta: float(0.4) },
    input: { range: [-2, 2], avoid: [-0.8, 1.2] },
    float32: true,
  },
  { op: "HardSwish", input: { range: [-5, 5], avoid: [-3, 3] }, float32: true },
  { op: "Mish", input: { range: [-3, 3] }, float32: true },
  { op: "Gelu", input: { range: [-2, 2] }, float32: true, opset: 20 },
  { op: "Gelu", attributes: { approximate: "tanh" }, input: { range: [-2, 2] }, float32: true, opset: 20 },
];

describe("functions of one argument", () => {
  it.each(unary)("$op $attributes", ({ op, attributes, input, float32, opset }) =>
    expectGradients({
      inputs: [{ dims: shape, ...input }],
      build: (b, [x]) => b.op(op, [x as string], attributes),
      shapes: ["symbolic"],
      ...(float32 && { precision: "float32" }),
      ...(opset && { opset }),
    }),
  );

  // torch.nn.functional's derivatives: threshold, hardsigmoid and hardtanh count a kink as outside, clamp as inside.
  it.each([
    ["Relu", {}, [0], [0]],
    ["LeakyRelu", { alpha: float(0.25) }, [0], [0.25]],
    ["Abs", {}, [0], [0]],
    ["Elu", { alpha: float(2) }, [0], [2]],
    ["HardSigmoid", { alpha: float(0.25), beta: float(0.5) }, [-2, 2, 1], [0, 0, 0.25]],
    ["HardSwish", {}, [-3, 3], [-0.5, 1.5]],
  ] as const)("%s %j at %j has the derivative %j", async (op, attributes, at, derivative) => {
    const [gradient] = await gradientsOf({
      inputs: [{ dims: [at.length], values: at }],
      build: (b, [x]) => b.op(op, [x as string], attributes),
      precision: "float32",
    });
    expect(gradient).toEqual(derivative);
  });
});

describe("Clip", () => {
  it("is one inside and at its bounds, as torch.clamp", async () => {
    const [gradient] = await gradientsOf({
      inputs: [{ dims: [5], values: [-2, -1, 0.5, 2, 3] }],
      build: (b, [x]) => b.op("Clip", [x as string, b.f64(-1), b.f64(2)]),
    });
    expect(gradient).toEqual([0, 1, 1, 1, 0]);
  });
  it("differentiates trainable bounds", () =>
    expectGradients({
      inputs: [
        { dims: shape, range: [-2, 2], avoid: [-0.5, 0.75] },
        { dims: [], values: [-0.5] },
        { dims: [], values: [0.75] },
      ],
      build: (b, [x, low, high]) => b.op("Clip", [x as string, low as string, high as string]),
    }));
  it("leaves out a bound", () =>
    expectGradients({
      inputs: [{ dims: shape, range: [-2, 2], avoid: [0.75] }],
      build: (b, [x]) => b.op("Clip", [x as string, "", b.f64(0.75)]),
    }));
});

describe("Where", () => {
  const mask = { dims: [2, 3], type: "bool", values: [1, 0, 1, 0, 0, 1] } as const;
  it.each([
    [
      [2, 3],
      [2, 3],
    ],
    [[3], [2, 1]],
    [[], [4, 2, 3]],
  ])("between %j and %j", (a, b) =>
    expectGradients({
      inputs: [mask, { dims: a }, { dims: b }],
      build: (builder, [condition, x, y]) => builder.where(condition as string, x as string, y as string),
    }),
  );
});

describe("several operands", () => {
  const operands = [
    { dims: [2, 3], values: [1, 5, 3, 2, 8, 4] },
    { dims: [3], values: [2, 4, 3.5] },
    { dims: [2, 1], values: [0.5, 7] },
  ];
  it.each(["Max", "Min", "Sum", "Mean"])("%s", async (op) => {
    for (const count of [1, 2, 3]) {
      // Mean has no float64 kernel.
      const precision = op === "Mean" ? "float32" : "float64";
      await expectGradients({ inputs: operands.slice(0, count), build: (b, x) => b.op(op, x), precision });
    }
  });
  it("share a tie evenly, as torch.maximum", async () => {
    const tied = [
      { dims: [2], values: [1, 2] },
      { dims: [2], values: [1, 3] },
    ];
    expect(await gradientsOf({ inputs: tied, build: (b, x) => b.op("Max", x) })).toEqual([
      [0.5, 0],
      [0.5, 1],
    ]);
  });
  it("Mod of floats", () =>
    expectGradients({
      inputs: [
        { dims: [4], values: [5.3, -5.3, 2.2, 7.1] },
        { dims: [4], values: [3, 2, -1.5, 2] },
      ],
      build: (b, [x, y]) => b.op("Mod", [x as string, y as string], { fmod: 1 }),
    }));
});

describe("ONNX Runtime's own domain", () => {
  const domain = "com.microsoft";
  const smooth = { dims: [2, 3, 4], range: [-2, 2] } as const;
  it.each(["Gelu", "QuickGelu", "FastGelu"])("%s", (op) =>
    expectGradients({
      inputs: [smooth],
      build: (b, x) => b.node(op, x, { domain })[0] as string,
      precision: "float32",
      tolerance: 1e-3,
    }),
  );
  it.each(["BiasGelu", "FastGelu"])("%s with a bias", (op) =>
    expectGradients({
      inputs: [smooth, { dims: [4] }],
      build: (b, x) => b.node(op, x, { domain })[0] as string,
      precision: "float32",
      tolerance: 1e-3,
    }),
  );
  for (const [transA, transB] of [
    [0, 0],
    [1, 0],
    [0, 1],
    [1, 1],
  ]) {
    it(`FusedMatMul transA ${transA}, transB ${transB}`, () =>
      expectGradients({
        inputs: [{ dims: [2, ...(transA ? [4, 3] : [3, 4])] }, { dims: transB ? [2, 4] : [4, 2] }],
        build: (b, x) =>
          b.node("FusedMatMul", x, { domain, attributes: { transA, transB, alpha: float(0.5) } })[0] as string,
        step: 0.25,
        tolerance: 1e-10,
      }));
  }
});

describe("Pow", () => {
  it.each([-2, -1, 0, 0.5, 1, 2, 3, 2.5])("with the constant exponent %d", (p) =>
    expectGradients({
      inputs: [{ dims: shape, range: [0.5, 2] }],
      build: (b, [x]) => b.pow(x as string, b.f64(p)),
      shapes: ["symbolic"],
    }),
  );
  it("of negative numbers to an integer power", () =>
    expectGradients({
      inputs: [{ dims: shape, range: [-2, -0.5] }],
      build: (b, [x]) => b.pow(x as string, b.i64(3)),
      shapes: ["symbolic"],
    }));
  it.each([
    [
      [2, 3],
      [2, 3],
    ],
    [[2, 3], [3]],
    [[3], [2, 1]],
  ])("with a trainable exponent: %j to the %j", (base, exponent) =>
    expectGradients({
      inputs: [
        { dims: base, range: [0.5, 2] },
        { dims: exponent, range: [-2, 2] },
      ],
      build: (b, [x, p]) => b.pow(x as string, p as string),
    }),
  );
});

describe("PRelu", () => {
  it.each([[[2, 3, 4]], [[3, 1]], [[4]], [[1]], [[]]])("with a slope of shape %j", (slope) =>
    expectGradients({
      inputs: [{ dims: shape, ...kinkAtZero }, { dims: slope }],
      build: (b, [x, a]) => b.op("PRelu", [x as string, a as string]),
      precision: "float32",
    }),
  );
});

describe("Softmax and LogSoftmax", () => {
  for (const op of ["Softmax", "LogSoftmax"]) {
    it.each([0, 1, 2, -1, -2])(`${op} along axis %d`, (axis) =>
      expectGradients({
        inputs: [{ dims: shape, range: [-2, 2] }],
        build: (b, [x]) => b.op(op, [x as string], { axis }),
        shapes: ["symbolic"],
      }),
    );
    it(`${op} along a size of 1`, () =>
      expectGradients({
        inputs: [{ dims: [3, 1] }],
        build: (b, [x]) => b.op(op, [x as string]),
        shapes: ["symbolic"],
      }));
  }
});

describe("Cast", () => {
  it("between floats", () =>
    expectGradients({
      inputs: [{ dims: [3] }],
      build: (b, [x]) => b.cast(b.mul(b.cast(x as string, DataType.FLOAT), b.f32(3)), DataType.DOUBLE),
      step: 0.25,
      tolerance: 1e-6,
    }));
  it("ends at an integer", () =>
    expectGradients({
      inputs: [{ dims: [3], range: [0.2, 0.8] }],
      build: (b, [x]) =>
        b.add(b.mul(x as string, b.f64(2)), b.cast(b.cast(x as string, DataType.INT64), DataType.DOUBLE)),
    }));
});
