/** Values for the inputs of a case, and running its parts on the CPU. */
import * as ort from "onnxruntime-node";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { elementCount } from "../../src/onnx/tensor.js";
import { type Case, valuesOf } from "./case.js";
import type { CaseGraphs } from "./graphs.js";

export type Feeds = Record<string, ort.Tensor>;

export interface Run {
  readonly model: ModelProto;
  readonly feeds: Feeds;
  readonly outputs: Feeds;
}

export interface CaseRuns {
  readonly forward: Run;
  readonly backward?: Run;
}

/**
 * Runs both parts on the CPU without optimisation.
 * @throws an error of ONNX Runtime when the CPU has no kernel for a node.
 */
export async function runOnCpu(example: Case, graphs: CaseGraphs): Promise<CaseRuns> {
  const random = generator(1);
  const feeds: Feeds = { seed: tensor(DataType.INT64, [7], []) };
  for (const [name, operand] of Object.entries(example.operands)) {
    if (operand.role !== "constant") feeds[name] = tensor(operand.type, valuesOf(operand, random), operand.dims);
  }
  const { forward, backward } = graphs;
  const outputs = forward.model.graph.output.map((output) => output.name ?? "");
  const inner = backward ? backward.model.graph.input.map((input) => input.name ?? "") : [];
  const made = new Set(forward.model.graph.node.flatMap((node) => node.output));
  const wanted = [...new Set([...outputs, ...inner.filter((name) => made.has(name))])];
  const { graph } = forward.model;
  const all = await run({ ...forward.model, graph: { ...graph, output: wanted.map((name) => ({ name })) } }, feeds);
  const first = { model: forward.model, feeds: pick(feeds, forward.model), outputs: select(all, outputs) };
  if (!backward) return { forward: first };
  const known: Feeds = { ...feeds, ...all };
  for (const name of outputs) {
    const { type, dims, data } = all[name] as ort.Tensor;
    if (type !== "float32") continue;
    const values = Array.from({ length: data.length }, () => random() * 2 - 1);
    known[`${name}_cotangent`] = tensor(DataType.FLOAT, values, dims);
  }
  const own = pick(known, backward.model);
  return { forward: first, backward: { model: backward.model, feeds: own, outputs: await run(backward.model, own) } };
}

async function run(model: ModelProto, feeds: Feeds): Promise<Feeds> {
  const session = await ort.InferenceSession.create(encodeModel(model), {
    graphOptimizationLevel: "disabled",
    logSeverityLevel: 3,
    intraOpNumThreads: 1,
  });
  try {
    return (await session.run(pick(feeds, model))) as Feeds;
  } finally {
    await session.release();
  }
}

function pick(feeds: Feeds, model: ModelProto): Feeds {
  return select(
    feeds,
    model.graph.input.map((input) => input.name ?? ""),
  );
}

function select(feeds: Feeds, names: readonly string[]): Feeds {
  return Object.fromEntries(names.map((name) => [name, feeds[name] as ort.Tensor]));
}

function tensor(type: DataType, values: readonly number[], dims: readonly number[]): ort.Tensor {
  if (elementCount(dims) !== values.length) throw new Error(`${values.length} values for [${dims.join(", ")}]`);
  switch (type) {
    case DataType.FLOAT:
      return new ort.Tensor("float32", Float32Array.from(values), [...dims]);
    case DataType.INT64:
      return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [...dims]);
    case DataType.INT32:
      return new ort.Tensor("int32", Int32Array.from(values), [...dims]);
    case DataType.BOOL:
      return new ort.Tensor("bool", Uint8Array.from(values), [...dims]);
    default:
      throw new Error(`operands of type ${type} cannot be fed`);
  }
}

/** Uniforms on [0, 1) of a linear congruential generator (Numerical Recipes): test data, nothing more. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
