/** Checks of lowerings: ONNX Runtime runs the graph before and after. */
import * as ort from "onnxruntime-node";
import { expect } from "vitest";
import { counterRandom } from "../../../src/families/random.js";
import { type GraphBuilder, valueInfo } from "../../../src/onnx/builder.js";
import { cloneModel } from "../../../src/onnx/codec.js";
import { prune } from "../../../src/onnx/graph.js";
import { DataType, type ModelProto } from "../../../src/onnx/proto.js";
import { type LoweredModel, lowerModel } from "../../../src/rewrite/lower/lower-model.js";
import type { LoweringOptions } from "../../../src/rewrite/lower/lowering.js";
import { mayTrain } from "../../../src/rewrite/parameters.js";
import { expectSameOutputs } from "../../support/convert.js";
import { mulberry32 } from "../../support/gradient-check.js";
import { type Feeds, modelOf, newBuilder, runModel } from "../../support/run.js";

export interface Lowered extends LoweredModel {
  readonly model: ModelProto;
  readonly operators: readonly string[];
}

/** Lowers a copy of `model`, with every float initializer as something that may train. */
export async function lower(model: ModelProto, options: LoweringOptions = {}): Promise<Lowered> {
  const copy = cloneModel(model);
  copy.graph.input.push(valueInfo("seed", { elemType: DataType.INT64, shape: [] }));
  const trainable = mayTrain(copy.graph, {});
  const result = await lowerModel(copy, () => counterRandom("seed", 1), trainable, options);
  prune(copy.graph);
  return { ...result, model: copy, operators: copy.graph.node.map((node) => node.opType ?? "") };
}

/** Asserts that the lowered model computes what the model does, without the operators that were to go. */
export async function expectLowered(
  model: ModelProto,
  feeds: Feeds,
  gone: readonly string[],
  tolerance = 2e-6,
  lowering: LoweringOptions = {},
): Promise<Lowered> {
  const lowered = await lower(model, lowering);
  expect([...lowered.refusals.values()]).toEqual([]);
  for (const operator of gone) expect(lowered.operators).not.toContain(operator);
  const seeded = { ...feeds, seed: new ort.Tensor("int64", BigInt64Array.of(1n), []) };
  const options = { graphOptimizationLevel: "disabled" as const };
  const [after, before] = [await runModel(lowered.model, seeded, options), await runModel(model, feeds, options)];
  expectSameOutputs(after, before, tolerance);
  return lowered;
}

/** Random tensors from one seed. */
export class Source {
  private readonly uniform: () => number;
  constructor(seed: number) {
    this.uniform = mulberry32(seed);
  }

  data(dims: readonly number[], scale = 1): Float32Array {
    const count = dims.reduce((product, dim) => product * dim, 1);
    return Float32Array.from({ length: count }, () => scale * (2 * this.uniform() - 1));
  }

  tensor(dims: readonly number[], scale = 1): ort.Tensor {
    return new ort.Tensor("float32", this.data(dims, scale), [...dims]);
  }

  weight(b: GraphBuilder, name: string, dims: readonly number[], scale = 1): string {
    return b.initializer(name, DataType.FLOAT, dims, this.data(dims, scale));
  }
}

/** A model around what `build` emits; outputs without declared shapes. */
export function modelWith(
  build: (b: GraphBuilder) => readonly (string | readonly [string, DataType])[],
  opset?: number,
): ModelProto {
  const b = newBuilder();
  for (const output of build(b)) {
    const [name, elemType] = typeof output === "string" ? [output, DataType.FLOAT] : output;
    b.output(name, { elemType, shape: undefined });
  }
  return modelOf(b.graph, opset);
}
