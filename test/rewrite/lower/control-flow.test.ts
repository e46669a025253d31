/** If, Loop and Scan in the graph around them, against ONNX Runtime's own. */
import fc from "fast-check";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { type Dim, type GraphBuilder, valueInfo } from "../../../src/onnx/builder.js";
import { DataType, type GraphProto, type ModelProto } from "../../../src/onnx/proto.js";
import { wave } from "../../support/convert.js";
import { expectLowered, lower, modelWith, Source } from "./support.js";

const FLOAT = (...shape: Dim[]) => ({ elemType: DataType.FLOAT, shape });
const bool = (value: boolean) => new ort.Tensor("bool", Uint8Array.of(Number(value)), []);

/** A subgraph of `outer`. */
function subgraph(
  outer: GraphBuilder,
  inputs: readonly (readonly [string, DataType, readonly Dim[] | undefined])[],
  build: (b: GraphBuilder, inputs: string[]) => readonly (readonly [string, DataType])[],
): GraphProto {
  const b = outer.subgraph("body");
  const names = inputs.map(([hint, elemType, shape]) => {
    const name = b.unique(hint);
    b.graph.input.push(valueInfo(name, { elemType, shape }));
    return name;
  });
  for (const [name, elemType] of build(b, names)) b.output(name, { elemType, shape: undefined });
  return b.graph;
}

const refusalOf = async (model: ModelProto) => [...(await lower(model)).refusals.values()].join();

describe("If", () => {
  /** y = condition ? x·W : relu(x) + W₀, with the condition made by `condition`. */
  const choice = (condition: (b: GraphBuilder, x: string) => string, width = 3) =>
    modelWith((b) => {
      const x = b.input("x", FLOAT("batch", 3));
      const W = new Source(5).weight(b, "W", [3, width]);
      const row = b.slice(W, [0], [1], [0]);
      const yes = subgraph(b, [], (t) => [[t.matMul(x, W), 1]]);
      const no = subgraph(b, [], (e) => [[width === 3 ? e.add(e.op("Relu", [x]), row) : e.op("Relu", [x]), 1]]);
      return [b.op("If", [condition(b, x)], { then_branch: yes, else_branch: no })];
    });
  const x = wave([4, 3]);

  it.each([true, false])("takes the branch of a constant condition (%s)", async (value) => {
    const model = choice((b) => b.constant(DataType.BOOL, Number(value)));
    const { operators } = await expectLowered(model, { x }, ["If", "Where"]);
    expect(operators.includes("MatMul")).toBe(value);
  });

  it("takes the branch that a known dimension decides", async () => {
    const isThree = (b: GraphBuilder, of: string) => b.equal(b.gather(b.shape(of), b.i64(1)), b.i64(3));
    const { operators } = await expectLowered(choice(isThree), { x }, ["If", "Where", "Relu"]);
    expect(operators).toContain("MatMul");
  });

  it("computes both branches where the condition is fed", async () => {
    const model = choice((b) => b.input("c", { elemType: DataType.BOOL, shape: [] }));
    for (const value of [true, false]) await expectLowered(model, { x, c: bool(value) }, ["If"]);
  });

  it("takes a condition of one element", async () => {
    const model = choice((b) => b.input("c", { elemType: DataType.BOOL, shape: [1] }));
    const c = new ort.Tensor("bool", Uint8Array.of(1), [1]);
    const { types } = await expectLowered(model, { x, c }, ["If"]);
    expect(types.get(model.graph.output[0]?.name as string)?.shape).toEqual(["batch", 3]);
  });

  it("is kept where the branches have different shapes", async () => {
    const model = choice((b) => b.input("c", { elemType: DataType.BOOL, shape: [] }), 5);
    const reason = await refusalOf(model);
    expect(reason).toContain("'c' is known at run time only");
    expect(reason).toContain("different shapes");
    expect((await lower(model)).operators).toContain("If");
  });

  it("hands outer values through, and several outputs", async () => {
    const model = modelWith((b) => {
      const x = b.input("x", FLOAT("batch", 3));
      const W = new Source(5).weight(b, "W", [3]);
      const y = b.mul(x, W);
      const yes = subgraph(b, [], (t) => [
        [t.op("Identity", [y]), 1],
        [t.op("Tanh", [y]), 1],
      ]);
      const no = subgraph(b, [], (e) => [
        [e.op("Sigmoid", [y]), 1],
        [e.op("Identity", [x]), 1],
      ]);
      const c = b.input("c", { elemType: DataType.BOOL, shape: [] });
      return b.node("If", [c], { outputs: 2, attributes: { then_branch: yes, else_branch: no } });
    });
    for (const value of [true, false]) await expectLowered(model, { x, c: bool(value) }, ["If"]);
  });

  it("stays where nothing trains", async () => {
    const model = choice((b) => b.input("c", { elemType: DataType.BOOL, shape: [] }));
    model.graph.input.push({
      name: "W",
      type: { tensorType: { elemType: 1, shape: { dim: [{ dimValue: 3 }, { dimValue: 3 }] } } },
    });
    model.graph.initializer = model.graph.initializer.filter(({ name }) => name !== "W");
    const { operators, refusals } = await lower(model);
    expect(operators).toContain("If");
    expect(refusals.size).toBe(0);
  });
});

