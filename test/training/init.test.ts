/** `fishy init`: moments by fans, orthogonality, and that nothing else in the file changes. */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { decodeModel, encodeModel } from "../../src/onnx/codec.js";
import { readTensor } from "../../src/onnx/external.js";
import { widen } from "../../src/onnx/half.js";
import { loadModel, saveModel } from "../../src/onnx/model-file.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { dataOf, dimsOf, tensorFromNumbers } from "../../src/onnx/tensor.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { type InitializeOptions, initializeParameters } from "../../src/training/init/initialize.js";
import { rolesOf } from "../../src/training/init/roles.js";
import { parseScheme } from "../../src/training/init/schemes.js";
import { fishy } from "../support/cli.js";
import { modelOf, runModel } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";
import { temporaryFolder } from "./support.js";

const folder = temporaryFolder();
const path = (name: string) => join(folder, name);

interface Use {
  readonly opType: string;
  readonly dims: readonly number[];
  readonly index?: number;
  readonly attributes?: Record<string, number | string | readonly number[]>;
  readonly inputs?: number;
}

/** A model whose single weight `w` is an input of one node. Nothing here runs: roles come from the graph alone. */
function modelWith({ opType, dims, index = 1, attributes = {}, inputs = 2 }: Use): ModelProto {
  const b = new GraphBuilder(emptyGraph("one"));
  b.graph.initializer.push(
    tensorFromNumbers("w", DataType.FLOAT, dims, new Array(dims.reduce((a, d) => a * d, 1)).fill(0.5)),
  );
  const names = Array.from({ length: inputs }, (_, i) => (i === index ? "w" : `x${i}`));
  b.node(opType, names, { outputs: ["y"], attributes: attributes as Record<string, number> });
  return modelOf(b.graph);
}

function valuesOf(model: ModelProto, name: string): Float32Array {
  return dataOf(model.graph.initializer.find((tensor) => tensor.name === name) as never) as Float32Array;
}

function initialised(model: ModelProto, scheme: string, options: InitializeOptions = {}) {
  const result = initializeParameters(model, { scheme: parseScheme(scheme), ...options });
  return { ...result, w: valuesOf(result.proto, "w") };
}

/** Mean, variance and kurtosis of a sample, with the standard errors that they have under normality or uniformity. */
function moments(values: Float32Array) {
  const n = values.length;
  const mean = values.reduce((sum, x) => sum + x, 0) / n;
  const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n;
  const fourth = values.reduce((sum, x) => sum + (x - mean) ** 4, 0) / n;
  return { n, mean, variance, kurtosis: fourth / variance ** 2 };
}

