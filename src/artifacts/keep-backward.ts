/**
 * A training model that keeps its own gradient nodes and gains the sampled backward pass of a training program, so that
 * a training build of ONNX Runtime can run it.
 */
import { FishyError } from "../errors.js";
import { valueInfo } from "../onnx/builder.js";
import { withFields } from "../onnx/codec.js";
import { capturedBy, takenNames, topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto, type TensorProto } from "../onnx/proto.js";
import {
  accumulatedName,
  accumulatedParameters,
  bufferName,
  forwardOutputs,
  gradientName,
  isInternalInput,
  LAZY_RESET,
} from "./training-names.js";

const PREFIX = "fishy/";

export interface SampledProgram {
  /** Made from the forward pass of the training model, whose values keep their names. */
  readonly model: ModelProto;
  readonly seed: string;
  /** All parameters of the training model, frozen ones included. */
  readonly parameters: readonly string[];
  /** Each parameter's sampled gradient: the program's output. */
  readonly sampled: ReadonlyMap<string, string>;
}

/**
 * How the sampled gradients come out: as plain outputs, which a training session returns after the loss, or accumulated
 * into buffers as the true ones are. A training session makes buffers for its parameters alone, so that with buffers
 * it takes an inference session of a training build, which is fed them.
 */
export type SampledOutputs = "outputs" | "buffers" | "both";

/**
 * The output with a sampled gradient. It does not end in `_grad`, because a training session returns no output that does.
 */
export const sampledOutput = (parameter: string): string => `${gradientName(sampledName(parameter))}.value`;

/** `W_sampled`: what `W_sampled_grad` is the gradient of, in the artifact's naming. */
const sampledName = (parameter: string): string => `${parameter}_sampled`;

/**
 * Adds to `training` the nodes that the program's sampled gradients need and the training model does not make itself.
 * @param training in the program's opset.
 * @param shared names that mean the same in both: those of the forward pass.
 * @throws FishyError when the training model has no accumulation, or a name of its own is in the way.
 */
export function withSampledBackward(
  training: ModelProto,
  program: SampledProgram,
  shared: ReadonlySet<string>,
  outputs: SampledOutputs = "outputs",
): ModelProto {
  const { graph } = training;
  if (accumulatedParameters(graph).length === 0) {
    throw new FishyError(
      "The training model has no accumulation buffers, so it is none that generate_artifacts made. Rewrite it without --keep-backward.",
    );
  }
  const taken = takenNames(graph);
  const has = new Set([
    ...[...graph.input, ...graph.initializer].map(({ name = "" }) => name),
    ...graph.node.flatMap((node) => node.output),
  ]);
  const isThere = (name: string) => shared.has(name) && has.has(name);
  const { nodes, initializers } = copyNeeded(program, isThere, taken);
  const added = nodes.names;
  if (taken.has(program.seed)) {
    throw new FishyError(`The training model has a value named '${program.seed}', which sampling uses. Rename it.`);
  }

  const parameters = [...program.sampled.keys()];
  const types = new Map(graph.input.map((input) => [input.name ?? "", input]));
  const typed = (name: string, parameter: string) => ({ ...withFields(types.get(parameter) ?? {}, { name }) });
  const identity = (input: string, output: string): NodeProto => {
    if (taken.has(output)) throw new FishyError(`The training model has a value named '${output}' already. Rename it.`);
    return { opType: "Identity", name: `${output}/copy`, input: [input], output: [output], attribute: [] };
  };
  const alias = parameters.flatMap((parameter): NodeProto[] => {
    const name = gradientName(sampledName(parameter));
    const value = identity(added.get(program.sampled.get(parameter) ?? "") as string, name);
    return outputs === "buffers" ? [value] : [value, identity(name, sampledOutput(parameter))];
  });
  const accumulates = outputs !== "outputs";
  const count = graph.node.filter(({ opType }) => opType === "InPlaceAccumulatorV2").length;
  const accumulators: NodeProto[] = !accumulates
    ? []
    : parameters.map((parameter, i) => {
        const name = sampledName(parameter);
        return {
          opType: "InPlaceAccumulatorV2",
          domain: "com.microsoft",
          name: `GradientAccumulator${count + i + 1}`,
          input: [bufferName(name), gradientName(name), LAZY_RESET],
          output: [accumulatedName(name)],
          attribute: [],
        };
      });

  const dataInputs = graph.input.filter(({ name = "" }) => !isInternalInput(name));
  const firstParameter = dataInputs.findIndex(({ name = "" }) => program.parameters.includes(name));
  const at = firstParameter < 0 ? dataInputs.length : firstParameter;
  const forward = new Set(forwardOutputs(graph));
  const own = graph.output.filter(({ name = "" }) => forward.has(name));
  const sampledOutputs = outputs === "buffers" ? [] : parameters.map((p) => typed(sampledOutput(p), p));
  const accumulated = accumulates
    ? parameters.map((p) => valueInfo(accumulatedName(sampledName(p)), { elemType: DataType.BOOL, shape: [1] }))
    : [];
  const result: GraphProto = withFields(graph, {
    node: [],
    initializer: [...graph.initializer, ...initializers],
    input: [
      ...dataInputs.slice(0, at),
      valueInfo(program.seed, { elemType: DataType.INT64, shape: [] }),
      ...dataInputs.slice(at),
      ...graph.input.filter(({ name = "" }) => isInternalInput(name) && name !== LAZY_RESET),
      ...(accumulates ? parameters.map((p) => typed(bufferName(sampledName(p)), p)) : []),
      ...graph.input.filter(({ name }) => name === LAZY_RESET),
    ],
    output: [...own, ...sampledOutputs, ...graph.output.filter(({ name = "" }) => !forward.has(name)), ...accumulated],
  });
  result.node = topologicalOrder({ ...result, node: [...graph.node, ...nodes.list, ...alias, ...accumulators] });
  return withFields(training, { graph: result });
}