describe("Loop", () => {
  interface LoopOptions {
    readonly count?: (b: GraphBuilder, x: string) => string;
    readonly condition?: (b: GraphBuilder) => string;
    /** The body's condition, from the iteration number, the condition and the carried value. */
    readonly goesOn?: (b: GraphBuilder, i: string, condition: string, h: string) => string;
    readonly scans?: boolean;
  }
  /** h ← tanh(h·W + i), h₀ = x; gives the last h and all h². */
  const recurrence = ({ count, condition, goesOn, scans = true }: LoopOptions) =>
    modelWith((b) => {
      const x = b.input("x", FLOAT("batch", 3));
      const W = new Source(9).weight(b, "W", [3, 3]);
      const body = subgraph(
        b,
        [
          ["i", DataType.INT64, []],
          ["condition", DataType.BOOL, []],
          ["h", DataType.FLOAT, undefined],
        ],
        (s, [i, c, h]) => {
          const transposed = s.transpose(W, [1, 0]);
          const scaled = s.add(s.matMul(h as string, transposed), s.cast(i as string, DataType.FLOAT));
          const next = s.op("Tanh", [s.mul(scaled, s.initializer("half", DataType.FLOAT, [1], Float32Array.of(0.5)))]);
          return [
            [goesOn ? goesOn(s, i as string, c as string, next) : s.op("Identity", [c as string]), DataType.BOOL],
            [next, DataType.FLOAT],
            ...(scans ? [[s.mul(next, next), DataType.FLOAT] as const] : []),
          ];
        },
      );
      const inputs = [count ? count(b, x) : "", condition ? condition(b) : "", x];
      return b.node("Loop", inputs, { outputs: scans ? 2 : 1, attributes: { body } });
    });
  const x = wave([2, 3]);
  const yes = (b: GraphBuilder) => b.constant(DataType.BOOL, 1);

  it.each([1, 2, 5])("runs %i times, as a constant says", async (n) => {
    const { operators } = await expectLowered(recurrence({ count: (b) => b.i64(n), condition: yes }), { x }, ["Loop"]);
    expect(operators.filter((operator) => operator === "MatMul")).toHaveLength(n);
    expect(
      operators.filter((operator) => operator === "Transpose"),
      "what never changes is emitted once",
    ).toHaveLength(1);
  });

  it("runs as often as a known dimension says", async () => {
    const count = (b: GraphBuilder, of: string) => b.gather(b.shape(of), b.i64(1));
    const { operators } = await expectLowered(recurrence({ count }), { x }, ["Loop"]);
    expect(operators.filter((operator) => operator === "MatMul")).toHaveLength(3);
  });

  it("passes its initial values on when it never runs", async () => {
    await expectLowered(recurrence({ count: (b) => b.i64(0), scans: false }), { x }, ["Loop"]);
    const never = (b: GraphBuilder) => b.constant(DataType.BOOL, 0);
    await expectLowered(recurrence({ count: (b) => b.i64(3), condition: never, scans: false }), { x }, ["Loop"]);
  });

  it("stops where a counter says", async () => {
    const goesOn: LoopOptions["goesOn"] = (b, i) => b.less(b.add(i, b.i64(1)), b.i64(4));
    const endless = (b: GraphBuilder) => b.initializer("m", DataType.INT64, [], BigInt64Array.of(2n ** 63n - 1n));
    for (const count of [endless, undefined]) {
      const model = recurrence({ condition: yes, goesOn, ...(count && { count }) });
      const { operators } = await expectLowered(model, { x }, ["Loop"]);
      expect(operators.filter((operator) => operator === "MatMul")).toHaveLength(4);
    }
  });

  it("is kept, with the reason, where data decides", async () => {
    const fed = (b: GraphBuilder) => b.input("n", { elemType: DataType.INT64, shape: [] });
    expect(await refusalOf(recurrence({ count: fed }))).toContain("trip count 'n' is known at run time only");
    const goesOn: LoopOptions["goesOn"] = (b, _i, _c, h) => b.less(b.reduceSum(h, undefined, false), b.f32(1));
    const kept = await lower(recurrence({ count: (b) => b.i64(3), goesOn }));
    expect([...kept.refusals.values()].join()).toContain("condition is computed from data");
    expect(kept.operators, "nothing of the attempt is left").toEqual(["Loop"]);
    expect(await refusalOf(recurrence({ count: (b) => b.i64(5000) }))).toContain("5000 steps");
    expect(await refusalOf(recurrence({}))).toContain("at most 4096");
  });

  it("unrolls loops in loops, branches and recurrent layers in loops", async () => {
    const model = modelWith((b) => {
      const x = b.input("x", FLOAT(2, "batch", 3));
      const source = new Source(2);
      const [W, R] = [source.weight(b, "W", [1, 3, 3]), source.weight(b, "R", [1, 3, 3])];
      const inner = (s: GraphBuilder, h: string) =>
        subgraph(
          s,
          [
            ["j", DataType.INT64, []],
            ["go", DataType.BOOL, []],
            ["g", DataType.FLOAT, undefined],
          ],
          (t, [j, go, g]) => {
            const then = subgraph(t, [], (u) => [[u.op("Tanh", [g as string]), 1]]);
            const otherwise = subgraph(t, [], (u) => [[u.mul(g as string, h), 1]]);
            const isFirst = t.equal(j as string, t.i64(0));
            const branch = t.op("If", [isFirst], { then_branch: then, else_branch: otherwise });
            return [
              [t.op("Identity", [go as string]), DataType.BOOL],
              [branch, DataType.FLOAT],
            ];
          },
        );
      const outer = subgraph(
        b,
        [
          ["i", DataType.INT64, []],
          ["condition", DataType.BOOL, []],
          ["h", DataType.FLOAT, [2, "batch", 3]],
        ],
        (s, [, c, h]) => {
          const [y] = s.node("RNN", [h as string, W, R], { attributes: { hidden_size: 3 } });
          const flat = s.squeeze(y as string, [1]);
          const looped = s.op("Loop", [s.i64(2), "", flat], { body: inner(s, h as string) });
          return [
            [s.op("Identity", [c as string]), DataType.BOOL],
            [looped, DataType.FLOAT],
          ];
        },
      );
      return [b.op("Loop", [b.i64(2), "", x], { body: outer })];
    });
    const { operators } = await expectLowered(model, { x: wave([2, 2, 3]) }, ["Loop", "If", "RNN"]);
    expect(operators.filter((operator) => operator === "Gemm")).toHaveLength(4);
  });

  it("appends to lists", async () => {
    const model = modelWith((b) => {
      const x = b.input("x", FLOAT("batch", 3));
      const W = new Source(9).weight(b, "W", [3, 3]);
      const empty = b.op("SequenceEmpty", []);
      const inner = b.subgraph("body");
      const i = inner.input("i", { elemType: DataType.INT64, shape: [] });
      const c = inner.input("c", { elemType: DataType.BOOL, shape: [] });
      const list = inner.unique("list");
      const type = { sequenceType: { elemType: { tensorType: { elemType: 1 } } } };
      inner.graph.input.push({ name: list, type });
      const h = inner.input("h", { elemType: DataType.FLOAT, shape: undefined });
      const next = inner.op("Tanh", [inner.matMul(h, W)]);
      const position = inner.op("Mul", [i, inner.i64(0)]);
      const appended = inner.op("SequenceInsert", [list, next, position]);
      inner.output(inner.op("Identity", [c]), { elemType: DataType.BOOL, shape: [] });
      inner.graph.output.push({ name: appended, type });
      inner.output(next, { elemType: DataType.FLOAT, shape: undefined });
      const [all] = b.node("Loop", [b.i64(3), "", empty, x], { outputs: 2, attributes: { body: inner.graph } });
      const stacked = b.op("ConcatFromSequence", [all as string], { axis: 1, new_axis: 1 });
      const second = b.op("SequenceAt", [all as string, b.i64(-2)]);
      return [stacked, second];
    });
    await expectLowered(model, { x }, ["Loop", "ConcatFromSequence", "SequenceInsert", "SequenceAt"]);
  });
});