describe("fans", () => {
  // What one output sums over, and how many outputs one input reaches, counted by hand.
  const cases: [string, Use, number, number][] = [
    ["Gemm with transB", { opType: "Gemm", dims: [40, 60], attributes: { transB: 1 } }, 60, 40],
    ["Gemm", { opType: "Gemm", dims: [60, 40] }, 60, 40],
    ["Gemm, the weight first", { opType: "Gemm", dims: [40, 60], index: 0 }, 60, 40],
    [
      "Gemm, the weight first with transA",
      { opType: "Gemm", dims: [60, 40], index: 0, attributes: { transA: 1 } },
      60,
      40,
    ],
    ["MatMul", { opType: "MatMul", dims: [60, 40] }, 60, 40],
    ["MatMul, the weight first", { opType: "MatMul", dims: [40, 60], index: 0 }, 60, 40],
    ["MatMul of a stack", { opType: "MatMul", dims: [3, 60, 40] }, 60, 40],
    ["Conv", { opType: "Conv", dims: [16, 8, 3, 5] }, 8 * 15, 16 * 15],
    ["Conv in groups", { opType: "Conv", dims: [16, 2, 3, 3], attributes: { group: 4 } }, 2 * 9, 4 * 9],
    ["depthwise Conv", { opType: "Conv", dims: [64, 1, 7, 7], attributes: { group: 64 } }, 49, 49],
    ["ConvTranspose", { opType: "ConvTranspose", dims: [8, 16, 3, 3] }, 8 * 9, 16 * 9],
    ["ConvTranspose in groups", { opType: "ConvTranspose", dims: [8, 4, 5], attributes: { group: 2 } }, 4 * 5, 4 * 5],
    ["LSTM, input", { opType: "LSTM", dims: [2, 80, 30], inputs: 3, attributes: { hidden_size: 20 } }, 30, 20],
    ["GRU, state", { opType: "GRU", dims: [1, 60, 20], index: 2, inputs: 3, attributes: { hidden_size: 20 } }, 20, 20],
    ["RNN", { opType: "RNN", dims: [1, 20, 50], inputs: 3, attributes: { hidden_size: 20 } }, 50, 20],
    [
      "Einsum",
      { opType: "Einsum", dims: [5, 6, 12], attributes: { equation: "bthd,hde->bte" } as never, index: 1 },
      30,
      12,
    ],
    ["an embedding", { opType: "Gather", dims: [500, 24], index: 0 }, 1, 24],
  ];
  it.each(cases)("of %s", (_, use, fanIn, fanOut) => {
    expect(initialised(modelWith(use), "he").parameters[0]).toMatchObject({ name: "w", fanIn, fanOut });
  });

  it("through Transpose, Unsqueeze, Slice and Concat, as exporters move weights", () => {
    const b = new GraphBuilder(emptyGraph("moved"));
    b.graph.initializer.push(tensorFromNumbers("w", DataType.FLOAT, [80, 30], new Array(2400).fill(0)));
    const half = (from: number, to: number) => b.slice("w", [from], [to], [0]);
    b.node("LSTM", ["x", b.unsqueeze(b.concat([half(40, 80), half(0, 40)], 0), [0]), "r"], {
      attributes: { hidden_size: 20 },
    });
    expect(initialised(modelOf(b.graph), "he").parameters[0]).toMatchObject({ fanIn: 30, fanOut: 20 });
    const c = new GraphBuilder(emptyGraph("moved"));
    c.graph.initializer.push(tensorFromNumbers("w", DataType.FLOAT, [80, 30], new Array(2400).fill(0)));
    c.matMul("x", c.transpose("w", [1, 0]));
    expect(initialised(modelOf(c.graph), "he").parameters[0]).toMatchObject({ fanIn: 30, fanOut: 80 });
  });

  it("a tied embedding is the weight of the layer that it is tied to", () => {
    const b = new GraphBuilder(emptyGraph("tied"));
    b.graph.initializer.push(tensorFromNumbers("w", DataType.FLOAT, [50, 8], new Array(400).fill(0)));
    b.gather("w", "ids");
    b.matMul("h", b.transpose("w", [1, 0]));
    expect(initialised(modelOf(b.graph), "he").parameters[0]).toMatchObject({ fanIn: 8, fanOut: 50 });
  });

  it("a training program has the roles of its source", async () => {
    for (const name of ["cnn", "transformer_encoder"]) {
      const { proto } = await loadModel(join(GRAPHS, "pytorch", name, "model.onnx"));
      const program = await rewrite(proto, { loss: "softmax-cross-entropy" });
      const [source, rewritten] = [rolesOf(proto).roles, rolesOf(program.model).roles];
      for (const { name: parameter } of program.manifest.parameters) {
        expect([parameter, rewritten.get(parameter)]).toEqual([parameter, source.get(parameter)]);
      }
    }
  });
});

