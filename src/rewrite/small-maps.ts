/**
 * The forward pass of a step's graph with its convolutions over maps of few positions as products of matrices: on the
 * CPU up to seven times faster (`autodiff/small-maps.ts`). Programs, and what is exported, keep their convolutions; a
 * program declares the shapes by which a step's graph finds them.
 */
import { isSmall, type SmallConvolution, smallConvolution } from "../autodiff/small-maps.js";
import { groupOfNode, windowOfNode } from "../autodiff/windows.js";
import { GraphBuilder, type ValueType, valueInfo } from "../onnx/builder.js";
import { DataType, type GraphProto, type NodeProto } from "../onnx/proto.js";
import { declaredType, tensorType } from "../onnx/types.js";
import { isDefaultDomain } from "../onnx/versions.js";

/** With fewer channels, on either side, Conv is as fast. */
const LEAST_CHANNELS = 32;

/** Declares the input and output of every such convolution among `nodes`. */
export function declareSmallMaps(
  graph: GraphProto,
  nodes: readonly NodeProto[],
  typeOf: (name: string) => ValueType | undefined,
): void {
  const declared = new Set([...graph.valueInfo, ...graph.input, ...graph.output].map(({ name }) => name ?? ""));
  for (const node of nodes) {
    if (!smallConvolutionOf(node, typeOf)) continue;
    for (const name of [node.input[0] as string, node.output[0] as string]) {
      const type = typeOf(name);
      if (!type || declared.has(name)) continue;
      graph.valueInfo.push(valueInfo(name, type));
      declared.add(name);
    }
  }
}

/**
 * Replaces them in `graph`, in place; nodes of other graphs that share them stay as they are.
 * @param program whose declared types count.
 */
export function productsForSmallMaps(graph: GraphProto, program: GraphProto): void {
  const types = new Map<string, ValueType>();
  for (const info of [...program.input, ...program.output, ...program.valueInfo]) {
    const type = declaredType(info);
    if (type) types.set(info.name ?? "", type);
  }
  for (const tensor of program.initializer) types.set(tensor.name ?? "", tensorType(tensor));
  const found = new Map<NodeProto, SmallConvolution>();
  for (const node of graph.node) {
    const small = smallConvolutionOf(node, (name) => types.get(name));
    if (small) found.set(node, small);
  }
  if (found.size === 0) return;
  const b = new GraphBuilder(graph);
  const { node: nodes } = graph;
  graph.node = [];
  for (const node of nodes) {
    const small = found.get(node);
    if (!small) {
      graph.node.push(node);
      continue;
    }
    const [x, weights, bias] = node.input as [string, string, string?];
    const name = node.output[0] as string;
    b.scope(name, () => smallConvolution(b, small, { x, weights, bias: bias || undefined, name }));
  }
}

function smallConvolutionOf(
  node: NodeProto,
  typeOf: (name: string) => ValueType | undefined,
): SmallConvolution | undefined {
  if (node.opType !== "Conv" || !isDefaultDomain(node.domain)) return undefined;
  const [x, weights, y] = [node.input[0], node.input[1], node.output[0]].map((name) => typeOf(name ?? ""));
  if (!x?.shape || !y?.shape || weights?.elemType !== DataType.FLOAT) return undefined;
  const dims = weights.shape?.filter((dim) => typeof dim === "number") ?? [];
  if (dims.length < 3 || dims.length !== weights.shape?.length) return undefined;
  const window = windowOfNode(node, dims.slice(2), { in: x.shape.slice(2), out: y.shape.slice(2) });
  if (!window || !isSmall(window, groupOfNode(node))) return undefined;
  if (dims.slice(0, 2).some((channels) => channels < LEAST_CHANNELS)) return undefined;
  return { elemType: weights.elemType, dims, window };
}