describe("SplitToSequence", () => {
  it.each([
    ["equal parts", 2, undefined],
    ["a rest", 4, undefined],
    ["given sizes", [1, 5], undefined],
    ["single elements", undefined, 1],
    ["single elements without the axis", undefined, 0],
  ] as const)("gives %s", async (_, split, keepdims) => {
    const model = modelWith((b) => {
      const x = b.input("x", FLOAT("batch", 6));
      const y = b.mul(x, new Source(1).weight(b, "W", [6]));
      const sizes = split === undefined ? [] : [b.constant(DataType.INT64, split)];
      const sequence = b.op("SplitToSequence", [y, ...sizes], { axis: 1, ...(keepdims !== undefined && { keepdims }) });
      return [0, 1, -1].map((at) => b.op("SequenceAt", [sequence, b.i64(at)]));
    });
    await expectLowered(model, { x: wave([2, 6]) }, ["SplitToSequence", "SequenceAt", "SequenceConstruct"]);
  });

  it("is kept, with the reason, where the size is not known", async () => {
    const model = modelWith((b) => {
      const y = b.mul(b.input("x", FLOAT("batch", 2)), new Source(1).weight(b, "W", [2]));
      return [b.op("SequenceAt", [b.op("SplitToSequence", [y], { axis: 0 }), b.i64(0)])];
    });
    expect(await refusalOf(model)).toMatch(/the axis 0 .*the elements of its sequence/s);
  });
});

