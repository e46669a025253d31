/** A model rewritten so that every node has a WebGPU kernel, as far as that goes. */
import { FishyError } from "../errors.js";
import { GraphBuilder } from "../onnx/builder.js";
import { foldConstants } from "../onnx/fold.js";
import { capturedBy, GraphIndex, prune, topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto } from "../onnx/proto.js";
import { inferTypes, type TypeMap } from "../onnx/types.js";
import { constantValues } from "./constant-values.js";
import { splitHostPart } from "./host-part.js";
import { kernelProblem } from "./kernels.js";
import { narrowIntegers } from "./narrow-integers.js";
import { asOptimised } from "./optimised.js";
import { type MisplacedNode, misplacedNodes } from "./placement.js";
import { replacementOf } from "./replacements.js";

export interface WebGpuModel {
  readonly model: ModelProto;
  /** Runs on the CPU before `model`, which reads its outputs. */
  readonly host: ModelProto | undefined;
  /** int64 inputs of the source that are int32 inputs of both. */
  readonly narrowed: ReadonlySet<string>;
  /** Nodes that fall back to the CPU all the same. */
  readonly misplaced: readonly MisplacedNode[];
}

/**
 * Rewrites a model of static shapes for WebGPU: constants folded, int64 narrowed to int32, operators without a kernel
 * replaced, and what depends on the host's inputs alone left to the host.
 *
 * @param hostInputs inputs that are fed from the host at every run: data, the seed, hyperparameters.
 * @param accepts `defects`: nodes that would end a run or give wrong numbers are told in `misplaced` instead of refused.
 * @throws FishyError naming nodes that would end a run or give wrong numbers, float64, and integers beyond int32.
 */
export async function toWebGpuModel(
  source: ModelProto,
  hostInputs: readonly string[],
  accepts?: "defects",
): Promise<WebGpuModel> {
  // What has a kernel nowhere, such as a loss, is a call of its function body.
  const inlined = source.graph.node.some(({ opType, domain }) => isFunction(opType, domain))
    ? await asOptimised(source, false)
    : source;
  const graph: GraphProto = {
    ...inlined.graph,
    node: [...inlined.graph.node],
    initializer: [...inlined.graph.initializer],
    input: [...inlined.graph.input],
    valueInfo: [],
  };
  const model: ModelProto = { ...inlined, graph };
  let types = await inferTypes(model);
  if (await foldConstants(model, types)) types = await inferTypes(model);
  const isInput = new Set(graph.input.map(({ name }) => name));
  const isScalar = (name: string) => types.get(name)?.shape?.length === 0;
  const integers = hostInputs.filter((name) => isInput.has(name) && types.get(name)?.elemType === DataType.INT64);
  const narrowed = integers.filter((name) => !isScalar(name));
  replaceOperators(graph, narrowIntegers(graph, types, narrowed, integers.filter(isScalar)));
  prune(graph);
  types = await inferTypes(model);
  refuseDoubles(graph, types);
  const index = new GraphIndex(graph);
  const scope = { types, constant: (name: string) => index.constant(name) };
  const isMisplaced = (node: NodeProto) => kernelProblem(node, "webgpu", scope) !== undefined;
  const host = splitHostPart(graph, types, new Set(hostInputs), isMisplaced);
  dropUnreadInputs(graph);
  const misplaced = misplacedNodes(graph.node, graph, types, "webgpu");
  if (accepts !== "defects") refuseDefects(misplaced);
  return { model, host: host && { ...source, graph: host }, narrowed: new Set(narrowed), misplaced };
}

/** Operators that ONNX Runtime has no kernel for on any device, and that a source model may hold. */
function isFunction(opType: string | undefined, domain: string | undefined): boolean {
  return (
    !domain && /^(SoftmaxCrossEntropyLoss|NegativeLogLikelihoodLoss|CastLike|GroupNormalization)$/.test(opType ?? "")
  );
}

/** Puts other nodes in the place of those without a kernel; values that the graph returns or a branch reads keep their names. */
function replaceOperators(graph: GraphProto, types: TypeMap): void {
  const order = topologicalOrder(graph);
  const b = new GraphBuilder(graph);
  const index = new GraphIndex(graph);
  const fixed = new Set([...index.outputs, ...order.flatMap((node) => [...capturedBy(node)])]);
  const renamed = new Map<string, string>();
  const current = (name: string) => renamed.get(name) ?? name;
  const known = new Map(types);
  const scope = { types: known, constant: (name: string) => index.constant(name) };
  graph.node = [];
  for (const original of order) {
    const problem = kernelProblem(original, "webgpu", scope);
    const type = types.get(original.input[0] ?? "");
    const node = { ...original, input: original.input.map(current) };
    const values = problem && type && b.scope(node.name ?? "", () => replacementOf(b, node, { ...scope, type }));
    if (!values) {
      graph.node.push(node);
      continue;
    }
    node.output.forEach((output, i) => {
      const value = values[i] as string;
      if (fixed.has(output)) b.node("Identity", [value], { outputs: [output] });
      else renamed.set(output, value);
      const made = types.get(output);
      if (made) known.set(value, made);
    });
  }
}

function dropUnreadInputs(graph: GraphProto): void {
  const read = new Set([
    ...graph.node.flatMap((node) => [...node.input, ...capturedBy(node)]),
    ...graph.output.map(({ name }) => name ?? ""),
  ]);
  graph.input = graph.input.filter(({ name }) => read.has(name ?? ""));
}

function refuseDoubles(graph: GraphProto, types: TypeMap): void {
  // Constants, such as the exporter's, are cast before anything is placed.
  const constants = constantValues(graph);
  const isDouble = (name: string) => types.get(name)?.elemType === DataType.DOUBLE && !constants.has(name);
  const names = [...graph.input.map((info) => info.name ?? ""), ...graph.node.flatMap((node) => node.output)];
  const name = names.find(isDouble);
  if (name === undefined) return;
  const maker = graph.node.find((node) => node.output.includes(name));
  throw new FishyError(
    `WebGPU has no float64, and '${name}'${maker ? ` (made by the ${maker.opType} '${maker.name}')` : ""} is of it. Export the model in float32, or train on the CPU or CUDA.`,
  );
}

function refuseDefects(misplaced: readonly MisplacedNode[]): void {
  const defects = misplaced.filter(({ verdict }) => verdict !== "falls back");
  if (defects.length === 0) return;
  const lines = defects.map(
    ({ what, name, verdict, reason }) =>
      `  ${what} '${name}' ${verdict === "fails" ? "fails" : "gives wrong numbers"}: ${reason}`,
  );
  throw new FishyError(`ONNX Runtime's WebGPU cannot run the graph:\n${lines.join("\n")}\nTrain on the CPU or CUDA.`);
}
