/** Loss and gradients of a PyTorch export by fishy's reverse mode, to compare with PyTorch's own in float64. */
import { Tensor } from "onnxruntime-node";
import { differentiate } from "../../src/autodiff/reverse.js";
import type { SafetensorsFile } from "../../src/data/safetensors.js";
import { GraphBuilder } from "../../src/onnx/builder.js";
import { DataType, type GraphProto, type ModelProto } from "../../src/onnx/proto.js";
import { inferTypes } from "../../src/onnx/types.js";
import { type Feeds, f32, relativeError, runModel } from "./run.js";
import { loadGolden } from "./shared.js";

export interface GoldenComparison {
  /** Relative to the loss where that is above 1: float32 resolves no more. */
  readonly lossError: number;
  /** ‖g − reference‖ / ‖reference‖ by parameter; infinite where a gradient is missing. */
  readonly gradientErrors: ReadonlyMap<string, number>;
  /** How many nodes of each operator the backward graph has. */
  readonly operators: ReadonlyMap<string, number>;
}

/** @param prepare what the rewriter does before differentiation: opset upgrade, lowering. */
export async function compareWithPyTorch(
  name: string,
  prepare: (model: ModelProto) => ModelProto | Promise<ModelProto>,
): Promise<GoldenComparison> {
  const { model: source, golden } = loadGolden(name);
  const model = await prepare(source);
  const builder = new GraphBuilder(model.graph);
  const loss = appendLoss(builder, golden);
  const forward: GraphProto = {
    ...model.graph,
    node: [...model.graph.node],
    initializer: [...model.graph.initializer],
    output: [...model.graph.output],
  };
  const types = await inferTypes({ ...model, graph: forward });
  const parameters = [...golden.tensors.keys()].filter((key) => key.startsWith("grad/")).map((key) => key.slice(5));
  const gradients = differentiate({
    builder,
    forward,
    types,
    wrt: parameters,
    seeds: new Map([[loss, builder.f32(1)]]),
  });

  const outputs = [loss, ...new Set(gradients.values())];
  const result = await runModel(
    { ...model, graph: { ...model.graph, output: outputs.map((output) => ({ name: output })) } },
    feedsOf(golden, model),
  );
  const operators = new Map<string, number>();
  for (const { opType } of model.graph.node.slice(forward.node.length)) {
    operators.set(opType ?? "", (operators.get(opType ?? "") ?? 0) + 1);
  }
  const numbers = (tensor: string) => golden.tensors.get(tensor)?.data as Float64Array;
  const gradientErrors = parameters.map((parameter): [string, number] => {
    const gradient = result[gradients.get(parameter) ?? ""];
    if (!gradient) return [parameter, Number.POSITIVE_INFINITY];
    return [parameter, relativeError(gradient.data as Float32Array, numbers(`grad/${parameter}`))];
  });
  const reference = numbers("loss")[0] as number;
  return {
    lossError: Math.abs((result[loss]?.data[0] as number) - reference) / Math.max(1, Math.abs(reference)),
    gradientErrors: new Map(gradientErrors),
    operators,
  };
}

/** Appends the loss that `graphs/pytorch/README.md` describes, from operators whose gradients are tested by themselves. */
function appendLoss(b: GraphBuilder, golden: SafetensorsFile): string {
  const output = b.graph.output[0]?.name as string;
  const kind = golden.metadata.loss;
  if (kind === "in-graph") return output;
  const target = golden.tensors.get("target");
  if (!target) throw new Error("the golden file lacks its target");
  const labels = kind === "softmax_cross_entropy";
  b.input("target", { elemType: labels ? DataType.INT64 : DataType.FLOAT, shape: [...target.dims] });
  if (labels) {
    const classes = golden.tensors.get("output")?.dims.at(-1) as number;
    return b.op("SoftmaxCrossEntropyLoss", [b.reshape(output, [-1, classes]), b.reshape("target", [-1])]);
  }
  if (kind === "sigmoid_cross_entropy") {
    const perPixel = b.sub(b.op("Softplus", [output]), b.mul(output, "target"));
    return b.div(b.reduceSum(perPixel, undefined, false), b.f32(target.dims[0] as number));
  }
  if (kind !== "mean_squared_error") throw new Error(`unknown loss ${kind}`);
  const difference = b.sub(output, "target");
  return b.reduce("ReduceMean", b.mul(difference, difference), undefined, false);
}

function feedsOf(golden: SafetensorsFile, model: ModelProto): Feeds {
  const feeds: Feeds = {};
  for (const input of model.graph.input) {
    const name = input.name ?? "";
    const tensor = golden.tensors.get(`input/${name}`) ?? golden.tensors.get(name);
    if (!tensor) continue;
    feeds[name] =
      tensor.type === DataType.INT64 ? int64(tensor.data, tensor.dims) : f32(tensor.data as Float32Array, tensor.dims);
  }
  return feeds;
}

function int64(data: unknown, dims: readonly number[]): Tensor {
  return new Tensor("int64", data as BigInt64Array, [...dims]);
}
