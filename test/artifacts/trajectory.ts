/** Trains a set of artifacts step by step on one batch: the rewritten program and an optimizer on plain arrays. */
import * as ort from "onnxruntime-node";
import type { LoadedArtifacts } from "../../src/artifacts/load.js";
import { encodeModel, withFields } from "../../src/onnx/codec.js";
import type { ModelProto } from "../../src/onnx/proto.js";
import { dataOf, type TensorData } from "../../src/onnx/tensor.js";
import type { OptimizerOptions } from "../../src/optimizers/registry.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { createArrayOptimizer } from "../../src/training/array-optimizer.js";
import type { Feeds } from "../support/run.js";

/** Dropout passes its data through, as in the oracle: its masks cannot be compared. */
export function withoutDropout(model: ModelProto): ModelProto {
  const node = model.graph.node.map((each) =>
    each.opType === "Dropout" ? withFields(each, { input: each.input.slice(0, 2) }) : each,
  );
  return withFields(model, { graph: withFields(model.graph, { node }) });
}

export interface Trajectory {
  readonly losses: number[];
  /** Of the first step, by parameter. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
  /** Parameters and running statistics afterwards. */
  readonly values: ReadonlyMap<string, Float32Array>;
}

export interface TrajectoryOptions {
  readonly steps: number;
  readonly optimizer: OptimizerOptions;
  /** Steps done before, and the optimizer's state after them. */
  readonly from?: { readonly step: number; readonly state: ReadonlyMap<string, TensorData> };
}

export async function trajectory(
  artifacts: LoadedArtifacts,
  batch: Feeds,
  options: TrajectoryOptions,
): Promise<Trajectory> {
  const program = await rewrite(withoutDropout(artifacts.proto), {
    loss: "in-graph",
    output: artifacts.loss,
    trainable: artifacts.trainable,
    sections: { kind: "none" },
  });
  const { manifest } = program;
  const values = new Map<string, Float32Array>();
  for (const tensor of program.model.graph.initializer) values.set(tensor.name ?? "", dataOf(tensor) as Float32Array);
  const parameters = manifest.parameters.map(({ name, dims }) => ({
    name,
    dims,
    data: values.get(name) as Float32Array,
  }));
  const optimizer = await createArrayOptimizer(options.optimizer, parameters);
  if (options.from) optimizer.restore(options.from.step, optimizer.parameters, options.from.state);
  // onnxruntime-node passes over feeds of inputs that have an initializer.
  const fed = new Set([...manifest.parameters, ...manifest.runningStatistics].map(({ name }) => name));
  const { graph } = program.model;
  const initializer = graph.initializer.filter((tensor) => !fed.has(tensor.name ?? ""));
  const model = withFields(program.model, { graph: withFields(graph, { initializer }) });
  const session = await ort.InferenceSession.create(encodeModel(model), { logSeverityLevel: 3 });
  const losses: number[] = [];
  let firstGradients: Map<string, Float32Array> | undefined;
  const dimsOf = new Map(program.model.graph.initializer.map((tensor) => [tensor.name ?? "", tensor.dims.map(Number)]));
  try {
    for (let step = 1; step <= options.steps; step++) {
      const feeds: Feeds = { ...batch, seed: new ort.Tensor("int64", BigInt64Array.of(BigInt(step)), []) };
      for (const [name, data] of optimizer.parameters)
        feeds[name] = new ort.Tensor("float32", data, dimsOf.get(name) ?? []);
      for (const { name } of manifest.runningStatistics) {
        feeds[name] = new ort.Tensor("float32", values.get(name) as Float32Array, dimsOf.get(name) ?? []);
      }
      const result = await session.run(feeds);
      losses.push(Number(result.loss?.data[0]));
      const gradients = new Map(
        manifest.parameters.map(({ name, gradient }) => [name, result[gradient]?.data as Float32Array]),
      );
      firstGradients ??= gradients;
      await optimizer.step(gradients);
      for (const { name, next } of manifest.runningStatistics) values.set(name, result[next]?.data as Float32Array);
    }
    return { losses, gradients: firstGradients ?? new Map(), values: new Map([...values, ...optimizer.parameters]) };
  } finally {
    await session.release();
    await optimizer.release();
  }
}