describe("Scan", () => {
  /** One state, two scanned inputs, two scanned outputs, along any axes and directions. */
  const scanCase = fc.record({
    steps: fc.integer({ min: 1, max: 4 }),
    axes: fc.tuple(fc.integer({ min: -3, max: 2 }), fc.integer({ min: -2, max: 1 })),
    outputAxes: fc.tuple(fc.integer({ min: -3, max: 2 }), fc.integer({ min: -3, max: 2 })),
    directions: fc.tuple(fc.nat(1), fc.nat(1), fc.nat(1), fc.nat(1)),
    explicit: fc.boolean(),
  });

  it("computes what ONNX Runtime's does, along any axes", async () => {
    await fc.assert(
      fc.asyncProperty(scanCase, async ({ steps, axes, outputAxes, directions, explicit }) => {
        const insert = (dims: number[], axis: number) => {
          const copy = [...dims];
          copy.splice(axis < 0 ? axis + dims.length + 1 : axis, 0, steps);
          return copy;
        };
        const [axis0, axis1] = explicit ? axes : [0, 0];
        const dims = [insert([2, 3], axis0), insert([3], axis1)];
        const model = modelWith((b) => {
          const source = new Source(4);
          const W = source.weight(b, "W", [3, 3]);
          const state = b.input("state", FLOAT(2, 3));
          const inputs = dims.map((shape, i) => b.input(`x${i}`, FLOAT(...shape)));
          const body = subgraph(
            b,
            [
              ["h", DataType.FLOAT, [2, 3]],
              ["a", DataType.FLOAT, [2, 3]],
              ["c", DataType.FLOAT, [3]],
            ],
            (s, [h, a, c]) => {
              const next = s.op("Tanh", [s.add(s.matMul(h as string, W), s.mul(a as string, c as string))]);
              return [
                [next, 1],
                [s.mul(next, a as string), 1],
                [s.add(next, c as string), 1],
              ];
            },
          );
          const attributes = {
            body,
            num_scan_inputs: 2,
            ...(explicit && {
              scan_input_axes: axes,
              scan_output_axes: outputAxes,
              scan_input_directions: directions.slice(0, 2),
              scan_output_directions: directions.slice(2),
            }),
          };
          return b.node("Scan", [state, ...inputs], { outputs: 3, attributes });
        });
        const feeds = { state: wave([2, 3]), x0: wave(dims[0] as number[]), x1: wave(dims[1] as number[], 1, 2) };
        await expectLowered(model, feeds, ["Scan"]);
      }),
      { numRuns: 60, seed: 3 },
    );
  });

  it("is kept, with the reason, where the length is not known", async () => {
    const model = modelWith((b) => {
      const x = b.input("x", FLOAT("time", 3));
      const W = new Source(1).weight(b, "W", [3]);
      const body = subgraph(b, [["a", DataType.FLOAT, [3]]], (s, [a]) => [[s.mul(a as string, W), 1]]);
      return b.node("Scan", [x], { attributes: { body, num_scan_inputs: 1 } });
    });
    expect(await refusalOf(model)).toContain("dimension 0 of 'x', is 'time'");
  });
});