describe("schemes", () => {
  const linear = modelWith({ opType: "Gemm", dims: [200, 300], attributes: { transB: 1 } });
  it.each([
    ["glorot", 2 / 500, "uniform"],
    ["xavier-normal", 2 / 500, "normal"],
    ["he", 2 / 300, "normal"],
    ["kaiming-uniform", 2 / 300, "uniform"],
    ["lecun", 1 / 300, "normal"],
    ["lecun-uniform", 1 / 300, "uniform"],
    ["normal:0.02", 0.0004, "normal"],
    ["uniform:0.3", 0.03, "uniform"],
  ])("%s has its variance and form", (scheme, variance, form) => {
    const { w } = initialised(linear, scheme);
    const found = moments(w);
    expect(Math.abs(found.mean)).toBeLessThan(5 * Math.sqrt(variance / found.n));
    // Var of the sample variance: (κ − 1)σ⁴/n, with κ = 3 or 9/5.
    const kurtosis = form === "normal" ? 3 : 1.8;
    expect(Math.abs(found.variance / variance - 1)).toBeLessThan(5 * Math.sqrt((kurtosis - 1) / found.n));
    expect(Math.abs(found.kurtosis - kurtosis)).toBeLessThan(0.15);
    if (form === "uniform") expect(Math.max(...w)).toBeLessThanOrEqual(Math.sqrt(3 * variance) * 1.000001);
    // Neighbours are independent.
    let product = 0;
    for (let i = 1; i < w.length; i++) product += (w[i - 1] as number) * (w[i] as number);
    expect(Math.abs(product / w.length / variance)).toBeLessThan(5 / Math.sqrt(w.length));
  });

  it("constants", () => {
    expect(new Set(initialised(linear, "zeros").w)).toEqual(new Set([0]));
    expect(new Set(initialised(linear, "ones").w)).toEqual(new Set([1]));
    expect(new Set(initialised(linear, "constant:-2.5").w)).toEqual(new Set([-2.5]));
  });

  /** Largest deviation of M·Mᵀ from gain²·I, for the vectors of M along its longer side. */
  function deviation(rows: number[][], gain: number): number {
    let worst = 0;
    for (const [i, x] of rows.entries()) {
      for (const [j, y] of rows.entries()) {
        const product = x.reduce((sum, value, k) => sum + value * (y[k] as number), 0);
        worst = Math.max(worst, Math.abs(product - (i === j ? gain ** 2 : 0)));
      }
    }
    return worst;
  }
  const at = (w: Float32Array, i: number) => w[i] as number;
  const range = (n: number) => Array.from({ length: n }, (_, i) => i);

  it("orthogonal: rows of a wide matrix, columns of a tall one", () => {
    const wide = initialised(modelWith({ opType: "Gemm", dims: [20, 50], attributes: { transB: 1 } }), "orthogonal").w;
    expect(
      deviation(
        range(20).map((i) => range(50).map((j) => at(wide, i * 50 + j))),
        1,
      ),
    ).toBeLessThan(1e-6);
    const tall = initialised(
      modelWith({ opType: "Gemm", dims: [50, 20], attributes: { transB: 1 } }),
      "orthogonal:2",
    ).w;
    expect(
      deviation(
        range(20).map((j) => range(50).map((i) => at(tall, i * 20 + j))),
        2,
      ),
    ).toBeLessThan(1e-5);
  });

  it("orthogonal: each filter of each group, each gate of each direction", () => {
    const conv = initialised(
      modelWith({ opType: "Conv", dims: [8, 2, 3, 3], attributes: { group: 2 } }),
      "orthogonal",
    ).w;
    for (const group of [0, 1]) {
      const filters = range(4).map((i) => range(18).map((j) => at(conv, (group * 4 + i) * 18 + j)));
      expect(deviation(filters, 1)).toBeLessThan(1e-6);
    }
    // W [in, out/groups, k]: an output sums over in/groups inputs and the kernel.
    const up = initialised(modelWith({ opType: "ConvTranspose", dims: [6, 4, 3] }), "orthogonal").w;
    const outputs = range(4).map((o) => range(6).flatMap((i) => range(3).map((k) => at(up, (i * 4 + o) * 3 + k))));
    expect(deviation(outputs, 1)).toBeLessThan(1e-6);
    const gru = { opType: "GRU", dims: [2, 15, 5], index: 2, inputs: 3, attributes: { hidden_size: 5 } };
    const state = initialised(modelWith(gru), "orthogonal").w;
    for (const gate of range(6)) {
      const matrix = range(5).map((i) => range(5).map((j) => at(state, (gate * 5 + i) * 5 + j)));
      expect(deviation(matrix, 1)).toBeLessThan(1e-6);
    }
  });

  it("orthogonal: the first entry of a random rotation has mean 0 and variance 1/n", () => {
    const firsts = range(400).map((seed) =>
      at(initialised(modelWith({ opType: "MatMul", dims: [4, 4] }), "orthogonal", { seed }).w, 0),
    );
    const found = moments(Float32Array.from(firsts));
    expect(Math.abs(found.mean)).toBeLessThan(5 * Math.sqrt(0.25 / 400));
    expect(found.variance).toBeGreaterThan(0.2);
    expect(found.variance).toBeLessThan(0.3);
  });

  it.each(["he:2", "normal", "normal:x", "normal:-1", "zeros:1", "gloro", "he-cauchy", "constant", "orthogonal:", ""])(
    "%j is refused",
    (text) => {
      expect(() => parseScheme(text)).toThrow(/Schemes: glorot, he or lecun/);
    },
  );

  it("he keeps the size of activations through twenty rectified layers", async () => {
    const [width, layers, batch] = [128, 20, 64];
    const b = new GraphBuilder(emptyGraph("deep"));
    let x = b.input("x", { elemType: DataType.FLOAT, shape: [batch, width] });
    for (let i = 0; i < layers; i++) {
      b.graph.initializer.push(
        tensorFromNumbers(`w${i}`, DataType.FLOAT, [width, width], new Array(width ** 2).fill(0)),
      );
      x = b.op("Relu", [b.gemm(x, `w${i}`, { transB: true })]);
    }
    b.alias(x, "y");
    b.output("y", { elemType: DataType.FLOAT, shape: [batch, width] });
    const { proto } = initializeParameters(modelOf(b.graph), { scheme: parseScheme("he") });
    const input = initialised(modelWith({ opType: "MatMul", dims: [batch, width] }), "normal:1").w;
    const { y } = await runModel(proto, { x: new ort.Tensor("float32", input, [batch, width]) });
    const square = (values: Float32Array) => values.reduce((sum, value) => sum + value * value, 0) / values.length;
    // E[y²] = E[x²] exactly for he; its spread over weights is about e^(±√(5·20/128)).
    expect(square(y?.data as Float32Array) / square(input)).toBeGreaterThan(0.1);
    expect(square(y?.data as Float32Array) / square(input)).toBeLessThan(10);
  });
});

