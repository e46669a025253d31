/** Where ONNX Runtime would place the nodes of a model on a GPU, told before a run. */
import { subgraphsOf } from "../onnx/attributes.js";
import { GraphIndex } from "../onnx/graph.js";
import type { GraphProto, ModelProto, NodeProto } from "../onnx/proto.js";
import { inferTypes, type TypeMap } from "../onnx/types.js";
import { constantValues } from "./constant-values.js";
import type { Gpu } from "./kernel-table.js";
import { type KernelProblem, kernelProblem } from "./kernels.js";
import { asOptimised } from "./optimised.js";
import { shapeArithmetic } from "./shape-arithmetic.js";

/** A node that does not run on the device, or not right. */
export interface MisplacedNode extends KernelProblem {
  readonly name: string;
  readonly operator: string;
}

export interface Placement {
  readonly device: Gpu;
  /** Nodes that ONNX Runtime has left after folding constants. */
  readonly nodes: number;
  /** Of them, nodes that compute shapes: they run on the CPU, which costs next to nothing. */
  readonly shapeNodes: number;
  readonly misplaced: readonly MisplacedNode[];
}

/**
 * The placement of a model by the tables of kernels.
 * @param scalars inputs that are scalars from the host, such as the seed: what is computed from them alone counts as shapes.
 * @throws FishyError when ONNX Runtime refuses the model.
 */
export async function placementOf(model: ModelProto, device: Gpu, scalars: readonly string[] = []): Promise<Placement> {
  const optimised = await asOptimised(model, true);
  const types = await inferTypes(optimised);
  const { graph } = optimised;
  const shapes = shapeArithmetic(graph, types, scalars);
  const data = graph.node.filter((node) => !shapes.has(node));
  return {
    device,
    nodes: data.length + shapes.size,
    shapeNodes: shapes.size,
    misplaced: misplacedNodes(data, graph, types, device),
  };
}

/** The nodes of `nodes` with a problem, those of subgraphs included; constants are folded before nodes are placed. */
export function misplacedNodes(
  nodes: readonly NodeProto[],
  graph: GraphProto,
  types: TypeMap,
  device: Gpu,
): MisplacedNode[] {
  const index = new GraphIndex(graph);
  const scope = { types, constant: (name: string) => index.constant(name) };
  const constants = constantValues(graph);
  return nodes.flatMap((node) => {
    if (node.output.every((value) => !value || constants.has(value))) return [];
    const { name = "", opType: operator = "" } = node;
    const problem = kernelProblem(node, device, scope);
    if (problem) return [{ name, operator, ...problem }];
    // The types of subgraphs are not known.
    return subgraphsOf(node).flatMap((inner) => misplacedNodes(inner.node, inner, new Map(), device));
  });
}
