/** Running graphs in tests. */
import * as ort from "onnxruntime-node";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { encodeModel } from "../../src/onnx/codec.js";
import type { GraphProto, ModelProto } from "../../src/onnx/proto.js";

export type Feeds = Record<string, ort.Tensor>;

/** A model of opset 18 around a graph. */
export function modelOf(graph: GraphProto, opset = 18): ModelProto {
  return {
    irVersion: 8,
    producerName: "fishy-test",
    graph,
    opsetImport: [
      { domain: "", version: opset },
      { domain: "com.microsoft", version: 1 },
    ],
    metadataProps: [],
    trainingInfo: [],
    functions: [],
  };
}

/** A builder of a fresh graph. */
export function newBuilder(): GraphBuilder {
  return new GraphBuilder(emptyGraph("test"));
}

/** Runs a model once and returns all its outputs. */
export async function runModel(
  model: ModelProto,
  feeds: Feeds,
  options: ort.InferenceSession.SessionOptions = {},
): Promise<Record<string, ort.Tensor>> {
  const session = await ort.InferenceSession.create(encodeModel(model), { logSeverityLevel: 3, ...options });
  try {
    return (await session.run(feeds)) as Record<string, ort.Tensor>;
  } finally {
    await session.release();
  }
}

export function f32(values: ArrayLike<number>, dims: readonly number[]): ort.Tensor {
  return new ort.Tensor("float32", Float32Array.from(values), [...dims]);
}

/** ‖x − reference‖ / ‖reference‖ (‖x‖ when the reference is zero). */
export function relativeError(x: ArrayLike<number>, reference: ArrayLike<number>): number {
  if (x.length !== reference.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < x.length; i++) {
    difference += ((x[i] as number) - (reference[i] as number)) ** 2;
    norm += (reference[i] as number) ** 2;
  }
  return Math.sqrt(norm > 0 ? difference / norm : difference);
}