/** Copies what the sampled gradients need, up to values that are there already; everything copied gets a new name. */
function copyNeeded(
  { model, seed, sampled }: Pick<SampledProgram, "model" | "seed" | "sampled">,
  isThere: (name: string) => boolean,
  taken: Set<string>,
): { nodes: { list: NodeProto[]; names: ReadonlyMap<string, string> }; initializers: TensorProto[] } {
  const { graph } = model;
  const producers = new Map(graph.node.flatMap((node) => node.output.map((output) => [output, node] as const)));
  const tensors = new Map(graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
  const names = new Map<string, string>();
  const needed = new Set<NodeProto>();
  const initializers: TensorProto[] = [];
  const visited = new Set<string>();
  const pending = [...sampled.values()];
  while (pending.length > 0) {
    const name = pending.pop() as string;
    if (!name || visited.has(name) || name === seed || isThere(name)) continue;
    visited.add(name);
    const tensor = tensors.get(name);
    const node = producers.get(name);
    if (!node && tensor) {
      names.set(name, free(name, taken));
      initializers.push(withFields(tensor, { name: names.get(name) as string }));
    }
    if (!node || needed.has(node)) continue;
    if (capturedBy(node).size > 0) {
      throw new FishyError(
        `Node '${node.name || node.output[0]}' (${node.opType}) has a subgraph, which --keep-backward cannot take over. Rewrite without it.`,
      );
    }
    needed.add(node);
    for (const output of node.output) if (output) names.set(output, free(output, taken));
    pending.push(...node.input);
  }
  const list = graph.node
    .filter((node) => needed.has(node))
    .map((node) => {
      const output = node.output.map((name) => (name ? (names.get(name) as string) : ""));
      // A value that is there keeps its name, and its copy has another.
      const input = node.input.map((name) => (isThere(name) ? name : (names.get(name) ?? name)));
      return withFields(node, { input, output, name: free(node.name || (output[0] ?? ""), taken) });
    });
  return { nodes: { list, names }, initializers };
}

function free(name: string, taken: Set<string>): string {
  const base = `${PREFIX}${name}`;
  let candidate = base;
  for (let count = 1; taken.has(candidate); count++) candidate = `${base}_${count}`;
  taken.add(candidate);
  return candidate;
}