describe("what changes", () => {
  const CNN = join(GRAPHS, "pytorch/resnet_small/model.onnx");

  /** Names of initializers that differ, and whether everything else is the same bytes. */
  function changes(before: ModelProto, after: ModelProto): string[] {
    const stripped = (model: ModelProto) => encodeModel({ ...model, graph: { ...model.graph, initializer: [] } });
    expect(Buffer.from(stripped(after)).equals(Buffer.from(stripped(before)))).toBe(true);
    expect(after.graph.initializer.map((tensor) => [tensor.name, tensor.dataType, dimsOf(tensor)])).toEqual(
      before.graph.initializer.map((tensor) => [tensor.name, tensor.dataType, dimsOf(tensor)]),
    );
    return before.graph.initializer.flatMap((tensor, i) => {
      const bytes = (data: ArrayBufferView) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
      const other = after.graph.initializer[i] as typeof tensor;
      return bytes(dataOf(tensor)).equals(bytes(dataOf(other))) ? [] : [tensor.name ?? ""];
    });
  }

  it("weights are drawn; biases, scales and running statistics are as in a fresh layer; the rest stays", async () => {
    const out = path("fresh.onnx");
    const { code, stdout, stderr } = await fishy("init", CNN, "-o", out, "--scheme", "he", "--json");
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const { parameters } = JSON.parse(stdout);
    expect(parameters[0]).toEqual({
      name: "stem.0.weight",
      dims: [8, 3, 3, 3],
      scheme: "he-normal",
      fanIn: 27,
      fanOut: 72,
    });
    const [before, after] = [CNN, out].map((file) => decodeModel(readFileSync(file))) as [ModelProto, ModelProto];
    const changed = changes(before, after);
    expect(changed).toContain("stem.0.weight");
    expect(changed).toContain("l.0.b1.running_var");
    for (const { name = "" } of after.graph.initializer) {
      if (/(bias|running_mean)$/.test(name)) expect(valuesOf(after, name).every((x) => x === 0)).toBe(true);
      if (/(\.b\d\.weight|stem\.1\.weight|running_var)$/.test(name)) {
        expect(valuesOf(after, name).every((x) => x === 1)).toBe(true);
      }
    }
  });

  it("--only: named parameters alone, the last pattern that fits decides, values as without --only", async () => {
    const whole = path("whole.onnx");
    await fishy("init", CNN, "-o", whole, "--scheme", "lecun", "--seed", "5");
    const part = path("part.onnx");
    const only = ["--only", "l.0.*.weight", "l.0.c2.weight=orthogonal", "fc.bias=normal:3"];
    const { stderr } = await fishy("init", CNN, "-o", part, "--scheme", "lecun", "--seed", "5", ...only);
    expect(stderr).toBe("");
    const [before, full, after] = [CNN, whole, part].map((file) => decodeModel(readFileSync(file))) as [
      ModelProto,
      ModelProto,
      ModelProto,
    ];
    expect(changes(before, after).filter((name) => !/\.b\d\./.test(name))).toEqual(
      before.graph.initializer
        .map(({ name }) => name)
        .filter((name) => /^l\.0\.c\d\.weight$|^fc\.bias$/.test(name ?? "")),
    );
    expect(valuesOf(after, "l.0.c1.weight")).toEqual(valuesOf(full, "l.0.c1.weight"));
    expect(valuesOf(after, "l.0.c2.weight")).not.toEqual(valuesOf(full, "l.0.c2.weight"));
    // A name without a wildcard takes the scheme whatever its role.
    expect(valuesOf(after, "fc.bias").some((x) => Math.abs(x) > 1)).toBe(true);
  });

  it("--keep, and the seed", async () => {
    const files = ["a", "b", "c"].map((name) => path(`${name}.onnx`)) as [string, string, string];
    await fishy("init", CNN, "-o", files[0], "--keep", "stem.*", "fc.weight");
    await fishy("init", CNN, "-o", files[1], "--keep", "stem.*", "fc.weight");
    await fishy("init", CNN, "-o", files[2], "--keep", "stem.*", "fc.weight", "--seed", "1");
    const [a, b, c] = files.map((file) => readFileSync(file)) as [Buffer, Buffer, Buffer];
    expect(a.equals(b)).toBe(true);
    const changed = changes(decodeModel(a), decodeModel(c));
    expect(changed).toContain("l.1.c1.weight");
    const kept = changes(decodeModel(readFileSync(CNN)), decodeModel(a));
    expect(kept.filter((name) => /^stem|fc\.weight/.test(name))).toEqual([]);
  });

  it("external data: what stays is copied or stays where it is, what changes is written into the model", async () => {
    const source = await loadModel(join(GRAPHS, "pytorch/mlp_tanh/model.onnx"));
    mkdirSync(path("from"));
    mkdirSync(path("to"));
    await saveModel(source, path("from/big.onnx"), { externalData: true, externalThreshold: 0 });
    expect(existsSync(path("from/big.onnx.data"))).toBe(true);
    const names = source.proto.graph.initializer.map(({ name = "" }) => name);
    const [first] = names as [string];
    for (const target of ["from/same.onnx", "to/other.onnx"]) {
      const { stderr } = await fishy("init", path("from/big.onnx"), "-o", path(target), "--only", `${first}=normal:2`);
      expect(stderr).toBe("");
      const written = await loadModel(path(target));
      for (const [i, tensor] of written.proto.graph.initializer.entries()) {
        const data = (await readTensor(written, tensor)) as Float32Array;
        const original = dataOf(source.proto.graph.initializer[i] as never);
        if (tensor.name === first) expect(moments(data).variance).toBeGreaterThan(2);
        else expect([tensor.name, data]).toEqual([tensor.name, original]);
      }
      await ort.InferenceSession.create(path(target));
    }
  });

  it("half precision stays half", async () => {
    const out = path("half.onnx");
    const { stderr } = await fishy(
      "init",
      join(GRAPHS, "half/mlp_float16/model.onnx"),
      "-o",
      out,
      "--scheme",
      "normal:0.5",
    );
    expect(stderr).toBe("");
    const { proto } = await loadModel(out);
    const weight = proto.graph.initializer.find((tensor) => dimsOf(tensor).length === 2);
    expect(weight?.dataType).toBe(DataType.FLOAT16);
    const values = widen(DataType.FLOAT16, dataOf(weight as never) as Uint16Array);
    expect(Math.abs(moments(values).variance / 0.25 - 1)).toBeLessThan(5 * Math.sqrt(2 / values.length));
    await ort.InferenceSession.create(out);
  });

  it("tables and constants whose role no operator tells stay, and are named", async () => {
    const gpt = join(GRAPHS, "pytorch/gpt_tied/model.onnx");
    const { stdout } = await fishy("init", gpt, "-o", path("gpt.onnx"));
    expect(stdout).toMatch(/Left as they are.*: h\.0\.mask, h\.1\.mask\. To initialise one: --only NAME=normal:0\.02/);
    expect(stdout).toMatch(/wte\.weight +40 × 32 +glorot-uniform +32 +40/);
  });

  it.each([
    [["--only", "nothing*"], 1, /--only 'nothing\*' fits no parameter. The parameters are: stem\.0\.weight/],
    [["--keep", "nothing"], 1, /--keep 'nothing' fits no parameter/],
    [["--only", "fc.bias=he"], 2, /'fc\.bias' \[10\] is no weight .* no fans for he-normal/],
    [["--scheme", "best"], 2, /The scheme 'best' is not known\. Schemes:/],
    [["--only", "=he"], 2, /must be PATTERN or PATTERN=SCHEME/],
    [["--keep", "*"], 1, /nothing to initialise/],
  ])("refuses %j", async (flags, exit, message) => {
    const { code, stderr } = await fishy("init", CNN, "-o", path("refused.onnx"), ...flags);
    expect(stderr).toMatch(message);
    expect(code).toBe(exit);
    expect(existsSync(path("refused.onnx"))).toBe(false);
  });
});
