/**
 * What one pass over a tensor costs: the operators that samplers and bias gradients are made of, each on 20 tensors in turn.
 *
 *     npm run build && node tools/bench/passes.mjs [--shape 1000,500] [--threads N]
 *
 * Milliseconds a tensor: the median of 15 runs, less that of the maximum that is taken of each result so that something
 * reads it.
 */
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { formatTable } from "../../dist/cli/table.js";
import { emptyGraph, GraphBuilder } from "../../dist/onnx/builder.js";
import { DataType } from "../../dist/onnx/proto.js";
import { createSession } from "../../dist/runtime/session.js";
import { generator, modelOf } from "./support.mjs";

const { values: options } = parseArgs({
  options: {
    shape: { type: "string", default: "1000,500" },
    threads: { type: "string", default: String(cpus().length) },
  },
});
const [rows, columns] = options.shape.split(",").map(Number);
const TENSORS = 20;
const RUNS = 15;
const uniform = generator(1);
const { FLOAT, INT32 } = DataType;
const floats = (b, name, dims, value) =>
  b.initializer(
    name,
    FLOAT,
    dims,
    Float32Array.from({ length: dims.reduce((product, dim) => product * dim, 1) }, value),
  );
/** An input of random indices; constant ones would be folded away. */
const indices = (b, feeds, count, below) => {
  const name = b.input(`index${Object.keys(feeds).length}`, { elemType: INT32, shape: [count] });
  const values = Int32Array.from({ length: count }, () => Math.floor(uniform() * below));
  feeds[name] = new ort.Tensor("int32", values, [count]);
  return name;
};

/** Their results are vectors, whose maxima cost nothing. */
const SUM = "ReduceSum of columns";
const PRODUCT = "the same by a product with ones";

/** By name: emits one operator on x [rows, columns]. */
const PASSES = {
  "Mul by a scalar": (b, x) => b.mul(x, b.f32(1.5)),
  "Mul of two tensors": (b, x, next) => b.mul(x, next),
  HardSigmoid: (b, x) => b.op("HardSigmoid", [x]),
  Abs: (b, x) => b.abs(x),
  Div: (b, x, next) => b.div(x, next),
  Sqrt: (b, x) => b.sqrt(x),
  Tanh: (b, x) => b.op("Tanh", [x]),
  "Cast to int32": (b, x) => b.cast(x, INT32),
  "QuantizeLinear to uint8 and Cast": (b, x) => {
    const zero = b.initializer("zero", DataType.UINT8, [], Uint8Array.of(128));
    return b.cast(b.op("QuantizeLinear", [x, b.f32(1 / 16), zero]), INT32);
  },
  "Gather of rows of 128": (b, _x, _next, feeds) =>
    b.gather(floats(b, "pool", [1024, 128], uniform), indices(b, feeds, Math.floor((rows * columns) / 128), 1024)),
  "GatherElements from 32,768 numbers": (b, _x, _next, feeds) => {
    const table = floats(b, "table", [32768], uniform);
    return b.op("GatherElements", [table, indices(b, feeds, rows * columns, 32768)], { axis: 0 });
  },
  "Gather of single numbers from them": (b, _x, _next, feeds) =>
    b.gather(floats(b, "table", [32768], uniform), indices(b, feeds, rows * columns, 32768)),
  [SUM]: (b, x) => b.reduceSum(x, [0], false),
  [PRODUCT]: (b, x) => b.op("MatMul", [floats(b, "ones", [rows], () => 1), x]),
};

async function timeOf(emit) {
  const b = new GraphBuilder(emptyGraph("passes"));
  const inputs = Array.from({ length: TENSORS }, (_, i) =>
    b.input(`x${i}`, { elemType: FLOAT, shape: [rows, columns] }),
  );
  const feeds = {};
  const fetches = {};
  for (const [i, x] of inputs.entries()) {
    feeds[x] = new ort.Tensor(
      "float32",
      Float32Array.from({ length: rows * columns }, () => 4 * uniform() - 2),
      [rows, columns],
    );
    const value = emit(b, x, inputs[(i + 1) % TENSORS], feeds);
    const integers = b.graph.node.some(({ opType, output }) => output[0] === value && opType === "Cast");
    const name = b.alias(b.reduce("ReduceMax", value, undefined, false), `max${i}`);
    b.output(name, { elemType: integers ? INT32 : FLOAT, shape: [] });
    fetches[name] = new ort.Tensor(
      integers ? "int32" : "float32",
      integers ? new Int32Array(1) : new Float32Array(1),
      [],
    );
  }
  const session = await createSession(modelOf(b.graph), { threads: Number(options.threads) });
  const times = [];
  for (let run = 0; run < RUNS + 3; run++) {
    const start = performance.now();
    await session.run(feeds, fetches);
    if (run >= 3) times.push(performance.now() - start);
  }
  await session.release();
  return times.sort((x, y) => x - y)[RUNS >> 1] / TENSORS;
}

const maximum = await timeOf((_, x) => x);
const table = [];
for (const [name, emit] of Object.entries(PASSES)) {
  const ms = (await timeOf(emit)) - (name === SUM || name === PRODUCT ? 0 : maximum);
  table.push([name, ms.toFixed(3), ((ms * 1e6) / (rows * columns)).toFixed(2)]);
}
console.log(
  `${rows} × ${columns}, ${options.threads} threads, onnxruntime-node; ${cpus()[0].model}, Node ${process.versions.node}`,
);
console.log(formatTable(["pass", "ms", "ns an element"], table));
